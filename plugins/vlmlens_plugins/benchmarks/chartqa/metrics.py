"""ChartQA's metrics: relaxed accuracy over all questions and by who asked them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Answer, Floats
from vlmlens_plugins.benchmarks.chartqa.asked import AUGMENTED, HUMAN
from vlmlens_plugins.benchmarks.chartqa.parsing import is_year, number
from vlmlens_plugins.benchmarks.counting import ratio

_PARTS = {"relaxed": None, "relaxed_human": HUMAN, "relaxed_augmented": AUGMENTED}


@dataclass(frozen=True)
class Relaxed:
    """Relaxed accuracy in percent: all, human, augmented; and with years that must be exact.

    years_exact: as relaxed, but an answer to a label that may be a year is right only if it is that
    very number. year_share: labels that may be one, in percent.
    """

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        credit = np.array([answer.credit for answer in answers], np.float64)
        part = np.array([str(sample.task) for sample in samples])
        year = np.array([is_year(sample.label) for sample in samples], bool)
        off = np.array(
            [
                is_one and not _is_same(answer, sample)
                for answer, sample, is_one in zip(answers, samples, year.tolist(), strict=True)
            ],
            bool,
        )
        found = {
            "exact": np.where(off, 0.0, credit),
            "years": year.astype(np.float64),
        }
        for name, wanted in _PARTS.items():
            used = np.ones(len(samples)) if wanted is None else (part == wanted).astype(np.float64)
            found |= {f"{name}_right": credit * used, f"{name}_n": used}
        return found

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`."""
        return {
            **{name: ratio(sums[f"{name}_right"], sums[f"{name}_n"]) for name in _PARTS},
            "years_exact": ratio(sums["exact"], sums["relaxed_n"]),
            "year_share": ratio(sums["years"], sums["relaxed_n"]),
        }


def _is_same(answer: Answer, sample: Sample) -> bool:
    said = (answer.said or "").strip().rstrip(".")
    return number(said) == number(str(sample.label).strip())
