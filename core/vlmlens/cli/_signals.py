"""Signals that end a command: each one ends like Ctrl-C, so that the state of a run is recorded."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

_PATIENCE = 10.0
"""Seconds after the first signal in which others change nothing; later ones end at once."""


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
