"""Metrics that several benchmarks share: mean credit, and those of yes and no."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Attribute, Sample
from vlmlens_plugins.benchmarks.card import Answer, Floats

Part = tuple[str, Attribute]
"""An attribute, and the value that the samples of the part have."""


def ratio(part: Floats, whole: Floats, scale: float = 100.0) -> Floats:
    """`scale * part / whole`, elementwise; NaN where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    safe = np.where(whole != 0, whole, 1.0)
    return np.where(whole != 0, scale * part / safe, np.nan)


def mean_known(scores: Sequence[Floats]) -> Floats:
    """The mean of several scores, elementwise, without those that are NaN; NaN of none."""
    each = np.stack(list(scores))
    known = np.isfinite(each)
    return ratio(np.where(known, each, 0.0).sum(0), known.sum(0), 1.0)


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
    """The mean credit of answers, in percent: over all samples, and over each part, if any.

    Args:
        name: Of the metric over all samples.
        parts: By name of their metric.
        parsed_only: Whether answers that say nothing are left out; else they count as wrong.
    """

    name: str = "accuracy"
    parts: Mapping[str, Part] = field(default_factory=dict)
    parsed_only: bool = False

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        credit = np.array([answer.credit for answer in answers], np.float64)
        counted = np.ones(len(answers))
        if self.parsed_only:
            counted = np.array([answer.said is not None for answer in answers], np.float64)
        found = {"credit": credit * counted, "n": counted}
        number = {part: i for i, part in enumerate(self.parts.values())}
        names = list(dict.fromkeys(attribute for attribute, _ in number))
        of = np.full((len(names), len(answers)), -1)
        for column, sample in enumerate(samples):
            for row, attribute in enumerate(names):
                part = (attribute, sample.attributes.get(attribute))
                of[row, column] = number.get(part, -1)
        for metric, part in self.parts.items():
            here = of[names.index(part[0])] == number[part]
            found[f"{metric} credit"] = found["credit"] * here
            found[f"{metric} n"] = counted * here
        return found

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`; NaN for a part without samples."""
        found = {self.name: ratio(sums["credit"], sums["n"])}
        for metric in self.parts:
            found[metric] = ratio(sums[f"{metric} credit"], sums[f"{metric} n"])
        return found


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
