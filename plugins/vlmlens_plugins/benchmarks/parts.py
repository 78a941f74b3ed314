"""Mean credit over all samples, and over parts of them that an attribute tells apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vlmlens.samples import Attribute, Sample
from vlmlens_plugins.benchmarks.card import Answer, Floats
from vlmlens_plugins.benchmarks.counting import ratio

Part = tuple[str, Attribute]
"""An attribute, and the value that the samples of the part have."""


@dataclass(frozen=True)
class CreditByParts:
    """The mean credit of answers, in percent: over all samples, and over each part.

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
