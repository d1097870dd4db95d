"""`python -m archlbr`: the same as the `archlbr` command."""

from archlbr.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
