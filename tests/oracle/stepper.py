"""Runs step.c: compiled once a session, in an environment where a C library takes the paths that it takes with us."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.oracle.traces import Trace, read_trace, symbols

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

SOURCE = Path(__file__).with_name("step.c")

# What glibc must not use, as our CPUID does not offer it: the string functions are the SSE2 ones in both runs.
MASKED = (
    "AVX,AVX2,AVX_Fast_Unaligned_Load,Fast_Unaligned_Load,Fast_Unaligned_Copy,Fast_Rep_String,Slow_BSF,AVX512F,AVX512VL,AVX512BW,AVX512CD,AVX512DQ,BMI1,BMI2,ERMS,FSRM,LZCNT,MOVBE,RTM,"
    "XSAVE,XSAVEC,Prefer_No_VZEROUPPER,FMA,FMA4,SSSE3,SSE4_1,SSE4_2"
)
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LC_ALL": "C",
    "LD_BIND_NOW": "1",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=" + ",".join(f"-{name}" for name in MASKED.split(",")),
}


class Oracle:
    """The compiled single-stepper and where its traces lie."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stepper = directory / "step"
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", self.stepper, SOURCE]
        subprocess.run(command, check=True, timeout=120)
        self.runs = 0

    def trace(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        start: str | int | None = None,
        environment: Mapping[str, str] | None = None,
        follow: bool = False,
        stdin: bytes = b"",
        status: int = 0,
    ) -> Trace:
        """Step a program through and return its branches, from start on; it must end with status.

        start is a function of the program or a link-time address. With follow, the children it forks are threads of
        the trace too.
        """
        self.runs += 1
        out = self.directory / f"trace{self.runs}"
        options: list[str | os.PathLike[str]] = ["-o", out]
        if follow:
            options.append("-f")
        if start:
            options += ["-b", hex(symbols(Path(command[0]))[start] if isinstance(start, str) else start)]
        done = subprocess.run(
            [self.stepper, *options, "--", *command],
            input=stdin,
            env=environment or ENVIRONMENT,
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == status, (done.returncode, done.stderr)
        return read_trace(out)
