"""Signals that end a command: each one ends like Ctrl-C, so that the state of a run is recorded."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType

from vlmlens.runs.shards import WORKER

_PATIENCE = 10.0
"""Seconds after the first signal in which others change nothing; later ones end at once."""

_LAST = 60.0
"""Seconds after which a worker without a parent ends, whatever it does."""


class Ended(KeyboardInterrupt):
    """The signal that ends the command.

    Args:
        number: The signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def end_like_interrupt() -> None:
    """Let SIGTERM and SIGHUP end the command like SIGINT. What the caller ignores stays ignored."""
    first: list[float] = []

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        if first and time.monotonic() - first[0] < _PATIENCE:
            return
        if first:
            os._exit(128 + number)
        first.append(time.monotonic())
        raise Ended(number)

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(each, end)


def end_with_parent() -> None:
    """In a worker: end when the parent has closed our standard input, however it ended."""
    if os.environ.pop(WORKER, None) is None:
        return
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while os.read(sys.__stdin__.fileno() if sys.__stdin__ else 0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_LAST)
    os._exit(128 + signal.SIGTERM)
