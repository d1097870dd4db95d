"""The programs that `bench.accuracy` measures, and what they are given: all of it deterministic."""

from __future__ import annotations

import random
import subprocess
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

PERIODS = (1009, 10007, 100003)

# Hash seeds that are fixed, or no two runs take the same branches.
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C",
    "LD_BIND_NOW": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PERL_HASH_SEED": "0",
    "PERL_PERTURB_KEYS": "0",
}


class Program(NamedTuple):
    """A command line; `{data}` stands for the file of input."""

    name: str
    words: tuple[str, ...]

    def filled(self, inputs: dict[str, str]) -> Program:
        """Return the program with its files' names."""
        return self._replace(words=tuple(inputs.get(word[1:-1], word) for word in self.words))


PERL = (
    "my (%h, @a); for my $i (1 .. 60000) { $h{($i * 7919) % 4093} += $i; push @a, ($i * 31) % 997 if $i % 3 } "
    '@a = sort { $a <=> $b } @a; my $s = join ",", map { "$_=$h{$_}" } sort { $a <=> $b } keys %h; '
    "my $n = () = $s =~ /(\\d)\\1/g; print length($s), $n"
)
PYTHON = (
    "import json, re\n"
    "rows = [{'id': i, 'name': f'row {i * 7919 % 4093}', 'tags': list(range(i % 7))} for i in range(3000)]\n"
    "text = json.dumps(rows, indent=1)\n"
    "print(len(text), len(re.findall(r'row (\\d)', text)), sum(len(row['tags']) for row in json.loads(text)))\n"
)
SQL = (
    "create table t(a integer primary key, b text, c integer);"
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 12000) "
    "insert into t select i, hex(i * 7919), i * 31 % 997 from n;"
    "create index byc on t(c);"
    "select count(*), sum(a), max(b) from t where c between 100 and 400;"
    "select c % 10, count(*), avg(a) from t group by c % 10 order by 2;"
)

PROGRAMS = (
    Program("gzip", ("gzip", "-c", "{data}")),
    Program("sqlite3", ("sqlite3", ":memory:", SQL)),
    Program("python3", ("/usr/bin/python3", "-P", "-S", "-c", PYTHON)),
    Program("perl", ("perl", "-e", PERL)),
    Program("xz", ("xz", "-T1", "-2", "-c", "{data}")),
)


def lay_out_inputs(folder: Path, quick: bool) -> dict[str, str]:
    """Write the programs' input and return the files' names."""
    draw = random.Random(1)
    words = ["branch", "record", "ring", "depth", "freeze", "filter", "stack", "call"]
    lines = [f"{draw.randrange(10**6)} {' '.join(draw.choices(words, k=6))}" for _ in range(2000 if quick else 20000)]
    data = folder / "data"
    data.write_text("\n".join(lines) + "\n")
    return {"data": str(data)}


# A thousand taken branches a round: 399 jumps to the next line, 200 calls and their returns, the last loop's 200 turns
# and the branch back.
ROUNDS = 4000


def alias_program(folder: Path) -> Program:
    """Build a program whose every round takes a thousand branches, and return it."""
    jumps = "\n".join(f"  jmp 1f\n  nop\n1: add ${number}, %eax" for number in range(399))
    calls = "\n".join("  call leaf" for _ in range(200))
    source = f"""
.globl _start
leaf: ret
_start: mov ${ROUNDS}, %r12d
round:
{jumps}
{calls}
  mov $201, %ecx
2: dec %ecx
  jnz 2b
  dec %r12d
  jnz round
  xor %edi, %edi
  mov $60, %eax
  syscall
"""
    (folder / "alias.s").write_text(source)
    program = folder / "alias"
    subprocess.run(["gcc", "-nostdlib", "-static-pie", "-o", program, folder / "alias.s"], check=True)
    return Program("alias", (str(program),))
