"""`python -m archlbr`: the same as the `archlbr` command."""

from archlbr.cli import command

if __name__ == "__main__":
    command()
