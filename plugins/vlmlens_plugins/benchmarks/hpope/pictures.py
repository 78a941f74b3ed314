"""Pictures whose objects and attributes are known: CLEVR's scenes, or a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmlens.errors import DataError
from vlmlens_plugins.benchmarks.sources import Source
from vlmlens_plugins.data._embedded import Stored
from vlmlens_plugins.data._table_files import Row

IMAGES = ("image", "image_filename", "file_name", "image_path", "image_name")
_NAMES = ("name", "object", "category")
_CLEVR = ("size", "color", "material", "shape")
_ANY = ""


@dataclass(frozen=True, slots=True)
class Thing:
    """An object: its name, and (type, value) of its attributes; the type is "" if not given."""

    name: str
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture.

    Args:
        image: The cell with the image or its name.
        name: Unique; a picture without a name of its own has its row's number.
        things: What is in it.
        place: For messages.
    """

    image: Any
    name: str
    things: tuple[Thing, ...]
    place: str

    @property
    def kinds(self) -> frozenset[str]:
        """The names of the objects."""
        return frozenset(thing.name for thing in self.things)

    @property
    def single(self) -> dict[str, Thing]:
        """The objects whose name no other object of the picture has."""
        count = Counter(thing.name for thing in self.things)
        return {thing.name: thing for thing in self.things if count[thing.name] == 1}


def pictures_in(source: Source, object_by: Sequence[str]) -> Iterator[Picture]:
    """The pictures of a scene file, or of a table with `objects` and maybe `attributes`.

    Args:
        source: Its rows.
        object_by: Which of an object's attributes make its name, where it has no name.

    Raises:
        DataError: Objects or attributes are written in another way; names the row.
    """
    column = next((name for name in IMAGES if name in source.columns), None)
    if column is None:
        raise DataError(
            f"{source.name} has no column with images; it has {', '.join(source.columns)}.",
            subject=source.name,
            hint=f"Name it {' or '.join(IMAGES[:3])}.",
        )
    for row in source.rows:
        where = f"{source.name}, {row.place}"
        image = row.cells.get(column)
        things = _things(row, where, tuple(object_by))
        yield Picture(image, _name(row, image), tuple(things), where)


def _name(row: Row, image: Any) -> str:
    """The row's id, else the name of its image; the row's number where the image has none."""
    known = row.cells.get("id")
    if known in (None, "") and isinstance(image, str) and not isinstance(image, Stored):
        known = image
    return str(known) if known not in (None, "") else str(row.number)


def _things(row: Row, where: str, object_by: tuple[str, ...]) -> Iterator[Thing]:
    cell = row.cells.get("objects")
    listed = [] if cell == "" else _parsed(cell, where, "objects")
    if not isinstance(listed, list):
        raise _wrong(where, "objects", "a list", listed)
    known = _parsed(row.cells.get("attributes"), where, "attributes")
    if not isinstance(known, dict | None):
        raise _wrong(where, "attributes", "an object {name: attributes}", known)
    more = {
        str(name).strip().lower(): _attributes(own, where) for name, own in (known or {}).items()
    }
    names = [_named(each, where, object_by) for each in listed]
    if strange := sorted({*more} - {name for name, _ in names}):
        raise _wrong(where, "attributes", "attributes of the objects that are listed", strange[0])
    for name, own in names:
        yield Thing(name, tuple(dict.fromkeys([*own, *more.get(name, ())])))


def _named(each: Any, where: str, object_by: tuple[str, ...]) -> tuple[str, list[tuple[str, str]]]:
    """The name of an object in lower case, and the attributes that stand with it."""
    if isinstance(each, str) and each.strip():
        return each.strip().lower(), []
    if not isinstance(each, dict):
        raise _wrong(where, "objects", "names, or objects with a name", each)
    key = next((key for key in _NAMES if isinstance(each.get(key), str)), None)
    if key is not None and each[key].strip():
        rest = {name: value for name, value in each.items() if name not in (key, "attributes")}
        return each[key].strip().lower(), [*_attributes(each.get("attributes"), where), *_of(rest)]
    parts = [str(each.get(name) or "").strip().lower() for name in object_by]
    if not parts or not all(parts):
        keys = ", ".join(map(str, each))
        raise _wrong(where, "objects", f"a name or {' and '.join(object_by)}", keys)
    rest = {name: each[name] for name in _CLEVR if name in each and name not in object_by}
    return " ".join(parts), _of(rest)


def _of(cells: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, value.strip().lower())
        for name, value in cells.items()
        if isinstance(value, str) and value.strip()
    ]


def _attributes(given: Any, where: str) -> list[tuple[str, str]]:
    """(type, value) of a list of values, of a mapping of types, or of one value."""
    if given is None:
        return []
    if isinstance(given, str):
        given = [given]
    if isinstance(given, dict):
        lists = {
            name: value if isinstance(value, list) else [value] for name, value in given.items()
        }
        values = [(name, value) for name, own in lists.items() for value in own]
        if all(isinstance(value, str) for _, value in values):
            return [each for name, value in values for each in _of({name: value})]
    if isinstance(given, list) and all(isinstance(value, str) for value in given):
        return [(_ANY, value.strip().lower()) for value in given if value.strip()]
    raise _wrong(where, "attributes", "texts, or texts by type", given)


def _parsed(cell: Any, where: str, column: str) -> Any:
    """A cell; text is JSON, or names parted by "|"."""
    if not isinstance(cell, str):
        return cell
    if cell.strip()[:1] in ("[", "{"):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError) as error:
            raise _wrong(where, column, "JSON", cell) from error
    names = [name for name in cell.split("|") if name.strip()]
    return names or None


def _wrong(where: str, column: str, expected: str, found: Any) -> DataError:
    return DataError(
        f"{where}: {column} is {str(found)[:60]!r}, expected {expected}.",
        subject=where,
        hint='Write objects as ["dog", ...] and attributes as {"dog": {"color": "brown"}}.',
    )
