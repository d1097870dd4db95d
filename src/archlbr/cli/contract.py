"""`archlbr contract`: write the contract between KVM and perf over the LBRs as a document, from the model."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from enum import StrEnum
from typing import Annotated

import typer


class DocumentFormat(StrEnum):
    """The document, for the kernel's tree or for a browser."""

    RST = "rst"
    HTML = "html"


def contract(
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="The file to write; stdout if none.")
    ] = None,
    form: Annotated[DocumentFormat, typer.Option("--format", help="How to write it.")] = DocumentFormat.RST,
    small: Annotated[bool, typer.Option("--small", help="Leave out the largest scenarios.")] = False,
) -> int:
    """Explore every design and write the contract: owners, contexts, answers, promises, gaps, each with its check."""
    from archlbr.contract.designs import DESIGNS
    from archlbr.contract.document import as_rst
    from archlbr.contract.page import as_html
    from archlbr.contract.table import explored
    from archlbr.profile.output import Output

    # Made first: what cannot be written is said before the designs are explored.
    with Output(output) if output is not None else nullcontext() as out:
        table = explored(list(DESIGNS.values()), small=small)
        text = as_rst(table) if form is DocumentFormat.RST else as_html(table)
        if out is None:
            sys.stdout.write(text)
        else:
            out.write(text.encode())
    return 0
