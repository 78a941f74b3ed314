"""What was found, as figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmlens.results import Figure, ScatterPoint, ScatterSpace, Series
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis.concepts.learning import Learned
from vlmlens_plugins.analysis.concepts.measuring import Found, Placed
from vlmlens_plugins.analysis.concepts.scores import Controlled, overall

_KINDS = 8
"""More kinds of points would not have colours of their own."""
_LONGEST_TIP = 120


def figures(found: Sequence[Found]) -> list[Figure]:
    """For each set: neighbours and cosines over layers, points, and what concepts are alike."""
    return [figure for each in found for figure in _of_set(each) if figure is not None]


def _of_set(each: Found) -> list[Figure | None]:
    return [_curves(each), _points(each), _alike(each)]


def _curves(each: Found) -> Figure:
    scores = each.scores
    return Figure(
        name=f"concepts-{slug(each.given.name)}",
        title=f"Whether samples of one {each.given.name} lie together, by layer",
        kind="line",
        x=short_names([score.column for score in scores]),
        x_label="layer, from the picture to the answer",
        y_label="accuracy, cosine, silhouette (band: 95 % interval)",
        series=[
            _series("neighbours' vote", [score.knn for score in scores]),
            Series("vote, shuffled labels", [s.knn.shuffled for s in scores], dashed=True),
            Series("most frequent concept", [s.majority for s in scores], dashed=True),
            _series("cosine within - between", [score.pairs.separation for score in scores]),
            _series("silhouette", [score.pairs.silhouette for score in scores]),
        ],
    )


def _series(name: str, values: Sequence[Controlled]) -> Series:
    return Series(
        name,
        [each.found.value for each in values],
        low=[each.found.low for each in values],
        high=[each.found.high for each in values],
    )


def _points(each: Found) -> Figure | None:
    placed = [one for one in each.placed if one.places.shape[1] > 1]
    if not placed:
        return None
    best = overall(each.scores)[1].column
    ordered = sorted(placed, key=lambda one: one.column != best)
    kinds, of = _kinds(each)
    return Figure(
        name=f"concepts-{slug(each.given.name)}-points",
        title=f"Samples by {each.given.name}, in the first principal components of a layer",
        kind="scatter",
        x=kinds,
        points=[
            ScatterPoint(sample.id, of[int(y)], sample.prompt[:_LONGEST_TIP])
            for sample, y in zip(each.shown.samples, each.shown.y, strict=True)
        ],
        spaces=[_space(one) for one in ordered],
    )


def _kinds(each: Found) -> tuple[list[str], dict[int, int]]:
    """The concepts that have a colour, the most frequent ones; and the kind of each concept."""
    names = each.given.concepts
    if len(names) <= _KINDS:
        return list(names), {i: i for i in range(len(names))}
    frequent = np.sort(np.argsort(-each.given.counts(), kind="stable")[: _KINDS - 1]).tolist()
    place = {number: kind for kind, number in enumerate(frequent)}
    kinds = [names[number] for number in frequent]
    return [*kinds, "others"], {i: place.get(i, _KINDS - 1) for i in range(len(names))}


def _space(placed: Placed) -> ScatterSpace:
    shares = placed.components.shares
    axes = [f"PC{i + 1} ({share:.0%} of variance)" for i, share in enumerate(shares)]
    places = [tuple(float(f"{x:.5g}") for x in place) for place in placed.places]
    return ScatterSpace(placed.column, axes, places)


def _alike(each: Found) -> Figure | None:
    names = each.given.concepts
    if len(names) < 3:
        return None
    best = overall(each.scores)[1].column
    learned: Learned = next(one for one in each.learned if one.column == best)
    cells = learned.alike
    return Figure(
        name=f"concepts-{slug(each.given.name)}-alike",
        title=f"How alike the means of {each.given.name} are, less their mean, at {best}",
        kind="heatmap",
        x=names,
        y=names,
        cells=[[float(x) if np.isfinite(x) else None for x in row] for row in cells],
        texts=[[f"{x:.1f}" if np.isfinite(x) else "" for x in row] for row in cells],
        y_range=(-1.0, 1.0),
    )
