"""The metrics of VQAv2: accuracy, by kind of answer, and over complementary pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Answer, Floats
from vlmlens_plugins.benchmarks.counting import MeanCredit, ratio
from vlmlens_plugins.benchmarks.vqav2.rules import answers_of

ANSWER_TYPE, COMPLEMENT = "answer_type", "complement"
"""Attributes: the kind of answer; the id of the same question about a similar picture."""
KINDS: Mapping[str, str] = {"yes_no": "yes/no", "number": "number", "other": "other"}
_CREDIT = MeanCredit("accuracy", {name: (ANSWER_TYPE, kind) for name, kind in KINDS.items()})


class VqaMetrics:
    """`accuracy`, `yes_no`, `number`, `other`, and `pairs`, in percent.

    Questions without answers of people (those of the test split) do not count.

    `pairs` is the mean of the lower credit of the two questions of a complementary pair: answers
    that are the same for both pictures gain little. It is not part of the official evaluation.
    Half of a pair is counted at each of its questions, which belong to different images: so `pairs`
    has no interval.
    """

    spans: ClassVar[frozenset[str]] = frozenset({"pairs"})

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        lower, paired = _pairs(samples, answers)
        counts = _CREDIT.counts(samples, answers)
        known = np.array([bool(answers_of(sample)) for sample in samples], np.float64)
        asked = {name: known * each for name, each in counts.items()}
        return {**asked, "pairs credit": lower / 2, "pairs n": paired / 2}

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`."""
        return {**_CREDIT.scores(sums), "pairs": ratio(sums["pairs credit"], sums["pairs n"])}


def _pairs(samples: Sequence[Sample], answers: Sequence[Answer]) -> tuple[Floats, Floats]:
    """Per sample, the lower credit of its pairs, summed, and their number."""
    number: dict[str, int] = {}
    named: list[tuple[int, str]] = []
    for i, sample in enumerate(samples):
        number[sample.id] = i
        other = sample.attributes.get(COMPLEMENT)
        if isinstance(other, str):
            named.append((i, other))
    pairs = np.array([(i, number[other]) for i, other in named if other in number], np.int64)
    lower, count = np.zeros(len(answers)), np.zeros(len(answers))
    if len(pairs):
        credit = np.array([answer.credit for answer in answers], np.float64)
        for side in pairs.T:
            np.add.at(lower, side, credit[pairs].min(1))
            np.add.at(count, side, 1.0)
    return lower, count
