"""The metrics of BLINK: the mean over its tasks, and over all questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.blink.forms import TASK
from vlmlens_plugins.benchmarks.blink.tasks import TASKS
from vlmlens_plugins.benchmarks.card import Answer, Floats
from vlmlens_plugins.benchmarks.counting import MeanCredit, mean_known

_TASKS = MeanCredit("micro", {name: (TASK, name) for name in TASKS})


class BlinkMetrics:
    """`macro`: the mean over the tasks, as the authors count; `micro`: over all questions.

    Both in percent. lmms-eval and VLMEvalKit give `micro`.
    """

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        return _TASKS.counts(samples, answers)

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`; tasks without questions do not count in `macro`."""
        tasks = _TASKS.scores(sums)
        micro = tasks.pop("micro")
        return {"macro": mean_known(list(tasks.values())), "micro": micro}
