"""All pictures of a task in one, for families that take one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from PIL import Image

from vlmlens_plugins.demo.tasks.task import SIZE, Box, Pictures, Point, Task

_GROUND: Final = (128, 128, 128)
_CORNERS: Final[Mapping[int, tuple[tuple[int, int], ...]]] = {
    1: ((0, 0),),
    2: ((0, SIZE // 2), (SIZE, SIZE // 2)),
    3: ((SIZE // 2, 0), (0, SIZE), (SIZE, SIZE)),
}
"""Left and top of each picture in a square of twice their side, by how many there are."""


def on_one_canvas(task: Task) -> Task:
    """The task with all its pictures in one square; points and areas are moved with them.

    Of two pictures, the first is on the left. Of three, the first is above the other two.
    """
    count = 1 + max(number for number, _ in task.areas.values())
    corners = _CORNERS[count]
    if count == 1:
        return task
    return replace(
        task,
        points={color: _moved_point(point, corners) for color, point in task.points.items()},
        areas={
            color: (0, _moved_box(box, corners[number]))
            for color, (number, box) in task.areas.items()
        },
        pictures=lambda: (_joined(task.pictures(), corners),),
        side=2 * SIZE,
    )


def _moved_point(point: Point, corners: tuple[tuple[int, int], ...]) -> Point:
    left, top = corners[point.image]
    return Point(0, point.x + left, point.y + top)


def _moved_box(box: Box, corner: tuple[int, int]) -> Box:
    left, top = corner
    return box[0] + left, box[1] + top, box[2] + left, box[3] + top


def _joined(pictures: Pictures, corners: tuple[tuple[int, int], ...]) -> Image.Image:
    canvas = Image.new("RGB", (2 * SIZE, 2 * SIZE), _GROUND)
    for picture, corner in zip(pictures, corners, strict=True):
        canvas.paste(picture, corner)
    return canvas
