"""Metrics of POPE: the mean over its splits, and what lmms-eval and VLMEvalKit compute instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Answer, Floats
from vlmlens_plugins.benchmarks.counting import YesNo, ratio


@dataclass(frozen=True)
class MeanOfParts:
    """The means of the parts' accuracies and F1s, in percent: each part counts the same.

    Args:
        parts: The names of all parts there can be; those without samples do not count.
        part: The part that a sample belongs to; samples of other parts are left out.
        prefix: Of the metrics' names.
    """

    parts: tuple[str, ...]
    part: Callable[[Sample], str]
    prefix: str = "mean_"

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        known = YesNo().counts(samples, answers)
        own = np.array([self.part(sample) for sample in samples], np.str_)
        return {
            f"{part}:{name}": np.where(own == part, values, 0.0)
            for part in self.parts
            for name, values in known.items()
        }

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`; NaN where a part with samples has none."""
        return {self.prefix + name: self._mean(name, sums) for name in ("accuracy", "f1")}

    def _mean(self, name: str, sums: Mapping[str, Floats]) -> Floats:
        values, there = [], []
        for part in self.parts:
            start = f"{part}:"
            own = {key.removeprefix(start): sums[key] for key in sums if key.startswith(start)}
            values.append(YesNo().scores(own)[name])
            there.append(np.asarray(own["n"]) > 0)
        kept = np.stack(there)
        total = np.where(kept, np.stack(values), 0.0).sum(0)
        return ratio(total, kept.sum(0).astype(np.float64), scale=1.0)


@dataclass(frozen=True)
class LmmsEvalYesNo:
    """lmms-eval's figures, in percent, over all samples together.

    Its recall leaves answers that are neither yes nor no out, and its yes-ratio counts the labels.
    Where a denominator is 0, it gives 0.
    """

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        found = YesNo().counts(samples, answers)
        read = np.array([answer.said is not None for answer in answers], bool)
        labels = np.array([sample.label == "yes" for sample in samples], bool)
        return {
            **found,
            "fn": np.where(read, found["fn"], 0.0),
            "labelled_yes": labels.astype(np.float64),
        }

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`."""
        found = _or_zero(YesNo().scores(sums))
        return {**found, "yes_ratio": ratio(sums["labelled_yes"], sums["n"])}


@dataclass(frozen=True)
class VlmEvalKitYesNo:
    """VLMEvalKit's figures, in percent, over all samples together; its "Overall" is `f1`.

    An answer that is unknown counts as not-yes. It gives no yes-ratio, and 0 where a denominator
    is 0.
    """

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        return YesNo().counts(samples, answers)

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`."""
        found = _or_zero(YesNo().scores(sums))
        return {name: found[name] for name in ("accuracy", "precision", "recall", "f1")}


def _or_zero(found: Mapping[str, Floats]) -> dict[str, Floats]:
    return {name: np.nan_to_num(values, nan=0.0) for name, values in found.items()}
