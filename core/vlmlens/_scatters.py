"""Points in spaces as data, for figures of kind "scatter". `vlmlens.results` hands them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from vlmlens._display import brief, count


@dataclass(frozen=True, slots=True)
class ScatterPoint:
    """A point of a figure, the same one in all of its spaces.

    Args:
        sample: The id of the sample that it stands for, whose picture is shown beside it.
        kind: The number of its kind in the figure's `x`, for its colour and shape.
        tip: What is shown of it when it is pointed at.
    """

    sample: str
    kind: int
    tip: str = ""

    def __repr__(self) -> str:
        return brief(self, self.sample, f"kind {self.kind}")


@dataclass(frozen=True, slots=True)
class ScatterSpace:
    """Where the points of a figure lie in one space, say in one layer.

    Args:
        name: Of the space.
        axes: Names of its axes: two, or three.
        places: `[points][axes]`, in the order of the figure's `points`.
    """

    name: str
    axes: Sequence[str]
    places: Sequence[Sequence[float]]

    def __repr__(self) -> str:
        return brief(
            self, self.name, count(len(self.axes), "axe"), count(len(self.places), "point")
        )


def check_scatter(
    name: str, kinds: int, points: Sequence[ScatterPoint], spaces: Sequence[ScatterSpace]
) -> None:
    """Raise `ValueError` for a point of no kind, or one without a place in a space.

    Args:
        name: The figure's name.
        kinds: How many kinds there are.
        points: The points.
        spaces: The spaces.
    """
    for point in points:
        if not 0 <= point.kind < kinds:
            raise ValueError(f"figure {name!r}: {point!r} is of none of its {kinds} kinds")
    for space in spaces:
        if len(space.axes) not in (2, 3):
            raise ValueError(f"figure {name!r}: {space!r} has neither two axes nor three")
        if [len(place) for place in space.places] != [len(space.axes)] * len(points):
            raise ValueError(f"figure {name!r}: {space!r} does not place its {len(points)} points")
        if not all(isfinite(number) for place in space.places for number in place):
            raise ValueError(f"figure {name!r}: {space!r} has a place that is not finite")


def scatter_from(data: Mapping[str, Any]) -> dict[str, Any]:
    """The points and spaces in the JSON form of a figure."""
    return {
        "points": tuple(ScatterPoint(**item) for item in data.get("points", ())),
        "spaces": tuple(
            ScatterSpace(item["name"], tuple(item["axes"]), tuple(map(tuple, item["places"])))
            for item in data.get("spaces", ())
        ),
    }
