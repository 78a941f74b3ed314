"""How a pass runs: without gradients, unless they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_WANTED: ContextVar[bool] = ContextVar("gradients are wanted", default=False)


@contextmanager
def inference() -> Iterator[None]:
    """Run inside without gradients, as `forward` of an adapter must, unless they are asked for.

    Use it in place of `torch.inference_mode()`, which would keep gradients from being taken.
    """
    if _WANTED.get():
        yield
    else:
        with torch.inference_mode():
            yield


@contextmanager
def differentiable() -> Iterator[None]:
    """Passes inside can be differentiated: `inference` has no effect."""
    before = _WANTED.set(True)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        _WANTED.reset(before)
