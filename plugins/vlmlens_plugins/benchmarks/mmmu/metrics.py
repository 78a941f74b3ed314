"""The metrics of MMMU: over all questions, over subjects, by discipline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Answer, Floats
from vlmlens_plugins.benchmarks.counting import MeanCredit, mean_known
from vlmlens_plugins.benchmarks.mmmu.asked import DISCIPLINE
from vlmlens_plugins.benchmarks.mmmu.subjects import DISCIPLINES, SUBJECTS

SUBJECT = "subject"
_DISCIPLINES = MeanCredit("micro", {name: (DISCIPLINE, name) for name in DISCIPLINES})
_SUBJECTS = MeanCredit("micro", {name: (SUBJECT, name) for name in SUBJECTS})


class MmmuMetrics:
    """`micro`: over all questions; `macro`: mean over subjects; and each discipline. In percent.

    On validation, with 30 questions per subject, micro and macro are equal.
    """

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        return _DISCIPLINES.counts(samples, answers) | _SUBJECTS.counts(samples, answers)

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`; subjects without questions do not count in `macro`."""
        subjects = _SUBJECTS.scores(sums)
        micro = subjects.pop("micro")
        macro = mean_known(list(subjects.values()))
        return {"micro": micro, "macro": macro, **_without_all(_DISCIPLINES.scores(sums))}


def _without_all(scores: dict[str, Floats]) -> dict[str, Floats]:
    return {name: value for name, value in scores.items() if name != "micro"}
