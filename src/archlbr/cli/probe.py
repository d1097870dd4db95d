"""`archlbr probe`: the chain from silicon to a guest's `perf record -b` on this host, link by link."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archlbr.cli.formats import Format
from archlbr.cli.inputs import read_text
from archlbr.errors import InputError

if TYPE_CHECKING:
    from archlbr.probe.chain import Link


def probe(
    form: Annotated[Format, typer.Option("--format", help="How to print the result.")] = Format.TEXT,
    cpuid: Annotated[
        str | None,
        typer.Option("--cpuid", metavar="FILE", help="Take the processor from `cpuid -r` text (- for stdin)."),
    ] = None,
    require: Annotated[
        bool, typer.Option("--require", help="Exit with 1 unless each link of the chain holds.")
    ] = False,
    root: Annotated[Path, typer.Option("--root", help="Read /proc, /sys and /dev below this directory.")] = Path("/"),
) -> int:
    """Look at each link from silicon to a guest's `perf record -b` on this host, and name the first that is broken."""
    from archlbr.decode.dump import read_dump
    from archlbr.probe.ask import engine_facts, this_host
    from archlbr.probe.chain import verdict
    from archlbr.probe.engine import engine_links
    from archlbr.probe.hypervisor import hypervisor_links
    from archlbr.probe.pmu import pmu_links
    from archlbr.probe.processor import processor_links

    if not root.is_dir():
        raise InputError(f"{root}: no such directory; give --root the directory that stands for /")
    leaves, source = None, ""
    if cpuid is not None:
        first = read_dump(read_text(cpuid), cpuid)[0]
        leaves, source = first.leaves, f"{cpuid}, {first.name}"
    host = this_host(root, leaves, source)
    chain = processor_links(host) + pmu_links(host) + hypervisor_links(host)
    engine = engine_links(host, *engine_facts())
    print(as_json(chain, engine) if form is Format.JSON else as_text(chain, engine))
    return 1 if require and verdict(chain) != "holds" else 0


def as_text(chain: tuple[Link, ...], engine: tuple[Link, ...]) -> str:
    """Return the links as a table, advice below what is not ok, and a closing line."""
    from archlbr.probe.chain import first_broken, verdict

    lines = ["from silicon to a guest's `perf record -b`:"]
    for link in chain:
        lines += _rows(link)
    lines += ["", "what `archlbr record` needs:"]
    for link in engine:
        lines += _rows(link)
    broken = first_broken(chain)
    closing = {"holds": "the chain holds", "unknown": "no link is broken, but not each could be looked at"}
    lines += ["", f"first broken link: {broken.name}" if broken else closing[verdict(chain)]]
    return "\n".join(lines)


def as_json(chain: tuple[Link, ...], engine: tuple[Link, ...]) -> str:
    """Return the document of docs/formats.md, `probe`."""
    from archlbr.probe.chain import first_broken, verdict

    broken = first_broken(chain)
    document = {
        "version": 1,
        "verdict": verdict(chain),
        "first_broken": broken.name if broken else None,
        "chain": [link._asdict() for link in chain],
        "engine": [link._asdict() for link in engine],
    }
    return json.dumps(document, indent=2)


def _rows(link: Link) -> list[str]:
    rows = [f"  {link.state:<8}{link.name:<14}{link.evidence}"]
    if link.advice:
        rows.append(f"{'':<24}-> {link.advice}")
    return rows
