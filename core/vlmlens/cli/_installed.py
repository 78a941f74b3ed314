"""The plugins of this environment, read once per process."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmlens.registry import Registry


@cache
def installed() -> Registry:
    """The plugins of this environment. What they print while they are imported goes to stderr."""
    from vlmlens.registry import Registry

    return Registry.default(clean_stdout=True)
