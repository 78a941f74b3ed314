"""Views of pictures that can be drawn over one copy of the picture, since they do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmlens.report._sheets import Box, clipped
from vlmlens.results import FeatureMap, FeaturePlaces

_SLACK = 1e-3


@dataclass(frozen=True, slots=True)
class Panel:
    """One copy of a picture.

    Args:
        image: Which of the sample's images.
        views: (image, view) of each view that is drawn over it.
    """

    image: int
    views: tuple[tuple[int, str], ...]

    @property
    def name(self) -> str:
        """What is drawn, if that has to be said."""
        names = [view for _, view in self.views if view not in ("", "image")]
        return names[0] if len(names) == 1 else f"{len(names)} views" if names else ""


def panels_of(places: Sequence[FeatureMap] | Sequence[FeaturePlaces]) -> list[Panel]:
    """The copies of pictures that are needed.

    Args:
        places: The views, each with the boxes of its patches.
    """
    found: list[tuple[int, list[tuple[str, Box]]]] = []
    for one in places:
        extent = _extent(one.boxes)
        free = (own for image, own in found if image == one.image and _free(own, extent))
        panel = next(free, None)
        if panel is None:
            panel = []
            found.append((one.image, panel))
        panel.append((one.view, extent))
    return [Panel(image, tuple((image, view) for view, _ in own)) for image, own in found]


def _extent(boxes: Sequence[Box | None]) -> Box:
    known = [box for box in map(clipped, boxes) if box is not None]
    if not known:
        return 0.0, 0.0, 0.0, 0.0
    left, top, right, bottom = zip(*known, strict=True)
    return min(left), min(top), max(right), max(bottom)


def _free(taken: Sequence[tuple[str, Box]], box: Box) -> bool:
    return not any(_overlap(other, box) for _, other in taken)


def _overlap(one: Box, other: Box) -> bool:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide > _SLACK and high > _SLACK
