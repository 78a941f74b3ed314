"""Whether more samples would help: the best column's accuracy with fewer samples to learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from vlmlens.results import Cell, Figure, Finding, Series, Table
from vlmlens_plugins.analysis._results import slug, table
from vlmlens_plugins.analysis._statistics import exact_ends, generator, interval
from vlmlens_plugins.analysis.probe.cross_validation import Evaluation
from vlmlens_plugins.analysis.probe.resampling import Losses, Resampling, losses_of, widened
from vlmlens_plugins.analysis.probe.scores import Scored
from vlmlens_plugins.analysis.probe.splits import Bools, Split
from vlmlens_plugins.analysis.probe.trial import Trial

Evaluate = Callable[[Trial, str], Evaluation | None]
"""The probes of one column, of a trial with another split."""

PARTS = (8, 4, 2)
"""The fractions: an eighth, a fourth and half of the samples, and then all."""

_LEAST = 0.01
"""A gain below this, in accuracy or R2, is none."""
_TAIL = 0.025


class Growth(StrEnum):
    """What doubling the samples does to the accuracy."""

    GROWS = "grows"
    FLAT = "flat"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Point:
    """The accuracy with so many samples to learn from, on the same held-out ones.

    Args:
        samples: How many of the target's samples the probes could learn from.
        accuracy: Held-out accuracy or R2, with a 95 % interval.
        control: Mean of probes on shuffled labels.
    """

    samples: int
    accuracy: float
    low: float
    high: float
    control: float


@dataclass(frozen=True, slots=True)
class Curve:
    """The learning curve of one column.

    Args:
        column: The column.
        majority: Accuracy without features.
        points: From few samples to all.
        gain: By how much all are better than half, with a paired 95 % interval, see `_ends`.
        growth: What follows.
    """

    column: str
    majority: float
    points: Sequence[Point]
    gain: float
    gain_low: float
    gain_high: float
    growth: Growth


def learning_curve(
    trial: Trial, scored: Scored, full: Evaluation, evaluate: Evaluate, seed: int
) -> Curve | None:
    """The curve of the best column; None where too few samples are left at half of them.

    Smaller sets lie within larger ones, and folds are the same, so each sample is predicted by
    probes that learned from none of its group.

    Args:
        trial: What was asked, of all samples.
        scored: The columns' scores.
        full: The best column's probes of all samples.
        evaluate: Trains and tests the others.
        seed: The run's seed.
    """
    column = best_column(scored)
    rank = _ranks(trial, generator(seed, "probe-learning", trial.target.name))
    points: list[Point] = []
    half: Losses | None = None
    for part in PARTS:
        kept = rank < 1 / part
        made = _with(trial, kept)
        found = None if made is None else evaluate(made, column)
        if found is not None:
            points.append(_point(trial, scored, found, kept))
            half = losses_of(found.held_out[0], trial, 0) if part == PARTS[-1] else None
    if half is None:
        return None
    points.append(_point(trial, scored, full, rank < 1))
    whole = losses_of(full.held_out[0], trial, 0)
    gain = whole.score - half.score
    ends = _ends(scored.resampling, whole, half, len(scored.scores))
    majority = scored.resampling.majority.score
    return Curve(column, majority, points, gain, *ends, _growth(gain, *ends))


def _ends(resampling: Resampling, whole: Losses, half: Losses, columns: int) -> tuple[float, float]:
    """The paired interval of the gain; where no prediction differs, what that many groups say.

    The column that is best with all samples owes a part of that to chance, and so of its gain. The
    lower end is therefore one for the best of so many columns, by Bonferroni's correction.
    """
    if np.array_equal(whole.loss, half.loss):
        none = 1 - exact_ends(1.0, resampling.units)[0]
        return -none, none
    drawn = resampling.scores(whole) - resampling.scores(half)
    factor = float(ndtri(1 - _TAIL / columns) / ndtri(1 - _TAIL))
    low, _ = widened(whole.score - half.score, drawn, factor)
    return low, float(interval(drawn)[1])


def best_column(scored: Scored) -> str:
    """The column with the best accuracy, the first of equals."""
    return max(scored.scores, key=lambda score: score.accuracy).column


def _growth(gain: float, low: float, high: float) -> Growth:
    if low > 0 and gain >= _LEAST:
        return Growth.GROWS
    return Growth.FLAT if high < _LEAST else Growth.UNCLEAR


def _point(trial: Trial, scored: Scored, found: Evaluation, kept: Bools) -> Point:
    drawn = scored.resampling.compare(found.held_out, trial)
    samples = int((kept & trial.split.learned).sum())
    ends = drawn.accuracy_low, drawn.accuracy_high
    return Point(samples, drawn.accuracy, *ends, drawn.control)


def _ranks(trial: Trial, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """float64 `[n]` from 0 to 1: whole groups in random order, each fold and class in its share."""
    groups, y = trial.target.groups, trial.target.y
    _, first = np.unique(groups, return_index=True)
    kinds = y[first] if y.dtype.kind != "f" else np.zeros(len(first), np.int64)
    order = np.lexsort((rng.random(len(first)), kinds, trial.split.cell[first]))
    pairs = np.stack([trial.split.cell[first], kinds.astype(np.int64)])[:, order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(pairs, axis=1).any(0)]))
    sizes = np.diff(np.append(starts, len(order)))
    inside = np.arange(len(order)) - np.repeat(starts, sizes)
    place = (inside + np.repeat(rng.random(len(sizes)), sizes)) / np.repeat(sizes, sizes)
    of_group = np.empty(len(order))
    of_group[order] = place
    return np.asarray(of_group[groups])


def _with(trial: Trial, kept: Bools) -> Trial | None:
    """The trial with fewer samples to learn from; None where a training part lacks a class."""
    split, y = trial.split, trial.target.y
    train = split.train & kept
    for before, now in zip(split.train, train, strict=True):
        if _distinct(y[now]) < min(_distinct(y[before]), 3 if trial.target.numbers else len(y)):
            return None
    return replace(trial, split=Split(split.cell, train, split.block))


def _distinct(y: npt.NDArray[np.generic]) -> int:
    return len(np.unique(y))


def finding(target: str, curve: Curve, *, numbers: bool) -> Finding:
    """Whether more samples would still help."""
    measure = "R2" if numbers else "Accuracy"
    before, now = curve.points[-2], curve.points[-1]
    numbers_said = (
        f"{measure} at {curve.column} is {before.accuracy:.2f} with {before.samples:,} samples and "
        f"{now.accuracy:.2f} with {now.samples:,} "
        f"({curve.gain:+.3f}, {curve.gain_low:+.3f} to {curve.gain_high:+.3f})"
    )
    text = {
        Growth.GROWS: f"{target}: more samples would still help. {numbers_said}.",
        Growth.FLAT: f"{target}: more samples would hardly help. {numbers_said}.",
        Growth.UNCLEAR: f"{target}: whether more samples would help is unclear. {numbers_said}.",
    }[curve.growth]
    values: dict[str, Cell] = {
        "column": curve.column,
        "growth": curve.growth.value,
        "gain": curve.gain,
        "gain_low": curve.gain_low,
        "gain_high": curve.gain_high,
        "samples": now.samples,
    }
    return Finding(text, subject=target, values=values)


def figure(target: str, curve: Curve, *, numbers: bool) -> Figure:
    """Accuracy over the number of samples."""
    points = curve.points
    return Figure(
        name=f"probe-learning-{slug(target)}",
        title=f"How well {target} is read from {curve.column} with fewer samples",
        kind="line",
        x=[f"{point.samples:,}" for point in points],
        x_label="samples to learn from, each twice as many",
        y_label=f"held-out {'R2' if numbers else 'accuracy'} (band: 95 % interval)",
        series=[
            Series(
                "probe",
                [point.accuracy for point in points],
                low=[point.low for point in points],
                high=[point.high for point in points],
            ),
            Series("control (shuffled labels)", [p.control for p in points], dashed=True),
            Series("majority", [curve.majority] * len(points), dashed=True),
        ],
        y_range=None if numbers else (0.0, 1.0),
    )


def curves_table(curves: Sequence[tuple[str, Curve]]) -> Table:
    """All curves."""
    rows: list[dict[str, Cell]] = [
        {
            "target": target,
            "column": curve.column,
            "samples": point.samples,
            "accuracy": point.accuracy,
            "accuracy_low": point.low,
            "accuracy_high": point.high,
            "control": point.control,
            "majority": curve.majority,
        }
        for target, curve in curves
        for point in curve.points
    ]
    title = "Learning curve: accuracy with fewer samples, same folds"
    return table("probe-learning", title, rows, ("target", "column", "samples"))
