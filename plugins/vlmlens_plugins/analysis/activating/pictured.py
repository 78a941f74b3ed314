"""The shown samples of a coordinate row by row: patches over the picture, and words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.abc import ModelAdapter
from vlmlens.errors import DataError, SelectorError
from vlmlens.results import Figure, Sheet
from vlmlens.samples import Sample
from vlmlens.sites import Site
from vlmlens.tokens import Column, Selector, TokenKind, TokenLayout
from vlmlens_plugins.analysis._patches import Place, views
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis.activating.choosing import Shown, distinct
from vlmlens_plugins.analysis.activating.driving import Drives
from vlmlens_plugins.analysis.activating.work import sources
from vlmlens_plugins.analysis.logit_lens.words import row_text

Floats = npt.NDArray[np.float64]
_IMAGE, _TEXT = Selector.parse("image"), Selector.parse("text")


@dataclass(frozen=True, slots=True)
class Seen:
    """A shown sample, row by row.

    Args:
        shown: The sample, and why it is shown.
        patches: Its image rows as sheets of a figure.
        words: (token, weight) of its other rows, in reading order.
    """

    shown: Shown
    patches: Sequence[Sheet] = ()
    words: Sequence[tuple[str, float]] = ()

    @property
    def strongest(self) -> list[tuple[str, float]]:
        """Its rows with the largest weights, of patches and of words: (name, weight)."""
        cells = [
            (name, value)
            for sheet in self.patches
            for name, value in zip(sheet.x, sheet.cells[0], strict=True)
            if value is not None
        ]
        return [*_largest(cells), *_largest(self.words)]


def seen(vlm: ModelAdapter | None, drives: Drives, samples: Sequence[Sample]) -> list[Seen]:
    """The shown samples of a coordinate, each once.

    Without a model it is not known what the rows of a sample are, and nothing is drawn.
    """
    alone = distinct(drives.shown)
    if vlm is None:
        return [Seen(one) for one in alone]
    (site,) = vlm.sites.resolve(drives.coordinate.column.partition("/")[0])
    return [_seen(vlm, site, drives, one, samples[one.sample]) for one in alone]


def figure(drives: Drives, rows: Sequence[Seen], label: str) -> Figure | None:
    """The patches of all shown samples; None if there are none.

    Colours begin at 0: what lowers the coordinate is drawn like what does nothing to it.

    Args:
        drives: The coordinate.
        rows: From `seen`.
        label: What the numbers are.
    """
    sheets = [sheet for one in rows for sheet in one.patches]
    if not sheets:
        return None
    found = [v for sheet in sheets for row in sheet.cells for v in row if v is not None]
    asked = drives.measured.rows is None
    return Figure(
        f"drives-{slug(drives.coordinate.text)}",
        f"What drives {drives.coordinate.text}",
        "patches",
        x=(),
        y=[drives.coordinate.text],
        y_label=label,
        sheets=sheets,
        y_range=(0.0, max(found)) if asked and max(found, default=0.0) > 0 else None,
    )


def _seen(vlm: ModelAdapter, site: Site, drives: Drives, shown: Shown, sample: Sample) -> Seen:
    rows = drives.measured.rows
    if rows is not None:
        selector = Column.parse(drives.coordinate.column).selector
        return _of_rows(vlm, site, selector, rows[shown.sample], shown, sample)
    driven = drives.driven.get(shown.sample)
    if driven is None:
        return Seen(shown)
    patches: list[Sheet] = []
    words: list[tuple[str, float]] = []
    for kind, column in sources(vlm, site).items():
        scores = driven.scores.get(kind)
        (source,) = vlm.sites.resolve(column.partition("/")[0])
        if scores is None:
            continue
        selector = _IMAGE if kind == "image" else _TEXT
        layout = _layout(vlm, source, selector, len(scores), sample)
        if layout is not None and kind == "image":
            patches += _sheets(selector, layout, scores, shown, sample)
        elif layout is not None:
            words += _words(vlm, selector, layout, scores)
    return Seen(shown, patches, words)


def _of_rows(
    vlm: ModelAdapter, site: Site, selector: Selector, values: Floats, shown: Shown, sample: Sample
) -> Seen:
    """The stored rows themselves."""
    layout = _layout(vlm, site, selector, len(values), sample)
    if layout is None:
        return Seen(shown)
    kinds = layout.kinds[selector.positions(layout)]
    image = kinds == TokenKind.IMAGE
    patches: list[Sheet] = []
    if image.all():
        patches = list(_sheets(selector, layout, values, shown, sample))
    elif image.sum() == len(layout.positions(TokenKind.IMAGE)) > 0:
        patches = list(_sheets(_IMAGE, layout, values[image], shown, sample))
    words = [
        one
        for one, own in zip(_words(vlm, selector, layout, values), image, strict=True)
        if not own
    ]
    return Seen(shown, patches, words)


def _layout(
    vlm: ModelAdapter, site: Site, selector: Selector, count: int, sample: Sample
) -> TokenLayout | None:
    """The layout of a sample in which a selector keeps so many rows; None if there is none."""
    known = vlm.encode([sample]).layouts.get(site.axis)
    for one in (known, *known.others) if known is not None else ():
        try:
            if len(selector.positions(one.samples[0])) == count:
                return one.samples[0]
        except (SelectorError, DataError):
            continue
    return None


def _sheets(
    selector: Selector, layout: TokenLayout, values: Floats, shown: Shown, sample: Sample
) -> Iterator[Sheet]:
    for view, where, grid in views(selector, layout, len(values)):
        place = Place(sample, view, grid, len(where))
        yield place.sheet(values[None, where], (), (), {"shown as": shown.why})


def _words(
    vlm: ModelAdapter, selector: Selector, layout: TokenLayout, values: Floats
) -> list[tuple[str, float]]:
    ids = layout.token_ids
    names = [
        f"row {i + 1}" if ids is None else row_text(vlm, layout, int(i))
        for i in selector.positions(layout)
    ]
    return list(zip(names, values.tolist(), strict=True))


def _largest(named: Sequence[tuple[str, float]], most: int = 3) -> list[tuple[str, float]]:
    return sorted(named, key=lambda one: -one[1])[:most]
