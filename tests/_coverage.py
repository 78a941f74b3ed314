"""Coverage is measured where something new runs.

Tracing slows a test by a third, and most of its lines have run before. So tracing goes on while new
lines are found; while none are, it is on half of the time. Outside tests and fixtures it is off:
pytest's own steps are most of a short test. What is reported is a lower bound.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from coverage import Coverage
from hypothesis import is_hypothesis_test

TICK = 0.01
"""Seconds of processor time after which it is decided whether to trace on."""
TICKS_OFF = 1
"""For how many of them nothing is traced after one that found nothing."""


class Tracing:
    """The measurement of this process: none without `--cov`."""

    def __init__(self) -> None:
        self._coverage: Coverage | None = None
        self._data: dict[str, set[int]] = {}
        self._found = 0
        self._ticks_off = 0
        self._measuring = False
        self._deciding = False

    def pause(self) -> None:
        """Trace nothing until something is measured.

        In a worker of the tests two are on: the one that pytest-cov reports was started last.
        """
        while running := Coverage.current():
            self._coverage = self._coverage or running
            running.stop()

    @contextmanager
    def measured(self, item: pytest.Item) -> Iterator[None]:
        """Trace what is new in a test or a fixture of it, if the test is measured."""
        if self._coverage is None or self._measuring or not _is_measured(item):
            yield
            return
        self._measuring = True
        self._start()
        before = signal.signal(signal.SIGPROF, self._decide)
        signal.setitimer(signal.ITIMER_PROF, TICK, TICK)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)
            self._stop()
            self._measuring = False

    def _decide(self, *_: object) -> None:
        if self._deciding:  # the tick before takes long
            return
        self._deciding = True
        try:
            self._trace_on_or_not()
        finally:
            self._deciding = False

    def _trace_on_or_not(self) -> None:
        if self._ticks_off:
            self._ticks_off -= 1
            if not self._ticks_off:
                self._start()
        elif self._all_found() == self._found:
            self._stop()
            self._ticks_off = TICKS_OFF
        else:
            self._found = self._all_found()

    def _start(self) -> None:
        """A new tracer each time: an old one knows of functions that have ended meanwhile."""
        assert self._coverage is not None
        self._ticks_off = 0
        self._coverage.start()
        tracer: Any = sys.gettrace()
        self._data = tracer.data
        self._found = self._all_found()

    def _stop(self) -> None:
        if self._coverage is not None:
            self._coverage.stop()

    def _all_found(self) -> int:
        return sum(map(len, list(self._data.values())))


def _is_measured(item: pytest.Item) -> bool:
    """Whether coverage is measured in a test, its fixtures included.

    It is in `unit` and `contract` only: there neither where a test is slow, nor where random
    examples run the same lines hundreds of times.
    """
    random = item.name.startswith("test_random_") or is_hypothesis_test(getattr(item, "obj", None))
    unmeasured = random or any(map(item.get_closest_marker, ("slow", "no_cover")))
    return bool({"unit", "contract"} & set(item.path.parts)) and not unmeasured
