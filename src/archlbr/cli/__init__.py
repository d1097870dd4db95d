"""The command line: one file a verb; `main` is the entry point."""

from archlbr.cli.app import command, main

__all__ = ["command", "main"]
