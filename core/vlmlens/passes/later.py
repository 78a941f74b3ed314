"""Encoding for later: in another thread, while the device computes earlier batches.

Inputs then stay on the host, in memory from which the device copies them without waiting, until
`ModelAdapter.place` puts them there. So batches that wait take no memory of the device, and
encoding does not wait for the passes that are under way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_WAITS: ContextVar[bool] = ContextVar("inputs wait on the host", default=False)


@contextmanager
def for_later() -> Iterator[None]:
    """Have `encode` and `encode_shared` leave inputs on the host, in this thread."""
    before = _WAITS.set(True)
    try:
        yield
    finally:
        _WAITS.reset(before)


def waits() -> bool:
    """Whether inputs are to stay on the host."""
    return _WAITS.get()
