"""Whether the place of the highest internal confidence lies in the region that is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens_plugins.analysis._sweeps.effects import ALPHA, effects
from vlmlens_plugins.analysis.hallucination.asked import Case


@dataclass(frozen=True, slots=True)
class Placed:
    """How often the place lies in the region, in one task, with one form of the lens.

    Args:
        task: The task.
        word: "object" or "answer": which word the lens follows.
        normed: Whether with the final norm.
        share: The share of samples; `low` and `high` are its 95 % interval.
        chance: The mean share of image rows that lie in the region.
        p: Of no difference to chance, by sign flips of groups, corrected by Holm.
        samples: How many have a region.
    """

    task: str
    word: str
    normed: bool
    share: float
    low: float
    high: float
    chance: float
    p: float
    samples: int

    @property
    def found(self) -> bool:
        """Whether it is there more often than by chance."""
        return self.p <= ALPHA and self.share > self.chance


def placed(task: str, cases: Sequence[Case], seed: int, draws: int) -> list[Placed]:
    """Without and with the final norm; empty where no sample has a region that can be read."""
    word = "object" if all(case.named for case in cases) else "answer"
    having = [
        case
        for case in cases
        if case.inside["chance"] is not None and case.inside[word] is not None
    ]
    if not having:
        return []
    hits = np.array([case.inside[word]["inside"] for case in having]).T
    chance = np.array([case.inside["chance"] for case in having])
    groups = [case.sample.split_group for case in having]
    found = effects(
        hits,
        np.ones(len(having)),
        groups,
        controls=[chance[None]] * len(hits),
        seed=seed,
        draws=draws,
    )
    return [
        Placed(
            task,
            word,
            bool(k),
            float(found.value[k]),
            float(found.low[k]),
            float(found.high[k]),
            float(found.control[k]),
            float(found.p[k]),
            len(having),
        )
        for k in range(len(hits))
    ]
