"""The learning curve: a task whose accuracy grows with the samples, one that is flat, controls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from tests.unit.test_probe import make_samples, noise, probe

from vlmlens.results import Finding, Result
from vlmlens_plugins.analysis.probe import learning_curve
from vlmlens_plugins.analysis.probe.cross_validation import Evaluation
from vlmlens_plugins.analysis.probe.learning_curve import Growth, _growth, _ranks
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.scores import score_columns
from vlmlens_plugins.analysis.probe.splits import across, folded
from vlmlens_plugins.analysis.probe.targets import Target, find_targets
from vlmlens_plugins.analysis.probe.trial import Trial

N, WIDTH = 800, 120
COLUMN = "llm.block.0/last"


def weak(y: Any, seed: int = 1) -> Any:
    """A signal spread over so many features that it takes many samples to find."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=WIDTH) / np.sqrt(WIDTH)
    return noise(seed, len(y), WIDTH) + 1.2 * np.outer(2 * y - 1, direction)


def strong(y: Any) -> Any:
    """A signal in one feature among few, which a hundred samples show as well as all."""
    x = noise(2, len(y), 3)
    x[:, 0] += 6 * y
    return x


def curve_of(x: Any, y: Any, **options: Any) -> tuple[Finding, dict[str, Any], Result]:
    return curve_of_all({COLUMN: x}, y, **options)


def curve_of_all(x: Any, y: Any, **options: Any) -> tuple[Finding, dict[str, Any], Result]:
    asked = {"learning_curve": True, "C": 0.01, "resamples": 300, "draws": 1000, **options}
    result, _ = probe(make_samples(y), x, **asked)
    (found,) = [each for each in result.findings if "growth" in each.values]
    return found, dict(result.table("probe-learning").columns), result


@pytest.fixture(scope="module")
def labels() -> Any:
    return np.random.default_rng(0).integers(0, 2, N)


def test_a_task_that_needs_samples_says_that_more_would_help(labels: Any) -> None:
    found, columns, result = curve_of(weak(labels), labels)
    assert found.values["growth"] == "grows"
    assert "more samples would still help" in found.text
    accuracy = columns["accuracy"]
    assert accuracy == sorted(accuracy)
    assert accuracy[-1] - accuracy[0] > 0.1
    expected = [N / 8, N / 4, N / 2, N]
    np.testing.assert_allclose(columns["samples"], expected, rtol=0.15)
    np.testing.assert_allclose(columns["control"], 0.5, atol=0.05)
    last = result.table("probe-columns").columns
    assert accuracy[-1] == last["accuracy"][0]
    assert [f.name for f in result.figures].count("probe-learning-label") == 1


def test_a_task_that_is_easy_says_that_more_would_hardly_help(labels: Any) -> None:
    found, columns, _ = curve_of(strong(labels), labels)
    assert found.values["growth"] == "flat"
    assert "hardly help" in found.text
    assert np.ptp(columns["accuracy"]) < 0.03
    assert all(
        low <= value <= high
        for low, value, high in zip(
            columns["accuracy_low"], columns["accuracy"], columns["accuracy_high"], strict=True
        )
    )


def test_the_curve_is_the_same_in_blocks(labels: Any) -> None:
    _, memory, _ = curve_of(strong(labels), labels, model="centroid")
    _, blocks, _ = curve_of(strong(labels), labels, model="centroid", in_memory=0)
    np.testing.assert_allclose(memory["accuracy"], blocks["accuracy"], atol=1e-6)
    np.testing.assert_allclose(memory["control"], blocks["control"], atol=2e-3)


def test_too_few_samples_have_no_curve() -> None:
    """Half of them lack a class in some fold."""
    y = np.array([0] * 60 + [1] * 5)
    result, said = probe(
        make_samples(y), {COLUMN: noise(0, 65, 4)}, learning_curve=True, min_per_class=5, C=0.1
    )
    grown = [each for each in result.findings if "growth" in each.values]
    assert bool(grown) != any("too few samples for a learning curve" in line for line in said)


