"""MME's scores: acc, acc+ and their sum by task, perception and cognition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Answer, Floats
from vlmlens_plugins.benchmarks.counting import ratio, whole_groups
from vlmlens_plugins.benchmarks.mme.asked import COGNITION, PERCEPTION, TASKS

_NAMES = ("right", "n", "both", "images")


def _counts(samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
    """Right answers and questions; images with all answers right, and images.

    An image of which only one question is there, as after a limit, counts in neither of the latter.
    """
    right = np.array([answer.credit >= 1 for answer in answers], bool)
    times: dict[str, int] = {}
    keys = [str(sample.attributes["image"]) for sample in samples]
    for key in keys:
        times[key] = times.get(key, 0) + 1
    both, images = whole_groups([key if times[key] > 1 else None for key in keys], right)
    return {
        "right": right.astype(np.float64),
        "n": np.ones(len(samples)),
        "both": both,
        "images": images,
    }


@dataclass(frozen=True)
class AccAndPlus:
    """acc: right answers; acc_plus: images with both answers right (percent); score: their sum."""

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        return _counts(samples, answers)

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`."""
        acc, plus = ratio(sums["right"], sums["n"]), ratio(sums["both"], sums["images"])
        return {"acc": acc, "acc_plus": plus, "score": acc + plus}


@dataclass(frozen=True)
class Totals:
    """perception: the scores of 10 tasks (at most 2000); cognition: of 4 (800); total; acc; acc+.

    A total of tasks that are not all there is not known.
    """

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        found = _counts(samples, answers)
        task = np.array([str(sample.task) for sample in samples])
        return {
            f"{name}: {count}": np.where(task == name, found[count], 0.0)
            for name in TASKS
            for count in _NAMES
        }

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`."""
        by_task = {
            name: AccAndPlus().scores({count: sums[f"{name}: {count}"] for count in _NAMES})
            for name in TASKS
        }
        whole = {count: _sum([sums[f"{task}: {count}"] for task in TASKS]) for count in _NAMES}
        overall = AccAndPlus().scores(whole)
        perception = _sum([by_task[task]["score"] for task in PERCEPTION])
        cognition = _sum([by_task[task]["score"] for task in COGNITION])
        return {
            "perception": perception,
            "cognition": cognition,
            "total": perception + cognition,
            "acc": overall["acc"],
            "acc_plus": overall["acc_plus"],
        }


def _sum(parts: Sequence[Floats]) -> Floats:
    found: Floats = np.sum(np.stack([np.asarray(part, np.float64) for part in parts]), axis=0)
    return found
