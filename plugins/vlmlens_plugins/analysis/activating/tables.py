"""Tables of activating: coordinates, labels, shown samples, words, masks; and distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from vlmlens.results import Cell, Figure, Series, Table
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._results import slug, table
from vlmlens_plugins.analysis.activating.coordinates import Measured
from vlmlens_plugins.analysis.activating.driving import Drives
from vlmlens_plugins.analysis.activating.labels import Separation
from vlmlens_plugins.analysis.activating.pictured import Seen

_QUANTILES = {"min": 0.0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95,
              "max": 1.0}  # fmt: skip
_BINS = 20
_KEYS = ("coordinate",)


def tables(
    found: Sequence[Drives],
    pictured: Sequence[Sequence[Seen]],
    separations: Sequence[Separation],
    samples: Sequence[Sample],
) -> list[Table]:
    """All tables that have rows."""
    made = [
        _table("activating", "Coordinates over samples", [_spread(one) for one in found]),
        _table(
            "activating-labels",
            "Area under the curve of each label against the others",
            [row for one in separations for row in _labels(one)],
            ("coordinate", "task", "label"),
        ),
        _table(
            "activating-samples",
            "Samples at the top, at quantiles and at random, and what drives each",
            [
                row
                for one, rows in zip(found, pictured, strict=True)
                for row in _shown(one, rows, samples)
            ],
            ("coordinate", "shown"),
        ),
        _table(
            "activating-words",
            "Words of the shown samples with their weights",
            [
                row
                for one, rows in zip(found, pictured, strict=True)
                for row in _words(one, rows, samples)
            ],
            ("coordinate", "word"),
        ),
        _table(
            "activating-masks",
            "How far a coordinate falls when rows of its input are replaced",
            [row for one in found for row in _masks(one, samples)],
            ("coordinate", "rows"),
        ),
    ]
    return [each for each in made if len(each)]


def histogram(one: Measured, separation: Separation | None) -> Figure:
    """The distribution over samples; of the label that stands out beside all others.

    Args:
        one: The coordinate.
        separation: Its most significant one, if there is any.
    """
    finite = np.isfinite(one.values)
    edges = np.histogram_bin_edges(one.finite, _BINS)
    parts = {"samples": finite}
    if separation is not None and separation.label:
        labels = separation.target.labels
        own = np.array([label == separation.label for label in labels])
        others = np.array([label is not None for label in labels]) & ~own
        parts = {separation.label: finite & own, "other labels": finite & others}
    return Figure(
        f"values-{slug(one.coordinate.text)}",
        f"Values of {one.coordinate.text} over samples",
        "bar",
        x=[f"{(low + high) / 2:.3g}" for low, high in pairwise(edges)],
        x_label="value",
        y_label="samples",
        series=[
            Series(name, [int(n) for n in np.histogram(one.values[where], edges)[0]])
            for name, where in parts.items()
        ],
    )


def _table(
    name: str, title: str, rows: Sequence[Mapping[str, Cell]], keys: Sequence[str] = _KEYS
) -> Table:
    return table(name, title, rows, keys)


def _spread(drives: Drives) -> dict[str, Cell]:
    one = drives.measured
    quantiles = np.quantile(one.finite, list(_QUANTILES.values()))
    return {
        "coordinate": one.coordinate.text,
        "samples": len(one.finite),
        **dict(zip(_QUANTILES, map(float, quantiles), strict=True)),
        "deviation": one.deviation,
        "over_median_of_column": one.coordinate.spread,
    }


def _labels(one: Separation) -> list[dict[str, Cell]]:
    return [
        {
            "coordinate": one.measured.coordinate.text,
            "task": one.target.name,
            "label": label,
            "auc": area,
            "best": label == one.label,
            "shuffled": one.shuffled,
            "p": one.p,
            "p_corrected": one.corrected,
            "units": one.units,
        }
        for label, area in one.areas
    ]


def _shown(
    drives: Drives, rows: Sequence[Seen], samples: Sequence[Sample]
) -> list[dict[str, Cell]]:
    by_sample = {each.shown.sample: each for each in rows}
    made: list[dict[str, Cell]] = []
    for each in drives.shown:
        sample = samples[each.sample]
        strongest = by_sample[each.sample].strongest
        made.append(
            {
                "coordinate": drives.coordinate.text,
                "shown": each.why,
                "sample": sample.id,
                "value": float(drives.measured.values[each.sample]),
                "task": sample.task,
                "label": sample.label,
                "prompt": sample.prompt,
                "driven_by": "; ".join(f"{name} {weight:.3g}" for name, weight in strongest),
            }
        )
    return made


def _words(
    drives: Drives, rows: Sequence[Seen], samples: Sequence[Sample]
) -> list[dict[str, Cell]]:
    return [
        {
            "coordinate": drives.coordinate.text,
            "sample": samples[each.shown.sample].id,
            "shown": each.shown.why,
            "place": place,
            "word": word,
            "weight": weight,
        }
        for each in rows
        for place, (word, weight) in enumerate(each.words)
    ]


def _masks(drives: Drives, samples: Sequence[Sample]) -> list[dict[str, Cell]]:
    return [
        {
            "coordinate": drives.coordinate.text,
            "sample": samples[one.sample].id,
            "source": one.kind,
            "rows": one.which,
            "number": len(one.rows),
            "before": one.before,
            "after": one.after,
            "fall": one.fall,
            "estimated": one.estimated,
        }
        for one in drives.masked
    ]
