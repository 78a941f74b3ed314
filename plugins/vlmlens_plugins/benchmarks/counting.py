"""Metrics that several benchmarks share: mean credit, and those of yes and no."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Answer, Floats


def ratio(part: Floats, whole: Floats, scale: float = 100.0) -> Floats:
    """`scale * part / whole`, elementwise; NaN where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    safe = np.where(whole != 0, whole, 1.0)
    return np.where(whole != 0, scale * part / safe, np.nan)


def whole_groups(
    keys: Sequence[Hashable | None], right: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Groups of answers that are all right, such as those about one figure.

    Args:
        keys: The group of each sample; None: it is in none.
        right: Whether each answer is right.

    Returns:
        Two arrays `[samples]`, 1 at the first sample of a group: of those that are all right, and
        of all of them.
    """
    first: dict[Hashable, int] = {}
    whole: dict[Hashable, bool] = {}
    for number, (key, hit) in enumerate(zip(keys, right.tolist(), strict=True)):
        if key is not None:
            first.setdefault(key, number)
            whole[key] = whole.get(key, True) and hit
    hits, groups = np.zeros(len(keys)), np.zeros(len(keys))
    for key, number in first.items():
        groups[number] = 1.0
        hits[number] = float(whole[key])
    return hits, groups


@dataclass(frozen=True)
class MeanCredit:
    """The mean credit of answers, in percent, under one name."""

    name: str = "accuracy"

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        credit = np.array([answer.credit for answer in answers], np.float64)
        return {"credit": credit, "n": np.ones(len(samples))}

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`."""
        return {self.name: ratio(sums["credit"], sums["n"])}


@dataclass(frozen=True)
class YesNo:
    """Accuracy, precision, recall, F1 and yes-ratio, in percent, of answers "yes" and "no".

    An answer that is neither is wrong: it counts in accuracy's and recall's denominators, and as
    not-yes.

    Args:
        positive: The answer whose precision and recall are meant.
    """

    positive: str = "yes"

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        label = np.array([str(sample.label).lower() == self.positive for sample in samples], bool)
        said = np.array([answer.said == self.positive for answer in answers], bool)
        yes = np.array([answer.said == "yes" for answer in answers], bool)
        right = np.array([answer.credit for answer in answers], np.float64)
        return {
            "tp": (label & said).astype(np.float64),
            "fp": (~label & said).astype(np.float64),
            "fn": (label & ~said).astype(np.float64),
            "right": right,
            "yes": yes.astype(np.float64),
            "n": np.ones(len(samples)),
        }

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`."""
        tp, fp, fn = sums["tp"], sums["fp"], sums["fn"]
        return {
            "accuracy": ratio(sums["right"], sums["n"]),
            "precision": ratio(tp, tp + fp),
            "recall": ratio(tp, tp + fn),
            "f1": ratio(2 * tp, 2 * tp + fp + fn),
            "yes_ratio": ratio(sums["yes"], sums["n"]),
        }
