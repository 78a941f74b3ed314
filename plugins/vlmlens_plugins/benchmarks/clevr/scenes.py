"""What a scene of CLEVR holds: as compact JSON, and in words that suffice for every question."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vlmlens.errors import ManifestError
from vlmlens_plugins.benchmarks.clevr.files import items_in

_ORDER = ("size", "color", "material", "shape")
_SIDES = {"left": "to the left of", "front": "in front of"}


class Scene(NamedTuple):
    """A scene as text.

    Args:
        scene: Compact JSON: a list of the objects with their attributes, `left` and `front`: which
            objects, by number from 1, are to the left of each and in front of it.
        description: The same in sentences.
        objects: JSON: the shapes that are there.
    """

    scene: str
    description: str
    objects: str


def scenes_in(path: Path) -> dict[str, Scene]:
    """The scenes of a file, by the pictures' file names.

    Raises:
        ManifestError: The file is broken; names the scene.
    """
    found = {}
    for number, item in enumerate(items_in(path, "scenes"), start=1):
        where = f"{path}, item {number}"
        try:
            found[str(item["image_filename"])] = scene_of(item)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise ManifestError(
                f"{where}: no scene of CLEVR ({type(error).__name__}: {error}).",
                subject=where,
                hint="A scene has image_filename, objects and relationships.",
            ) from error
    return found


def scene_of(item: Mapping[str, Any]) -> Scene:
    """A scene as text.

    Args:
        item: Its entry. `relationships[side][i]` lists the objects on that side of object i: `right`
            and `behind` are the converses of `left` and `front`, so they are not written. Without
            relationships, the text says nothing of places.

    Raises:
        KeyError, TypeError, AttributeError, IndexError, ValueError: It is no scene.

    >>> cube = {"size": "large", "color": "red", "material": "metal", "shape": "cube"}
    >>> print(scene_of({"objects": [cube, {**cube, "color": "blue"}],
    ...     "relationships": {"left": [[], [0]], "front": [[1], []]}}).description)
    There are 2 objects. Object 1 is a large red metal cube. Object 2 is a large blue metal cube. To the left of object 1 is nothing; to the left of object 2 is object 1. In front of object 1 is object 2; in front of object 2 is nothing.
    """  # noqa: E501 - the text is one line
    objects = [{name: str(each[name]) for name in _ORDER} for each in item["objects"]]
    sides = _sides(item.get("relationships"), len(objects))
    listed = [
        {**each, **{side: sides[side][i] for side in sides}} for i, each in enumerate(objects)
    ]
    return Scene(
        json.dumps(listed, separators=(",", ":")),
        " ".join(_sentences(objects, sides)),
        json.dumps(sorted({each["shape"] for each in objects})),
    )


def _sides(relationships: Any, count: int) -> dict[str, list[list[int]]]:
    """By side, for each object, the numbers from 1 of those on that side."""
    if not relationships:
        return {}
    found = {}
    for side in _SIDES:
        lists = [sorted(int(other) + 1 for other in others) for others in relationships[side]]
        if len(lists) != count or any(not 1 <= n <= count for each in lists for n in each):
            raise ValueError(f"the relationship {side!r} does not fit {count} objects")
        found[side] = lists
    return found


def _sentences(
    objects: Sequence[Mapping[str, str]], sides: Mapping[str, Sequence[Sequence[int]]]
) -> Iterator[str]:
    count = len(objects)
    yield f"There {'is 1 object' if count == 1 else f'are {count} objects'}."
    for number, each in enumerate(objects, start=1):
        yield f"Object {number} is a {' '.join(each[name] for name in _ORDER)}."
    for side, words in _SIDES.items():
        if side in sides and count > 1:
            clauses = [
                f"{words} object {number} {_named(others)}"
                for number, others in enumerate(sides[side], start=1)
            ]
            text = "; ".join(clauses)
            yield f"{text[0].upper()}{text[1:]}."


def _named(numbers: Sequence[int]) -> str:
    if not numbers:
        return "is nothing"
    if len(numbers) == 1:
        return f"is object {numbers[0]}"
    listed = ", ".join(map(str, numbers[:-1]))
    return f"are objects {listed} and {numbers[-1]}"
