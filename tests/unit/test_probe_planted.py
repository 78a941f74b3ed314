"""The probe on planted data: how often it is wrong, and how often it finds what is there.

A small version of `benchmarks/planted.py`, whose numbers are in docs/analyses.md.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmarks.planted import (
    ALPHA,
    NULLS,
    SIGNALS,
    Null,
    Planted,
    encoded,
    expected_accuracy,
    null_set,
    planted_set,
    predicted_power,
    probe,
    smallest_p,
)

DATASETS = 20
PLANTED_SETS = 40

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("plan", NULLS, ids=lambda plan: plan.name)
def test_nothing_is_seldom_called_encoded(plan: Null) -> None:
    """At a rate of 5 %, more than 4 of 20 are seen 3 times in a thousand."""
    results = [probe(*null_set(plan, 500 + i), 500 + i, "logistic") for i in range(DATASETS)]
    assert sum(map(encoded, results)) <= 4
    assert sum(smallest_p(result) <= ALPHA for result in results) <= 4


@pytest.mark.parametrize("plan", [SIGNALS[0], SIGNALS[4]], ids=lambda plan: str(plan.samples))
def test_a_planted_signal_is_found_as_often_as_predicted(plan: Planted) -> None:
    seeds = range(500, 500 + PLANTED_SETS)
    results = [probe(*planted_set(plan, seed), seed, "logistic") for seed in seeds]
    power = predicted_power(plan)
    spread = math.sqrt(power * (1 - power) / PLANTED_SETS)
    assert np.mean([encoded(result) for result in results]) == pytest.approx(power, abs=3 * spread)
    assert 0.2 < power < 0.99
    assert expected_accuracy(plan.distance, plan) == pytest.approx(0.5 + plan.gap)


def test_controls_do_not_score_below_chance() -> None:
    """Shuffled over all folds at once, they would: by chance a class that is rarer in a training
    part is more frequent in its held-out part."""
    found = []
    for seed in range(10):
        result = probe(*null_set(NULLS[0], seed), seed, "centroid")
        found += result.table("probe-columns").columns["control"]
    mean, error = np.mean(found), np.std(found, ddof=1) / math.sqrt(len(found))  # type: ignore[arg-type]
    assert mean == pytest.approx(0.5, abs=3 * error + 0.003)
