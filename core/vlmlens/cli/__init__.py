"""The command line: one module per command, no logic; see `vlmlens --help`."""

from __future__ import annotations


def main() -> None:
    """Entry point of the console script `vlmlens`."""
    from vlmlens.cli._app import app

    app(prog_name="vlmlens")
