"""The shared statistics against plain Python and scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from vlmlens.errors import CompositionError
from vlmlens.statistics import holm
from vlmlens_plugins.analysis._columns import Side, choose, in_order, short_names, side_of
from vlmlens_plugins.analysis._statistics import (
    bootstrap_weights,
    generator,
    interval,
    jensen_shannon,
    permutation_p,
    total_variation,
)


def plain_holm(p: list[float]) -> list[float]:
    """Smallest level at which the step-down procedure rejects each hypothesis."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    corrected = [0.0] * len(p)
    for place, i in enumerate(order):
        steps = [min(1.0, (len(p) - k) * p[order[k]]) for k in range(place + 1)]
        corrected[i] = max(steps)
    return corrected


@pytest.mark.parametrize("p", [[0.2], [0.01, 0.02, 0.03], [0.5, 0.001, 0.04, 0.04, 1.0]])
def test_holm_equals_the_step_down_procedure(p: list[float]) -> None:
    assert holm(np.array(p)).tolist() == pytest.approx(plain_holm(p))


def test_holm_keeps_the_order_and_takes_lists_and_nothing() -> None:
    assert holm([0.9, 0.01, 0.8]).tolist() == pytest.approx([1.0, 0.03, 1.0])
    assert holm([]).tolist() == []


def test_holm_lies_between_no_correction_and_bonferroni() -> None:
    p = generator(0, "p").random(50)
    corrected = holm(p)
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(50 * p, 1) + 1e-12).all()


def test_permutation_p_counts_ties_and_is_never_zero() -> None:
    assert permutation_p(1.0, np.zeros(99)) == pytest.approx(0.01)
    assert permutation_p(0.0, np.zeros(99)) == 1.0
    assert permutation_p(2.0, np.array([1.0, 2.0, 3.0])) == pytest.approx(0.75)


def test_distances_equal_scipy_and_plain_sums() -> None:
    rng = generator(1, "distances")
    p, q = rng.dirichlet(np.ones(5), 20), rng.dirichlet(np.ones(5), 20)
    p[0], q[0] = [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]
    for row in range(20):
        plain = sum(abs(a - b) for a, b in zip(p[row], q[row], strict=True)) / 2
        assert total_variation(p, q)[row] == pytest.approx(plain)
        assert jensen_shannon(p, q)[row] == pytest.approx(
            distance.jensenshannon(p[row], q[row], base=2)
        )


def test_the_distance_of_equal_distributions_is_zero() -> None:
    p = np.array([0.5, 0.5, 0.0])
    assert total_variation(p, p) == 0
    assert jensen_shannon(p, p) == pytest.approx(0, abs=1e-7)


def test_the_bootstrap_interval_of_a_mean_is_the_normal_one() -> None:
    rng = generator(2, "bootstrap")
    values = rng.normal(3, 2, 400)
    low, high = interval(bootstrap_weights(400, 4000, rng) @ values / 400)
    half = stats.norm.ppf(0.975) * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_generators_are_repeatable_and_differ_by_name_and_seed() -> None:
    draws = {generator(*key).random() for key in [(0, "a"), (1, "a"), (0, "b"), (0, "a", "b")]}
    assert len(draws) == 4
    assert generator(5, "x").random() == generator(5, "x").random()


COLUMNS = [
    "llm.norm/last",
    "llm.block.10/last",
    "llm.block.2/last",
    "projector/image.mean",
    "vision.block.1/image.mean",
    "other.module/last",
    "llm.embed/last",
]


def test_columns_follow_the_picture_through_the_model() -> None:
    expected = [
        "vision.block.1/image.mean",
        "projector/image.mean",
        "llm.embed/last",
        "llm.block.2/last",
        "llm.block.10/last",
        "llm.norm/last",
        "other.module/last",
    ]
    for columns in itertools.islice(itertools.permutations(COLUMNS), 0, 5040, 503):
        assert in_order(columns) == expected


def test_sides() -> None:
    assert side_of("vision.block.1/mean") is Side.VISION
    assert side_of("llm.block.1/last") is Side.LANGUAGE
    assert side_of("model.layers.1/last") is Side.OTHER


def test_patterns_choose_columns() -> None:
    assert choose(["llm.block.3-12"], COLUMNS) == ["llm.block.10/last"]
    assert choose(["llm.block.*/last", "llm.norm"], COLUMNS) == [
        "llm.block.2/last",
        "llm.block.10/last",
        "llm.norm/last",
    ]
    assert choose(None, COLUMNS) == in_order(COLUMNS)


@pytest.mark.parametrize("pattern", ["llm.blok.2", "llm.block.2/mean", "llm.block.77", "a..b"])
def test_a_pattern_without_a_column_is_an_error_that_names_it(pattern: str) -> None:
    with pytest.raises(CompositionError, match="No stored column matches") as caught:
        choose([pattern], COLUMNS)
    assert caught.value.subject == pattern
    assert caught.value.hint


def test_short_names_keep_selectors_only_where_sites_repeat() -> None:
    assert short_names(["llm.block.0/last", "llm.block.1/last"]) == ["llm.block.0", "llm.block.1"]
    twice = ["llm.block.0/last", "llm.block.0/mean"]
    assert short_names(twice) == twice
