"""Bootstrap over groups: intervals of scores, and of differences between them.

B. Efron, "Bootstrap methods: another look at the jackknife", Ann. Stat. 7 (1979). Whole groups are
drawn, and control seeds with them, for the probes as trained. Where every group has one class, they
are drawn class by class: the class counts are the design's, as in the folds and permutations.

Folds share training samples, so a cross-validated score varies more than its own predictions tell
(Y. Bengio and Y. Grandvalet, "No unbiased estimator of the variance of K-fold cross-validation",
JMLR 5, 2004). The controls show by how much: they are the same thing on fresh labels, again and
again. Intervals are as much wider.

Where there are many groups, bundles of them are drawn.

Where not one prediction is wrong, resampling would claim certainty. There the exact lower end for
that many groups is taken (C. Clopper and E. Pearson, Biometrika 26, 1934).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._statistics import bootstrap_weights, exact_ends, interval
from vlmlens_plugins.analysis.probe.control_labels import Labels, constant_in_groups
from vlmlens_plugins.analysis.probe.cross_validation import majority_predictions, mean_predictions
from vlmlens_plugins.analysis.probe.trial import Trial

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_UNITS = 5000
"""More groups than these are drawn in bundles."""


@dataclass(frozen=True, slots=True)
class Losses:
    """A score as `1 - sum(loss) / sum(base)`: accuracy with losses 0 and 1 and base 1, or R2.

    Args:
        loss: float64 `[n]` over the tested samples: wrong or not, or squared errors.
        base: float64 `[n]`: 1, or squared errors of the training mean.
    """

    loss: Floats
    base: Floats

    @property
    def score(self) -> float:
        """Accuracy or R2."""
        return float(1 - self.loss.sum() / self.base.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One column's numbers for one target, as fractions of held-out samples (or R2).

    Args:
        accuracy: Of the probe, with a 95 % interval.
        control: Mean of the shuffled-label probes; `control_sd` over seeds.
        control_task: Mean of the probes of the control task by type; None without types.
        majority: Of the training parts' most frequent class (0 for R2).
        selectivity: `accuracy - control` (the control task's, where there is one), with interval.
        gap: `accuracy - max(control, control_task, majority)`, with interval.
        gap_sd: Standard deviation of the gap.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    control: float
    control_sd: float
    control_task: float | None
    majority: float
    selectivity: float
    selectivity_low: float
    selectivity_high: float
    gap: float
    gap_low: float
    gap_high: float
    gap_sd: float


@dataclass(frozen=True, slots=True)
class Resampling:
    """Draws of groups and of control seeds; the same for every column of a target.

    Args:
        of_groups: float64 `[draws, groups]`, how often each group is drawn.
        of_seeds: float64 `[draws, seeds]`, shares that sum to 1.
        groups: int64 `[n]` over the tested samples, what is drawn together.
        units: Number of groups.
        majority: Losses of the majority class, or of the training mean.
    """

    of_groups: Floats
    of_seeds: Floats
    groups: Ints
    units: int
    majority: Losses

    @classmethod
    def draw(cls, trial: Trial, draws: int, rng: np.random.Generator) -> Resampling:
        """Draw once for all columns."""
        groups = np.unique(trial.target.groups[trial.split.tested], return_inverse=True)[1]
        groups = np.asarray(groups, np.int64).reshape(-1)
        y = trial.target.y
        strata = None
        if not trial.target.numbers and constant_in_groups(y[trial.split.tested], groups):
            _, first = np.unique(groups, return_index=True)
            strata = y[trial.split.tested][first]
        units = int(groups.max()) + 1
        if units > _UNITS:
            bundles = _bundles(units, strata, rng)
            groups = bundles[groups]
            strata = None if strata is None else strata[np.unique(bundles, return_index=True)[1]]
        if trial.target.numbers:
            predicted: Labels = mean_predictions(y, trial.split)
        else:
            predicted = majority_predictions(y, trial.split)
        return cls(
            _stratified(int(groups.max()) + 1, strata, draws, rng),
            bootstrap_weights(trial.seeds, draws, rng) / trial.seeds,
            groups,
            units,
            losses_of(predicted, trial, 0),
        )

    def scores(self, losses: Losses) -> Floats:
        """float64 `[draws]`: the score in every draw."""
        sums = self._sums(np.stack([losses.loss, losses.base]))
        drawn = self.of_groups @ sums
        found: Floats = 1 - drawn[:, 0] / drawn[:, 1]
        return found

    def doubt(self, losses: Losses) -> float:
        """How far below 1 a score may lie though nothing was lost; 0 where something was."""
        return 0.0 if losses.loss.any() else 1 - exact_ends(1.0, self.units)[0]

    def interval(self, losses: Losses) -> tuple[float, float]:
        """Of a score, 95 %."""
        low, high = interval(self.scores(losses))
        return float(low) - self.doubt(losses), float(high)

    def compare(self, held_out: Labels, trial: Trial) -> Drawn:
        """One column's scores.

        Args:
            held_out: `[fits, n]`, predictions of the probe and its controls.
            trial: What was asked.
        """
        main = losses_of(held_out[0], trial, 0)
        kinds = [range(1, 1 + trial.seeds)]
        if trial.by_type:
            kinds.append(range(1 + trial.seeds, len(held_out)))
        controls = [self._controls(held_out, trial, kind) for kind in kinds]
        excess = self._excess([losses_of(held_out[i], trial, i) for i in kinds[0]])
        score, majority = main.score, self.majority.score
        drawn, base = self.scores(main), self.scores(self.majority)
        means = [float(seeds.mean()) for seeds, _ in controls]
        bars = np.maximum.reduce([base, *(draws for _, draws in controls)])
        gap = score - max(majority, *means)
        low, high = widened(score - means[-1], drawn - controls[-1][1], excess)
        gap_low, gap_high = widened(gap, drawn - bars, excess)
        score_low, score_high = widened(score, drawn, excess)
        doubt = self.doubt(main)
        low, gap_low, score_low = low - doubt, gap_low - doubt, score_low - doubt
        return Drawn(
            accuracy=score,
            accuracy_low=score_low if trial.target.numbers else max(0.0, score_low),
            accuracy_high=min(1.0, score_high),
            control=means[0],
            control_sd=float(controls[0][0].std(ddof=1)),
            control_task=means[1] if trial.by_type else None,
            majority=majority,
            selectivity=score - means[-1],
            selectivity_low=low,
            selectivity_high=high,
            gap=gap,
            gap_low=gap_low,
            gap_high=gap_high,
            gap_sd=excess * float((drawn - bars).std(ddof=1)),
        )

    def _excess(self, controls: Sequence[Losses]) -> float:
        """How much more control scores vary over seeds than their predictions tell, at least 1."""
        over_seeds = float(np.var([losses.score for losses in controls], ddof=1))
        told = float(np.mean([self._variance(losses) for losses in controls]))
        return sqrt(max(over_seeds / told, 1.0)) if told > 0 else 1.0

    def _variance(self, losses: Losses) -> float:
        """Of a score over groups, to first order."""
        rest = losses.loss - (1 - losses.score) * losses.base
        return float((self._sums(rest[None]) ** 2).sum() / losses.base.sum() ** 2)

    def _controls(self, held_out: Labels, trial: Trial, kind: range) -> tuple[Floats, Floats]:
        """Scores by seed `[seeds]`, and of their mean by draw `[draws]`."""
        found = [losses_of(held_out[i], trial, i) for i in kind]
        seeds = np.array([losses.score for losses in found])
        loss = self.of_groups @ self._sums(np.stack([losses.loss for losses in found]))
        base = self.of_groups @ self._sums(np.stack([losses.base for losses in found]))
        return seeds, ((1 - loss / base) * self.of_seeds).sum(1)

    def _sums(self, rows: Floats) -> Floats:
        """`[groups, rows]`: sums over the samples of each group."""
        return np.stack([np.bincount(self.groups, weights=row) for row in rows], axis=1)


def losses_of(predicted: Labels, trial: Trial, fit: int) -> Losses:
    """The losses of predictions `[n]` of the labels of one fit, on the tested samples."""
    y, on = trial.labels[fit], trial.split.tested
    if not trial.target.numbers:
        return Losses((predicted != y)[on].astype(np.float64), np.ones(int(on.sum())))
    mean = mean_predictions(y, trial.split)
    return Losses(((predicted - y)[on] ** 2), ((y - mean)[on] ** 2))


def _bundles(units: int, strata: Labels | None, rng: np.random.Generator) -> Ints:
    """int64 `[units]`: the bundle of each group, from 0; all of one have the same stratum.

    Sums over bundles of independent groups are independent as well, so drawing bundles tells the
    same variance, to about `sqrt(2 / _UNITS)` of it, at a cost that does not grow with the groups.
    """
    kinds = (
        np.zeros(units, np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
    )
    found = np.empty(units, np.int64)
    before = 0
    for kind in range(int(kinds.max()) + 1):
        own = rng.permutation(np.flatnonzero(kinds == kind))
        many = max(1, min(len(own), round(_UNITS * len(own) / units)))
        found[own] = before + np.arange(len(own)) % many
        before += many
    return found


def _stratified(units: int, strata: Labels | None, draws: int, rng: np.random.Generator) -> Floats:
    """float64 `[draws, units]`: how often each unit is drawn, stratum by stratum."""
    if strata is None:
        return bootstrap_weights(units, draws, rng)
    weights = np.empty((draws, units))
    for stratum in np.unique(strata):
        own = np.flatnonzero(strata == stratum)
        weights[:, own] = bootstrap_weights(len(own), draws, rng)
    return weights


def widened(point: float, drawn: Floats, factor: float) -> tuple[float, float]:
    """The percentile interval, its ends moved away from the point by a factor."""
    low, high = interval(drawn)
    return point - factor * (point - float(low)), point + factor * (float(high) - point)
