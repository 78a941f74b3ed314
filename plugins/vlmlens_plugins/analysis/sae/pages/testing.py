"""What the shown features separate in held-out samples, and the names that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmlens.results import FeatureLabel
from vlmlens.samples import Sample
from vlmlens.statistics import holm
from vlmlens_plugins.analysis._separating import (
    ALPHA,
    Separated,
    draws_for,
    separated,
    targets_of,
)
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.sae.options import SaeOptions
from vlmlens_plugins.analysis.sae.pages.pictured import short
from vlmlens_plugins.analysis.sae.pages.units import units_of
from vlmlens_plugins.analysis.sae.peaks import Peaks

LEAST_AREA = 0.9
"""A feature is named after a label that it separates with at least this area, significantly."""
_MOST_NAMES = 2


def separated_by(
    held: Peaks,
    samples: Sequence[Sample],
    alike: Mapping[int, Sequence[int]],
    options: SaeOptions,
    numbers: Sequence[int],
    seed: tuple[int, str],
) -> list[list[FeatureLabel]]:
    """For each feature, what it separates, best first; corrected for all features and targets.

    Args:
        held: What the features do in samples that they were not chosen by.
        samples: All samples of the run.
        alike: By the number of a sample, all samples with the same rows.
        options: What features may stand for, and how often labels are shuffled.
        numbers: The features.
        seed: Of the shuffles: a number and the column.
    """
    units = units_of(held, samples, alike, targets_of(samples, options.by))
    largest = held.largest[:, list(numbers)]
    draws = draws_for(len(numbers) * len(units), options.permutations)
    tested: list[tuple[int, str, Separated]] = []
    for one in units:
        values = one.values(largest).toarray()
        for place, number in enumerate(numbers):
            rng = generator(seed[0], "sae", "page", seed[1], str(number), one.target.name)
            found = separated(values[:, place], one.labels, draws, rng)
            if found is not None:
                tested.append((place, one.target.name, found))
    corrected = holm([found.p for *_, found in tested])
    labels: list[list[FeatureLabel]] = [[] for _ in numbers]
    for (place, target, found), p in zip(tested, corrected, strict=True):
        labels[place].append(
            FeatureLabel(
                target, found.label, short(found.auc), short(found.shuffled), short(p), found.units
            )
        )
    return [sorted(own, key=lambda one: (one.corrected, -abs(one.auc - 0.5))) for own in labels]


def name_of(labels: Sequence[FeatureLabel]) -> str:
    """The name that evidence gives a feature; "" if there is none.

    >>> red = FeatureLabel("color", "red", 0.99, 0.6, 0.004, 120)
    >>> name_of([red]), name_of([FeatureLabel("color", "red", 0.99, 0.6, 0.2, 120)])
    ('color: red (AUC 0.99)', '')
    """
    clear = [one for one in labels if one.corrected < ALPHA and one.auc >= LEAST_AREA]
    best = sorted(clear, key=lambda one: -one.auc)[:_MOST_NAMES]
    return " and ".join(f"{one.target}: {one.label} (AUC {one.auc:.2f})" for one in best)