def test_the_lower_end_counts_for_the_best_of_the_columns() -> None:
    """Of twenty columns of noise one is the best by chance, and so looks as if it grew."""
    y = np.random.default_rng(0).integers(0, 2, 200)
    x = {f"llm.block.{i}/last": noise(i, 200, 5) for i in range(20)}
    many, _, _ = curve_of_all(x, y, model="centroid")
    best = str(many.values["column"])
    alone, _, _ = curve_of_all({best: x[best]}, y, model="centroid")
    (gain, low, high), (own, own_low, own_high) = (
        [float(each.values[name] or 0) for name in ("gain", "gain_low", "gain_high")]
        for each in (many, alone)
    )
    assert (gain, high) == (own, own_high)
    expected = norm.isf(0.025 / 20) / norm.isf(0.025)
    assert gain - low == pytest.approx(expected * (own - own_low))
    assert many.values["growth"] != "grows"


def test_samples_of_another_run_are_not_learned_from() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    asked, _ = trial(np.arange(400), y)
    asked = Trial(asked.target, across(300, np.arange(400)), np.stack([y] * 21), 20)

    def perfect(_: Trial, __: str) -> Evaluation:
        return Evaluation(asked.labels, np.ones(21), np.ones(1))

    options = ProbeOptions(draws=1000, resamples=200)
    scored = score_columns(asked, {COLUMN: perfect(asked, COLUMN)}, options, 0)
    made = learning_curve.learning_curve(asked, scored, perfect(asked, COLUMN), perfect, 0)
    assert made is not None
    assert made.points[-1].samples == 300
    np.testing.assert_allclose([point.samples for point in made.points[:3]], [37, 75, 150], atol=12)


def test_without_being_asked_there_is_none(labels: Any) -> None:
    result, _ = probe(make_samples(labels[:100]), {COLUMN: strong(labels[:100])}, C=0.1)
    assert "probe-learning" not in [each.name for each in result.tables]


def trial(groups: Any, y: Any) -> tuple[Trial, Target]:
    (target,), _ = find_targets(["label"], make_samples(y, groups), folds=4, min_per_class=10)
    return Trial(target, folded(target.groups % 4), y[None].astype(np.int16), 0), target


def test_smaller_sets_lie_in_larger_ones_with_whole_groups() -> None:
    rng = np.random.default_rng(1)
    groups = np.arange(900) // 3
    y = rng.integers(0, 2, 300).repeat(3)
    asked, target = trial(groups, y)
    rank = _ranks(asked, np.random.default_rng(0))
    assert rank.min() >= 0
    assert rank.max() < 1
    for group in range(300):
        assert len(np.unique(rank[target.groups == group])) == 1
    for part in learning_curve.PARTS:
        kept = rank < 1 / part
        assert kept.mean() == pytest.approx(1 / part, abs=0.02)
        for fold in range(4):
            for label in range(2):
                own = (asked.split.cell == fold) & (y == label)
                assert kept[own].mean() == pytest.approx(1 / part, abs=0.05)


def test_a_part_that_learned_from_held_out_samples_would_be_seen(labels: Any) -> None:
    """A deliberate mistake: the smaller sets are taken from all samples and not from each fold's
    training part. The curve then falls from a false height."""
    honest, columns, _ = curve_of(weak(labels), labels)
    leaked = learning_curve._with

    def leaky(asked: Trial, kept: Any) -> Any:
        made = leaked(asked, kept)
        if made is not None:
            made.split.train[:] = kept
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_curve, "_with", leaky)
        found, cheated, _ = curve_of(weak(labels), labels)
    assert cheated["accuracy"][0] > columns["accuracy"][0] + 0.02
    assert found.values["gain"] < honest.values["gain"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("gain", "low", "high", "growth"),
    [
        (0.05, 0.02, 0.08, Growth.GROWS),
        (0.05, -0.01, 0.11, Growth.UNCLEAR),
        (0.002, 0.001, 0.003, Growth.FLAT),
        (-0.01, -0.03, 0.005, Growth.FLAT),
        (0.005, 0.001, 0.02, Growth.UNCLEAR),
    ],
)
def test_what_a_gain_means(gain: float, low: float, high: float, growth: Growth) -> None:
    assert _growth(gain, low, high) is growth
