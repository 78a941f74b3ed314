"""What tuning has changed of a task's answers, with intervals over groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._estimates import Estimate, Resampled
from vlmlens_plugins.analysis._statistics import generator, permutation_p
from vlmlens_plugins.analysis._tuning.measuring import Answers

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
        credit: Mean probability of the label among the choices, after; `control_credit` with
            shuffled labels.
        blind_before: That on gray images; `blind_after` likewise.
        change: After less before, paired.
        beyond: `credit` less `control_credit`, paired; None without a control. Where one easy
            feature tells all labels, answers after shuffled labels are all right or all wrong by
            the toss of a coin; probabilities are not.
        p: Of a task that was trained: of no gain over the model before, or none over the control,
            the larger one. Of others: of no change.
    """

    task: str
    samples: int
    groups: int
    before: Estimate
    after: Estimate
    control: Estimate | None
    credit: Estimate
    control_credit: Estimate | None
    blind_before: Estimate
    blind_after: Estimate
    change: Estimate
    beyond: Estimate | None
    p: float


def gain(
    task: str,
    samples: Sequence[Sample],
    answers: Mapping[str, Answers],
    rows: Sequence[int],
    *,
    trained: bool,
    draws: int,
    seed: int,
) -> Gain:
    """The gain in one task.

    Args:
        task: Its name.
        samples: All questions.
        answers: "before", "after", "blind before", "blind after", and "control" where there is one.
        rows: The numbers of its questions.
        trained: Whether the task was trained; see `Gain.p`.
        draws: Resamples and permutations.
        seed: Of both.
    """
    names = [samples[i].split_group for i in rows]
    own = list(rows)
    right = {name: each.right[own] for name, each in answers.items()}
    drawn = Resampled(names, draws, generator(seed, "tuning", task))
    change = right["after"] - right["before"]
    p = _p(drawn, change, draws, generator(seed, "tuning", task, "p"))
    if not trained:
        p = min(1.0, 2 * min(p, _p(drawn, -change, draws, generator(seed, "tuning", task, "p"))))
    credit, control, beyond = answers["after"].credit[own], answers.get("control"), None
    if control is not None:
        more = credit - control.credit[own]
        beyond = drawn.mean(more)
        if trained:
            p = max(p, _p(drawn, more, draws, generator(seed, "tuning", task, "control")))
    return Gain(
        task,
        len(rows),
        len(set(names)),
        drawn.share(right["before"]),
        drawn.share(right["after"]),
        None if control is None else drawn.share(right["control"]),
        drawn.mean(credit),
        None if control is None else drawn.mean(control.credit[own]),
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
