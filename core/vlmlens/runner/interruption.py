"""What Ctrl-C and a notebook's stop button do to a call: it ends once, and says how to go on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from vlmlens._disk import disk_errors
from vlmlens.runner.run_folder import next_folder
from vlmlens.runs.run import is_run

if TYPE_CHECKING:
    from vlmlens.compose.plan import Plan

_PATIENCE = 10.0
"""Seconds after an interrupt in which further ones change nothing: what was computed is stored."""


def with_folder(plan: Plan) -> Plan:
    """The plan with a folder for its run, a new default one where none was named."""
    if plan.spec.out is not None:
        return plan
    with disk_errors():
        out = str(next_folder(plan.spec.adapter))
    return replace(plan, spec=plan.spec.model_copy(update={"out": out}))


@contextmanager
def resumable(folder: str | Path | None, how: str) -> Iterator[None]:
    """Where work on a run is interrupted, say what is kept and how to go on.

    Args:
        folder: The run's folder; None: there is none.
        how: How to go on, as a sentence.

    Raises:
        KeyboardInterrupt: In place of the one that came; the message says it. A notebook shows
            the message alone, without the lines of code at which the call was.
    """
    with _one_interrupt():
        try:
            yield
        except KeyboardInterrupt as error:
            if type(error) is not KeyboardInterrupt or folder is None or not is_run(folder):
                raise
            said = f"Interrupted. What was finished is kept in {str(folder)!r}. {how}"
        else:
            return
    raise _shown_alone(said) from None


def _shown_alone(message: str) -> KeyboardInterrupt:
    """An interrupt whose traceback IPython does not show: its message is all there is to say."""
    told = KeyboardInterrupt(message)
    vars(told)["_render_traceback_"] = lambda: [f"KeyboardInterrupt: {message}"]
    return told


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """Let the first SIGINT end the block, and ignore others while the block puts things in order.

    A handler of somebody else's stays, and so do those of other threads than the main one.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    first: list[float] = []

    def end(number: int, frame: FrameType | None) -> None:
        if first and time.monotonic() - first[0] < _PATIENCE:
            return
        first.append(time.monotonic())
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
