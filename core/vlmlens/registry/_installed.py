"""The installed entry points, read directly from the metadata folders.

`importlib.metadata` finds the same ones, but importing it takes longer than a light command should.
It is used only for metadata that is not in folders: zip files, eggs, custom finders.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

PREFIX = "vlmlens."
"""The prefix of all entry-point groups."""

_FOLDERS = (".dist-info", ".egg-info")
_LEFT_OVER = "~"
"""The prefix of folders that pip could not remove."""

_METADATA = ("METADATA", "PKG-INFO")


class Point:
    """An entry point, and the distribution that declares it.

    Args:
        group: `vlmlens.adapters`, ...
        name: The entry point's name.
        value: `package.module:attribute`, or a module.
        owner: Name and version of the distribution, or the folder of its metadata, from which they
            are read when needed.
    """

    def __init__(self, group: str, name: str, value: str, owner: tuple[str, str] | str) -> None:
        self.group = group
        self.name = name
        self.value = value
        self._owner = owner

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def distribution(self) -> str:
        """The distribution's name, as its author writes it; "" if unknown."""
        return self._known_owner[0]

    @property
    def version(self) -> str:
        """The distribution's version."""
        return self._known_owner[1]

    @property
    def _known_owner(self) -> tuple[str, str]:
        if isinstance(self._owner, str):
            self._owner = _owner(self._owner)
        return self._owner

    @property
    def _key(self) -> tuple[object, ...]:
        return (self.group, self.name, self.value, self._known_owner)

    @classmethod
    def of(cls, point: EntryPoint) -> Point:
        """Convert an entry point of the standard library."""
        dist = point.dist
        owner = ("", "") if dist is None else (dist.name or "", dist.version or "")
        return cls(point.group, point.name, point.value, owner)

    @property
    def package(self) -> str:
        """The top-level package of its module."""
        return re.split(r"[.:\s\[]", self.value.strip(), maxsplit=1)[0]

    def load(self) -> Any:
        """Import the object that it names."""
        module, _, attributes = self.value.partition("[")[0].strip().partition(":")
        found: Any = import_module(module.strip())
        for attribute in filter(None, attributes.strip().split(".")):
            found = getattr(found, attribute)
        return found


def installed_points(path: Iterable[str] | None = None) -> list[Point]:
    """The entry points of vlmlens's groups.

    If a distribution is found twice, the first one counts.

    Args:
        path: Where to look; default: `sys.path`, and whatever other import hooks find.
    """
    seen: set[str] = set()
    points: list[Point] = []
    for place in dict.fromkeys(sys.path if path is None else path):
        if place:  # "" is the working folder: what lies there is not installed
            points += _in_place(place, seen)
    return points if path is not None else [*points, *_of_other_finders(seen)]


def index_name(distribution: str) -> str:
    """A distribution's name in the form in which package indexes compare it.

    >>> index_name("Vlmlens_Adapter.X")
    'vlmlens-adapter-x'
    """
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _in_place(place: str, seen: set[str]) -> Iterator[Point]:
    """The entry points in one entry of `sys.path`."""
    try:
        names = os.listdir(place)  # noqa: PTH208 - as below
    except NotADirectoryError:
        names = []
    except OSError:
        return
    if not names or place.endswith(".egg"):
        yield from _in_archive(place, seen)
    for name in names:
        if name.endswith(_FOLDERS) and not name.startswith(_LEFT_OVER):
            key = index_name(name.rpartition(".")[0].partition("-")[0])
            if key not in seen:
                seen.add(key)
                yield from _in_folder(f"{place}/{name}")


def _in_folder(folder: str) -> Iterator[Point]:
    text = _text(f"{folder}/entry_points.txt")
    if f"[{PREFIX}" not in text.replace(" ", ""):
        return
    group = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("[") and stripped.endswith("]"):
            group = stripped[1:-1].strip()
        elif group.startswith(PREFIX) and not stripped.startswith(("#", ";")):
            name, equals, value = stripped.partition("=")
            if equals:
                yield Point(group, name.strip(), value.strip(), folder)


def _owner(folder: str) -> tuple[str, str]:
    """Name and version of the distribution with this metadata folder."""
    text = "".join(_text(f"{folder}/{name}") for name in _METADATA)
    head = text.partition("\n\n")[0]
    fields = dict(re.findall(r"^(Name|Version):[ \t]*(.*?)[ \t]*$", head, flags=re.MULTILINE))
    stem = os.path.basename(folder).rpartition(".")[0]  # noqa: PTH119 - pathlib costs more here
    name, _, version = stem.partition("-")
    return fields.get("Name", name), fields.get("Version", version)


def _text(path: str) -> str:
    """A file's text; "" if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - as above
            return file.read()
    except OSError:
        return ""


def _in_archive(place: str, seen: set[str]) -> Iterator[Point]:
    if not os.path.exists(place) or (os.path.isdir(place) and not place.endswith(".egg")):  # noqa: PTH110, PTH112
        return
    from importlib.metadata import distributions

    yield from _of_distributions(distributions(path=[place]), seen)


def _of_other_finders(seen: set[str]) -> Iterator[Point]:
    """Entry points of distributions that are found by import hooks other than Python's own."""
    for finder in sys.meta_path:
        module = getattr(finder, "__module__", type(finder).__module__)
        if hasattr(finder, "find_distributions") and "_frozen_importlib" not in str(module):
            found: Any = finder.find_distributions()
            yield from _of_distributions(found, seen)


def _of_distributions(found: Iterable[Distribution], seen: set[str]) -> Iterator[Point]:
    for distribution in found:
        key = index_name(distribution.name or "")  # None if its metadata is damaged
        if key not in seen:
            seen.update({key} - {""})
            points = (Point.of(point) for point in distribution.entry_points)
            yield from (point for point in points if point.group.startswith(PREFIX))
