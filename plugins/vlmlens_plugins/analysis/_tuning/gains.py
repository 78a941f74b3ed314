"""What tuning has changed of a task's answers, with intervals over groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._estimates import Estimate, Resampled
from vlmlens_plugins.analysis._statistics import generator, permutation_p

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gain:
    """Shares of right answers of a task before and after, and their difference.

    Args:
        task: Its name.
        samples: How many questions.
        groups: In how many groups.
        before: Share of right answers; `after` and `control` (the same training with shuffled
            labels; None: there was none) likewise.
        blind_before: That on gray images; `blind_after` likewise.
        change: After less before, paired.
        beyond: After less control, paired; None without a control.
        p: Of a task that was trained: of no gain over the model before, or none over the control,
            the larger one. Of others: of no change.
    """

    task: str
    samples: int
    groups: int
    before: Estimate
    after: Estimate
    control: Estimate | None
    blind_before: Estimate
    blind_after: Estimate
    change: Estimate
    beyond: Estimate | None
    p: float


def gain(
    task: str,
    samples: Sequence[Sample],
    right: Mapping[str, Floats],
    *,
    trained: bool,
    draws: int,
    seed: int,
) -> Gain:
    """The gain in one task.

    Args:
        task: Its name.
        samples: Its questions.
        right: float64 `[samples]`, 1, 0 or NaN: "before", "after", "blind before", "blind after",
            and "control" where there is one.
        trained: Whether the task was trained; see `Gain.p`.
        draws: Resamples and permutations.
        seed: Of both.
    """
    names = [one.split_group for one in samples]
    drawn = Resampled(names, draws, generator(seed, "tuning", task))
    change, control = right["after"] - right["before"], right.get("control")
    p = _p(drawn, change, draws, generator(seed, "tuning", task, "p"))
    if not trained:
        p = min(1.0, 2 * min(p, _p(drawn, -change, draws, generator(seed, "tuning", task, "p"))))
    beyond = None
    if control is not None:
        beyond = drawn.mean(right["after"] - control)
        rng = generator(seed, "tuning", task, "control")
        if trained:
            p = max(p, _p(drawn, right["after"] - control, draws, rng))
    return Gain(
        task,
        len(samples),
        len(set(names)),
        drawn.share(right["before"]),
        drawn.share(right["after"]),
        None if control is None else drawn.share(control),
        drawn.share(right["blind before"]),
        drawn.share(right["blind after"]),
        drawn.mean(change),
        beyond,
        p,
    )


def _p(drawn: Resampled, differences: Floats, draws: int, rng: np.random.Generator) -> float:
    """One-sided: how often as large a mean comes of flipping the signs of groups at random."""
    sums = drawn.sums(differences)
    signs = rng.choice([-1.0, 1.0], size=(draws, len(sums)))
    return permutation_p(float(sums.sum()), signs @ sums)
