"""Choice: which plugins environment variables turn off, without importing any."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from vlmlens.registry._entry import normal
from vlmlens.registry._installed import index_name

if TYPE_CHECKING:
    from vlmlens.registry._installed import Point

DISABLE = "VLMLENS_DISABLE_PLUGINS"
LOAD = "VLMLENS_LOAD_PLUGINS"
EVERY = "all"


class Choice:
    """Which plugins are turned off.

    An item is the name of a plugin, the name of a distribution, or DISTRIBUTION:NAME.

    Args:
        disabled: Plugins to turn off; `all`: every plugin that is not part of vlmlens itself.
        loaded: Turn off all others that are not part of vlmlens itself; None: turn off none.
    """

    def __init__(
        self, disabled: tuple[str, ...] = (), loaded: tuple[str, ...] | None = None
    ) -> None:
        self.disabled = disabled
        self.loaded = loaded

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Choice:
        """Read `VLMLENS_DISABLE_PLUGINS` and `VLMLENS_LOAD_PLUGINS` (items between commas)."""
        given = os.environ if environment is None else environment
        loaded = given.get(LOAD)
        return cls(_items(given.get(DISABLE, "")), None if loaded is None else _items(loaded))

    def reason(self, point: Point) -> str:
        """The setting that turns a plugin off, or ""."""
        own = index_name(point.distribution) == "vlmlens"
        for item in self.disabled:
            if (item == EVERY and not own) or _names(item, point):
                return f"{DISABLE}={','.join(self.disabled)}"
        if self.loaded is None or own or any(_names(item, point) for item in self.loaded):
            return ""
        return f"{LOAD}={','.join(self.loaded)}"

    def unknown(self, points: Iterable[Point]) -> list[tuple[str, str]]:
        """(variable, item) for each item that names no installed plugin."""
        installed = list(points)
        given = [(DISABLE, item) for item in self.disabled if item != EVERY]
        given += [(LOAD, item) for item in self.loaded or ()]
        return [(name, item) for name, item in given if not any(_names(item, p) for p in installed)]


def _items(given: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in given.split(",") if item.strip())


def _names(item: str, point: Point) -> bool:
    distribution, colon, name = item.partition(":")
    owned = index_name(distribution) == index_name(point.distribution)
    if colon:
        return owned and normal(name) == normal(point.name)
    return owned or normal(item) == normal(point.name)
