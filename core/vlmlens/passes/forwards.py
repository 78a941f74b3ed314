"""Running something else in place of a module's forward method, for a while; its hooks stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch

Forward: TypeAlias = Callable[..., Any]
"""A module's forward method."""


@contextmanager
def replaced_forward(module: torch.nn.Module, wrap: Callable[[Forward], Forward]) -> Iterator[None]:
    """Run another forward method inside.

    Args:
        module: The module.
        wrap: Makes the other method from the present one, which is not the class's own where the
            module is compiled or placed on several devices.
    """
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = wrap(module.forward)
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if before is not None:
            module.__dict__["forward"] = before
