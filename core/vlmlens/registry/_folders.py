"""Plugins in a folder with a pyproject.toml, which is not installed."""

from __future__ import annotations

import shlex
import sys
import tomllib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from vlmlens.errors import UnknownPlugin
from vlmlens.registry._entry import normal
from vlmlens.registry._installed import PREFIX, Point, index_name

_FILE = "pyproject.toml"
_LOOKED_AT = 200
"""Folders that are searched for a name at most."""


def is_project(name: str) -> bool:
    """Whether a plugin's name is a folder with a pyproject.toml: `./vlmlens-adapter-mymodel`."""
    return ("/" in name or name in (".", "..")) and (Path(name).expanduser() / _FILE).is_file()


def points_of(folder: Path) -> list[Point]:
    """The entry points that the pyproject.toml of a folder declares for vlmlens.

    Raises:
        UnknownPlugin: There are none, or the file cannot be read.
    """
    try:
        project = tomllib.loads((folder / _FILE).read_text(encoding="utf-8")).get("project", {})
        owner = (str(project.get("name", folder.name)), str(project.get("version", "")))
        found = [
            Point(group, name, value, owner)
            for group, points in project.get("entry-points", {}).items()
            if group.startswith(PREFIX)
            for name, value in points.items()
        ]
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UnknownPlugin(
            f"{folder / _FILE} cannot be read: {error}.", subject=str(folder)
        ) from error
    if not found:
        raise UnknownPlugin(
            f"{folder / _FILE} declares no plugin of vlmlens.",
            subject=str(folder),
            hint='Expected: [project.entry-points."vlmlens.adapters"], or of another kind.',
        )
    return found


def importable(folder: Path, points: list[Point], others: tuple[Point, ...]) -> list[Point]:
    """Make a folder's modules importable, and put its entry points before the installed ones."""
    for place in (folder / "src", folder):
        if place.is_dir() and str(place.resolve()) not in sys.path:
            sys.path.insert(0, str(place.resolve()))
    own = {index_name(point.distribution) for point in points}
    return [*points, *(each for each in others if index_name(each.distribution) not in own)]


def hint_of_folder(name: str) -> str:
    """What to do about an unknown plugin that a folder here has; "" if none does."""
    for folder in _projects():
        try:
            names = {normal(point.name) for point in points_of(folder)}
        except UnknownPlugin:
            continue
        if normal(name) in names:
            here = shlex.quote(f"./{folder}")
            return (
                f"The folder {here} has it: pip install -e {here}. Without installing: "
                f"vlmlens plugins check {here}."
            )
    return ""


def _projects() -> Iterator[Path]:
    try:
        folders: Any = sorted(Path().iterdir())
    except OSError:
        return
    yield from (each for each in islice(folders, _LOOKED_AT) if (each / _FILE).is_file())
