"""`archlbr contract`: write the contract between KVM and perf over the LBRs as a document, from the model."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from archlbr.errors import InputError


class DocumentFormat(StrEnum):
    """The document, for the kernel's tree or for a browser."""

    RST = "rst"
    HTML = "html"


def contract(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file to write; stdout if none.")] = None,
    form: Annotated[DocumentFormat, typer.Option("--format", help="How to write it.")] = DocumentFormat.RST,
    small: Annotated[bool, typer.Option("--small", help="Leave out the largest scenarios.")] = False,
) -> int:
    """Explore every design and write the contract: owners, contexts, answers, promises, gaps, each with its check."""
    from archlbr.contract.designs import DESIGNS
    from archlbr.contract.document import as_rst
    from archlbr.contract.page import as_html
    from archlbr.contract.table import explored

    table = explored(list(DESIGNS.values()), small=small)
    text = as_rst(table) if form is DocumentFormat.RST else as_html(table)
    if output is None:
        sys.stdout.write(text)
        return 0
    if not output.parent.is_dir():
        raise InputError(f"{output.parent}: no such directory; make it, or give -o a file elsewhere")
    beside = output.with_name(f".{output.name}.new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, output)
    return 0
