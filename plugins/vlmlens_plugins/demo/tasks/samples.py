"""Tasks as samples, with their pictures drawn into a folder."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from vlmlens._files import write_bytes
from vlmlens.samples import Attribute, Sample
from vlmlens_plugins.demo.tasks.making import TASKS_VERSION, make_task
from vlmlens_plugins.demo.tasks.task import REFERENCE, Task

_READOUTS: Final = {
    "depth": "probe",
    "correspondence": "cosine",
    "odd-one-out": "odd",
    "texture": "gram",
}
"""By kind, how the answer can be read directly from features (`analysis/_direct.py`)."""


def task_samples(kind: str, number: int, seed: int, *, canvas: bool, folder: Path) -> list[Sample]:
    """The first tasks of a kind.

    Args:
        kind: One of `KINDS`.
        number: How many.
        seed: Seed of the whole data set.
        canvas: Whether all pictures of a task stand in one.
        folder: Where pictures are, or are drawn if they are not there.
    """
    tasks = (_made(kind, index, seed, canvas) for index in range(number))
    return [_sample(task, tuple(_files(task, folder, canvas))) for task in tasks]


@lru_cache(maxsize=2048)
def _made(kind: str, index: int, seed: int, canvas: bool) -> Task:
    return make_task(kind, index, seed=seed, canvas=canvas)


def _files(task: Task, folder: Path, canvas: bool) -> Iterator[str]:
    """The PNG file of each picture; drawn where one is missing, complete or not at all."""
    form = "-canvas" if canvas else ""
    count = 1 + max(number for number, _ in task.areas.values())
    stem = f"{task.id}{form}-v{TASKS_VERSION}"
    paths = [folder / f"{stem}-{number + 1}.png" for number in range(count)]
    if not all(path.exists() for path in paths):
        for path, picture in zip(paths, task.pictures(), strict=True):
            target = io.BytesIO()
            picture.save(target, format="PNG")
            write_bytes(path, target.getvalue(), durable=False)
    return map(str, paths)


def _sample(task: Task, images: tuple[str, ...]) -> Sample:
    return Sample(
        id=task.id,
        prompt=task.prompt,
        images=images,
        label=task.label,
        choices=task.choices,
        group=task.id,
        task=task.kind,
        attributes={**task.facts, **_places(task)},
    )


def _places(task: Task) -> dict[str, Attribute]:
    """The marked places: as points, and as regions that selectors understand."""
    side = task.side
    points = {
        color: {
            "image": point.image,
            "x": (point.x + 0.5) / side,
            "y": (point.y + 0.5) / side,
        }
        for color, point in task.points.items()
    }
    regions: dict[str, Any] = {
        color: {"image": point.image, "box": point.pixel} for color, point in task.points.items()
    }
    areas = {
        f"{color} square" if color in regions else color: {"image": number, "box": box}
        for color, (number, box) in task.areas.items()
    }
    known: dict[str, Attribute] = {"regions": json.dumps(regions | areas)}
    known |= {"region": "+".join(areas), "readout": _READOUTS[task.kind]}
    known |= {"reference": REFERENCE} if REFERENCE in task.areas else {}
    return known | ({"points": json.dumps(points)} if points else {})
