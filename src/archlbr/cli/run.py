"""`archlbr run`: a whole machine that boots a Linux kernel, its LBRs as real to the guest as its console."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archlbr.cli.drive import TIMED_OUT
from archlbr.cli.formats import Format
from archlbr.cli.machine_options import Control, Snapshot, Timeout, Until
from archlbr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.cli.stats import Stopwatch
    from archlbr.cpu.words import Words
    from archlbr.machine.board import Board
    from archlbr.machine.models import Model
    from archlbr.profile.output import Output
    from archlbr.vpmu.designs.hypervisors import Hypervisor

_SIZES = {"K": 10, "M": 20, "G": 30}
_LEAST, _MOST = 64 << 20, 3 << 30
# The console is the serial port; mitigations only slow an emulated processor down.
COMMAND_LINE = "console=ttyS0 mitigations=off"


def run(
    kernel: Annotated[
        list[str],
        typer.Option(
            "--kernel",
            metavar="IMAGE",
            help="A Linux bzImage (vmlinuz), a multiboot or x86-64 ELF image; twice for two on one processor.",
        ),
    ],
    initrd: Annotated[str | None, typer.Option("--initrd", metavar="FILE", help="Its first file system.")] = None,
    append: Annotated[
        str | None,
        typer.Option(
            "--append", metavar="TEXT", help=f"The kernel's command line, for Linux {COMMAND_LINE!r} if none."
        ),
    ] = None,
    cpu: Annotated[
        str,
        typer.Option(
            "--cpu", metavar="MODEL", help="sapphire-rapids or skylake-server; ,-arch-lbr ,-pmu ,-xsave take away."
        ),
    ] = "sapphire-rapids",
    memory: Annotated[str, typer.Option("--memory", metavar="SIZE", help="Bytes, with K, M or G.")] = "256M",
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Write here what the guest sends to ttyS1.")
    ] = None,
    design: Annotated[
        str, typer.Option("--design", metavar="DESIGN", help="How the hypervisor virtualizes the LBRs.")
    ] = "archlbr",
    host_event: Annotated[
        str | None,
        typer.Option(
            "--host-event", metavar="EVENT", help="An LBR event of the host's: pinned or flexible, then ,exclude_guest."
        ),
    ] = None,
    refuse: Annotated[
        int,
        typer.Option(
            "--refuse",
            metavar="N",
            help="perf cannot create the N-th event that a guest's enable bit asks for (vlbr-*).",
        ),
    ] = 0,
    share: Annotated[
        int, typer.Option("--slice", metavar="N", help="How many instructions a guest runs before another does.")
    ] = 1_000_000,
    trace: Annotated[
        str | None,
        typer.Option("--trace", metavar="FILE", help="Write every branch the guest takes; FILE.parquet for Parquet."),
    ] = None,
    trace_range: Annotated[
        str | None, typer.Option("--trace-range", metavar="LOW-HIGH", help="Only those from these addresses.")
    ] = None,
    until: Until = 0,
    snapshot: Snapshot = None,
    control: Control = None,
    timeout: Timeout = 0.0,
    form: Annotated[
        Format, typer.Option("--format", help="Of what guests that share a processor showed, on stderr.")
    ] = Format.TEXT,
    stats: Annotated[bool, typer.Option("--stats", help="End with a line of numbers on stderr.")] = False,
) -> int:
    """Boot a machine: its serial console is stdin and stdout, its exit status what the guest writes to port F4H.

    `make guest` fetches what this line boots, up to a shell in which perf record -b works:

    archlbr run --kernel build/guest/vmlinuz --initrd build/guest/guest.cpio

    Given --kernel twice, or --host-event, guests and host share the processor's LBRs as the design says. What each
    was given of them is told on stderr, and the exit status is 1 if a property of `archlbr check` was broken.
    """
    from archlbr.cli.session import Session
    from archlbr.cli.sharing import report, run_together
    from archlbr.cli.stats import Stopwatch
    from archlbr.machine.board import Board
    from archlbr.profile.output import Output

    size = parse_size(memory)
    model = parse_model(cpu)
    hypervisor = parse_design(design)
    span = parse_range(trace_range) if trace_range is not None else (0, 1 << 64)
    images, first = [_read(path) for path in kernel], _read(initrd) if initrd is not None else b""
    boots = [
        partial(_boot, image=image, name=name, initrd=first, append=append)
        for image, name in zip(images, kernel, strict=True)
    ]
    if len(images) > 1 or host_event is not None:
        if output is not None or trace is not None:
            raise InputError("-o and --trace take what one guest sends or does: give one --kernel and no --host-event")
        if until or snapshot is not None or control is not None:
            raise InputError("--until, --snapshot and --control are for one guest: give one --kernel, no --host-event")
        watch = Stopwatch()
        pcpu, ended = run_together(
            model,
            hypervisor,
            boots,
            size,
            host_event,
            (share, refuse),
            lambda: not timeout or watch.seconds() <= timeout,
        )
        status = report(pcpu, hypervisor, form)
        if stats:
            _print_stats(watch, [board.words for board in pcpu.guests], pcpu.findings.host.samples)
        return status if ended else _timed_out(timeout)
    if refuse:
        raise InputError("--refuse is for guests that share a processor: give --kernel twice, or --host-event")
    with Session(output, timeout, until, snapshot, control) as session, contextlib.ExitStack() as open_files:
        branches = open_files.enter_context(Output(trace)) if trace is not None else None
        board = Board(model, size, session.console.append, session.sent.append, hypervisor)
        boots[0](board)
        if board.vcpu.state.rules.why and not model.hidden:
            print(f"archlbr: the guest has no LBRs: {board.vcpu.state.rules.why}", file=sys.stderr)
        if branches is not None:
            folder = open_files.enter_context(tempfile.TemporaryDirectory(prefix="archlbr-"))
            status = _traced(board, Path(folder), span, branches, lambda: session.drive(board))
        else:
            status = session.drive(board)
    if stats:
        session.print_stats(board)
    return status


def _boot(board: Board, image: bytes, name: str, initrd: bytes, append: str | None) -> None:
    from archlbr.machine.images import is_linux

    board.start_image(image, name, initrd, append if append is not None else COMMAND_LINE if is_linux(image) else "")


def _print_stats(watch: Stopwatch, words: list[Words], samples: int) -> None:
    from archlbr.cpu import words as at

    instructions, branches = (sum(int(one[place]) for one in words) for place in (at.RETIRED, at.TAKEN))
    watch.print(instructions=instructions, branches=branches, samples=samples, engine="unicorn")


def _timed_out(timeout: float) -> int:
    print(f"archlbr: the machine ran for {timeout:g} s without an end", file=sys.stderr)
    return TIMED_OUT


def _traced(board: Board, folder: Path, span: tuple[int, int], out: Output, drive: Callable[[], int]) -> int:
    from archlbr.cli.trace import write
    from archlbr.cpu import words as at
    from archlbr.profile import trace
    from archlbr.profile.output import append

    spool = str(folder / "0.trace")
    append(spool, trace.note(0, "machine 0"))
    board.trace(lambda rows: append(spool, trace.branches(0, rows)), *span)
    status = drive()
    append(spool, trace.summary(int(board.words[at.RETIRED]), int(board.words[at.TAKEN])))
    write(folder, out)
    return status


def parse_range(text: str) -> tuple[int, int]:
    """Return the addresses of `LOW-HIGH`, hexadecimal; InputError when it is no range."""
    low, _, high = text.partition("-")
    try:
        span = int(low, 16), int(high, 16)
    except ValueError:
        span = 0, 0
    if not 0 <= span[0] < span[1] <= 1 << 64:
        raise InputError(f"{text!r} is no range of addresses: give two in hexadecimal, such as 400000-500000")
    return span


def parse_size(text: str) -> int:
    """Return a size in bytes; InputError when it is none, or no machine can have it."""
    unit = _SIZES.get(text[-1:].upper())
    digits = text[:-1] if unit is not None else text
    if not digits.isdecimal():
        raise InputError(f"{text!r} is no size: give bytes, or a number with K, M or G, such as 256M")
    size = int(digits) << (unit or 0)
    if not _LEAST <= size <= _MOST or size % 4096:
        raise InputError(f"{text} of memory cannot be had: between 64M and 3G, in whole pages")
    return size


def parse_model(text: str) -> Model:
    """Return the processor model of QEMU's notation `NAME[,-FEATURE...]`; InputError for an unknown part."""
    from archlbr.machine.models import MODELS, without

    name, *changes = text.split(",")
    if name not in MODELS:
        raise InputError(f"unknown processor model {name!r}: choose one of {', '.join(MODELS)}")
    model = MODELS[name]
    for change in changes:
        if change not in ("-arch-lbr", "-pmu", "-xsave"):
            raise InputError(f"unknown processor feature {change!r}: -arch-lbr, -pmu and -xsave can be taken away")
        model = without(model, change[1:])
    return model


def parse_design(name: str) -> Hypervisor:
    """Return a design by its name; InputError for a name that is none."""
    from archlbr.vpmu.designs.hypervisors import HYPERVISORS

    if name not in HYPERVISORS:
        raise InputError(f"unknown design {name!r}: use one of {', '.join(HYPERVISORS)}")
    return HYPERVISORS[name]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; name a file that can be read") from error
