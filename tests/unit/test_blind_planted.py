"""The blind test on planted data: how often it is wrong, and how often it finds what is there.

A small version of `benchmarks/planted_blind.py`, whose numbers are in docs/analyses.md.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from benchmarks.planted_blind import ALPHA, NULLS, PLANTED, Plan, judged, predicted_power

DATASETS = 40


@cache
def found_in(plan: Plan) -> list[dict[str, Any]]:
    """What is found in each data set."""
    return [judged(plan, seed, 1000) for seed in range(1000, 1000 + DATASETS)]


def share(plan: Plan, *verdicts: str) -> float:
    return float(np.mean([each["verdict"] in verdicts for each in found_in(plan)]))


@pytest.mark.parametrize("plan", NULLS, ids=lambda plan: plan.name)
def test_a_model_that_makes_nothing_of_the_image_is_not_said_to_use_it(plan: Plan) -> None:
    """At a rate of 5 %, more than 6 of 40 are seen less than once in a hundred times."""
    assert share(plan, "uses the image") <= 6 / DATASETS
    if not plan.guesses:
        assert share(plan, "partly uses the image") == 0


@pytest.mark.parametrize("plan", [PLANTED[0], PLANTED[3]], ids=lambda plan: plan.name)
def test_what_is_planted_is_found_as_often_as_predicted(plan: Plan) -> None:
    found = share(plan, "uses the image", "partly uses the image")
    power = predicted_power(plan, 500)
    spread = math.sqrt(max(power * (1 - power), 0.02) / DATASETS)
    assert found == pytest.approx(power, abs=3 * spread)
    assert power > 0.5


def test_a_model_that_sees_it_all_uses_the_image() -> None:
    assert share(replace(PLANTED[-1], seen=0.9), "uses the image") == 1


def test_a_test_that_takes_samples_as_independent_is_wrong_on_groups() -> None:
    """What the p-value beside ours would say of a model that guesses by the picture."""
    assert np.mean([each["mcnemar_p"] <= ALPHA for each in found_in(NULLS[-1])]) > 0.1
