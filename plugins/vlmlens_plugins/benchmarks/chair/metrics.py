"""CHAIR's metrics, as functions of sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Answer, Floats
from vlmlens_plugins.benchmarks.chair.readers import Reader
from vlmlens_plugins.benchmarks.chair.tables import key_of, table
from vlmlens_plugins.benchmarks.counting import ratio

COUNTS = ("wrong", "mentions", "having", "captions", "named", "there", "words")


@dataclass(frozen=True)
class Chair:
    """CHAIR_i, CHAIR_s and recall in percent, and the mean length in words.

    A. Rohrbach et al. (2018, arXiv 1809.02156): CHAIR_i = hallucinated object words / object words;
    CHAIR_s = captions with at least one / captions. Later copies of the code add recall = true
    objects that are named / true objects, and the length. All are taken over the whole set.

    Args:
        reader: How texts, and reference captions, are read.
    """

    reader: Reader

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        rows = [self._of(one.text, sample) for sample, one in zip(samples, answers, strict=True)]
        columns = np.array(rows, np.float64).reshape(-1, len(COUNTS)).T
        return dict(zip(COUNTS, columns, strict=True))

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`."""
        return {
            "chair_i": ratio(sums["wrong"], sums["mentions"]),
            "chair_s": ratio(sums["having"], sums["captions"]),
            "recall": ratio(sums["named"], sums["there"]),
            "length": ratio(sums["words"], sums["captions"], 1.0),
        }

    def _of(self, text: str, sample: Sample) -> tuple[int, ...]:
        said, length = self.reader.named(text, sample)
        there, names = self.reader.there(sample), table(key_of(sample)).names
        wrong = sum(not names.is_true(one, there) for one in said)
        named = sum(names.is_named(one, said) for one in there)
        return wrong, len(said), int(wrong > 0), 1, named, len(there), length
