"""`archlbr restore`: a machine goes on from a snapshot, or out of another process that `archlbr migrate` asked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from archlbr.cli.drive import TIMED_OUT
from archlbr.cli.machine_options import Control, Snapshot, Timeout, Until
from archlbr.cli.messages import complain

if TYPE_CHECKING:
    from archlbr.machine.arrival import Arrival
    from archlbr.machine.board import Board
    from archlbr.machine.models import Model
    from archlbr.machine.snapshot import Head


def restore(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The snapshot; with --incoming, where to keep it.")],
    incoming: Annotated[
        str | None, typer.Option("--incoming", metavar="HOST:PORT", help="Wait here for `archlbr migrate`.")
    ] = None,
    cpu: Annotated[
        str | None,
        typer.Option("--cpu", metavar="MODEL", help="What this target offers, as in `run`; else all the machine has."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Write here what the guest sends to ttyS1.")
    ] = None,
    until: Until = 0,
    snapshot: Snapshot = None,
    control: Control = None,
    timeout: Timeout = 0.0,
    stats: Annotated[bool, typer.Option("--stats", help="End with a line of numbers on stderr.")] = False,
) -> int:
    """Let a machine go on: its console, records and output are those it would have had.

    archlbr restore machine.snapshot

    With --incoming it waits for a machine until one comes, or for as long as --timeout says, which then bounds the
    wait, the move and the run together.
    """
    from archlbr.cli.run import parse_model
    from archlbr.cli.session import Session
    from archlbr.machine import handover
    from archlbr.machine import snapshot as machine

    offered = parse_model(cpu) if cpu is not None else None
    with Session(output, timeout, until, snapshot, control) as session:

        def build(head: Head) -> Board:
            return machine.fresh(head, session.console.append, session.sent.append)

        arrival = None
        if incoming is not None:
            arrival = _await(incoming, file, offered, timeout)
            received = arrival.receive(build)
            board = received.board
        else:
            received = handover.restore_file(file, build)
            board = machine.restore(received, offered)
        session.sent[:0] = received.parts.sent
        if arrival is not None:
            arrival.runs()
        status = session.drive(board, arrival)
    if stats:
        session.print_stats(board)
    return status


def _await(address: str, keep: str, offered: Model | None, timeout: float) -> Arrival:
    from archlbr.machine.arrival import Arrival, listen, warm_up
    from archlbr.machine.migrate import parse_address

    with listen(*parse_address(address)) as listener:
        warm_up(offered)
        host, port = listener.getsockname()[:2]
        print(f"archlbr: waiting for a machine at {host}:{port}", file=sys.stderr, flush=True)
        listener.settimeout(timeout or None)
        try:
            channel, _ = listener.accept()
        except TimeoutError:
            complain(f"no machine came to {host}:{port} within {timeout:g} s")
            raise typer.Exit(TIMED_OUT) from None
        except KeyboardInterrupt:
            complain(f"interrupted while waiting at {host}:{port}: no machine came")
            raise
    channel.settimeout(timeout or None)
    return Arrival(channel, keep, offered)
