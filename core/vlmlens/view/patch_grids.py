"""Where the patches of a sample's picture lie, as figures of the run's results say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from vlmlens.errors import DataError
from vlmlens.report._sheets import Box, clipped
from vlmlens.view.sample_pictures import picture_size

if TYPE_CHECKING:
    from vlmlens.results import Result
    from vlmlens.view.shown_run import ShownRun

_TRIED = 8
_MOST_VIEWS = 6


@dataclass(frozen=True)
class PictureGrid:
    """The patches of one view of a picture.

    Args:
        view: Which view is cut into patches; "" if there is one.
        boxes: (left, top, right, bottom) of each patch, in fractions of the picture's sides.
        of: The sample whose figure says it, if it is another one, whose picture has the same size.
    """

    view: str
    boxes: Sequence[Box]
    of: str = ""


@dataclass(frozen=True)
class _Said:
    """The patches of one view, and whose picture they are of."""

    sample: str
    image: int
    view: str
    boxes: Sequence[Sequence[float] | None]


def grids_of(run: ShownRun, number: int, image: int) -> list[PictureGrid]:
    """The grids of a picture, one per view; none if no figure tells patches of such a picture.

    Args:
        run: The run.
        number: The sample's number.
        image: The number of its picture.
    """
    name = str(run.samples[number].id)
    said = run.kept("grids", run.state, lambda: _said(run.results))
    own = [each for each in said.get(name, ()) if each.image == image]
    if own:
        return _distinct(own, "")
    other = _alike(run, number, image, said)
    return _distinct([each for each in said[other] if each.image == 0], other) if other else []


def _distinct(said: Sequence[_Said], other: str) -> list[PictureGrid]:
    made: dict[str, PictureGrid] = {}
    for each in said:
        boxes = [box for box in map(clipped, each.boxes) if box is not None]
        if boxes:
            made.setdefault(each.view, PictureGrid(each.view, boxes, other))
    return list(made.values())[:_MOST_VIEWS]


def _alike(
    run: ShownRun, number: int, image: int, said: Mapping[str, Sequence[_Said]]
) -> str | None:
    """A sample whose first picture has the same size and whose patches are known."""
    samples = run.samples
    try:
        wanted = picture_size(run, samples[number], image)
    except DataError:
        return None
    for name in islice(said, _TRIED):
        other = samples.get(name)
        if other is None or len(other.images) != len(samples[number].images):
            continue
        try:
            if picture_size(run, other, 0) == wanted:
                return name
        except DataError:
            continue
    return None


def _said(results: Mapping[str, Result]) -> dict[str, list[_Said]]:
    found: dict[str, list[_Said]] = {}
    for each in _every(results):
        found.setdefault(each.sample, []).append(each)
    return found


def _every(results: Mapping[str, Result]) -> Iterator[_Said]:
    for figure in (figure for result in results.values() for figure in result.figures):
        if figure.kind == "patches":
            for sheet in figure.sheets:
                view = sheet.facets.get("view", "")
                yield _Said(sheet.sample, sheet.image, view, sheet.boxes)
        for scene in figure.scenes:
            for place in scene.places:
                yield _Said(scene.sample, place.image, place.view, place.boxes)
