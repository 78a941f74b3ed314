"""The command line: one module per command, without logic of its own; see `vlmlens --help`.

May use every room. A new command gets a module here and a line in `_app.COMMANDS`.
"""

from __future__ import annotations

import os
from contextlib import redirect_stderr


def main() -> None:
    """Entry point of the console script `vlmlens`."""
    from vlmlens.cli._app import app

    # Torch's threads sleep while they wait for each other. By default they keep their core busy, so
    # that on a busy machine each small operation waits for a core: a look took twice as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if not os.environ.get("_VLMLENS_COMPLETE", "").startswith("complete_"):
        from vlmlens.cli._signals import end_like_interrupt

        end_like_interrupt()
        app(prog_name="vlmlens")
        return
    # While a shell completes a word, messages of plugins would disturb.
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):  # noqa: PTH123
        app(prog_name="vlmlens")
