"""The command line: one module per command, no logic; see `vlmlens --help`."""

from __future__ import annotations

import os
from contextlib import redirect_stderr


def main() -> None:
    """Entry point of the console script `vlmlens`."""
    from vlmlens.cli._app import app

    if not os.environ.get("_VLMLENS_COMPLETE", "").startswith("complete_"):
        app(prog_name="vlmlens")
        return
    # Whatever a plugin has to say: a shell that completes a word is no place for it.
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):  # noqa: PTH123
        app(prog_name="vlmlens")
