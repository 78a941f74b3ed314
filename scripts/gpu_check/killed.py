"""A process that extracts and kills itself in the middle; run by the check `killing`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import vlmlens
from vlmlens.abc.observer import SilentObserver

_WRITTEN = 2.1
"""Rows are written after two seconds at the latest, when the next ones come."""


class _Deadly(SilentObserver):
    """Ends the process, as `kill -9` does, two batches after enough samples are computed.

    It waits before these batches, so that rows are on the disk by then.

    Args:
        after: How many samples.
    """

    def __init__(self, after: int) -> None:
        self._after = after
        self._late = 0

    def advance(self, done: int) -> None:
        """See `Observer.advance`."""
        if done < self._after:
            return
        self._late += 1
        time.sleep(_WRITTEN if self._late == 1 else 0.3)
        if self._late == 3:
            os.kill(os.getpid(), signal.SIGKILL)


def run(order: dict[str, Any]) -> None:
    """Extract, and die.

    Args:
        order: "given", keywords of `vlmlens.extract`; "out", a folder; "after", how many samples.
    """
    vlmlens.extract(**order["given"], out=order["out"], observer=_Deadly(order["after"]))


if __name__ == "__main__":
    run(json.load(sys.stdin))
