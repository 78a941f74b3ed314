"""What became of the answers, beside the controls: numbers, tests and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from vlmlens.results import Verdict
from vlmlens.statistics import holm
from vlmlens_plugins.analysis._statistics import exact_ends
from vlmlens_plugins.analysis._sweeps import Swept
from vlmlens_plugins.analysis._sweeps.effects import ALPHA, too_few
from vlmlens_plugins.analysis._sweeps.effects import effects as tested
from vlmlens_plugins.analysis._sweeps.scores import Scores, scores
from vlmlens_plugins.analysis._tasks import rows_by_task
from vlmlens_plugins.analysis.sae.effects.aims import Aim

Floats = npt.NDArray[np.float64]

LEAST_GAP = 0.05
"""So much larger than with controls must the share of changed answers be."""

TESTED = ("random", "turned")
"""The controls that an effect must exceed."""


@dataclass(frozen=True, slots=True)
class Ran:
    """The sweeps of one aim.

    Args:
        aim: The features.
        ablated: In each, cell 0 ablates them, the others are controls, by their `about`. No task
            stands in two of them.
        clamped: Likewise, at their largest code; None: not run.
        size: The root mean square length of what ablating changes in a row.
    """

    aim: Aim
    ablated: Sequence[Swept]
    clamped: Swept | None
    size: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval over groups."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Beside:
    """What the draws of one control did, as means over draws and samples.

    Args:
        changed: The share of answers that it changed, or moved to the label.
        logits: The change of the logit difference.
        kl: The divergence from the pass without edits, nats.
    """

    changed: float
    logits: float
    kl: float


@dataclass(frozen=True, slots=True)
class Effect:
    """What features did to the answers of a task, beside their controls.

    Args:
        aim: The features.
        task: The task.
        clamped: Whether they were clamped at their largest code; else they were ablated.
        samples: How many samples there are; `groups` likewise.
        changed: The share of answers that changed; of clamped features, that moved to the label.
        gap: By how much this is more than with the stronger of the tested controls.
        logits: The change of the logit of the right answer, of clamped features of the label, less
            that of its rival; of the log-probability where there is no rival.
        kl: The mean divergence from the pass without edits, nats.
        controls: By kind: "random" features of equal density, "turned" directions, and the
            "difference" of means.
        p: Two-sided, of no difference to the tested controls; corrected by Holm over everything.
        few: Whether so few groups can show nothing.
    """

    aim: Aim
    task: str
    clamped: bool
    samples: int
    groups: int
    changed: Interval
    gap: Interval
    logits: Interval
    kl: float
    controls: Mapping[str, Beside]
    p: float
    few: bool = False

    @property
    def beside_both(self) -> bool:
        """Whether both tested controls were run: an SAE may have too few other features."""
        return all(kind in self.controls for kind in TESTED)

    @property
    def own(self) -> bool:
        """Whether the features are about this task."""
        return self.task == self.aim.target

    @property
    def differs(self) -> bool:
        """Whether the effect exceeds both controls, significantly and by at least 5 points."""
        return (
            self.beside_both and self.p < ALPHA and self.gap.value >= LEAST_GAP and self.gap.low > 0
        )

    @property
    def verdict(self) -> Verdict:
        """In words of a finding."""
        if self.differs:
            return Verdict.DIFFERS
        unknown = self.few or not self.beside_both
        return Verdict.INCONCLUSIVE if unknown else Verdict.NO_DIFFERENCE


@dataclass(frozen=True)
class Effects:
    """What features do to the answers.

    Args:
        column: Where they were edited.
        tasks: Of ablated features: for each aim, each task.
        moved: Of clamped features: for each that stands for a label of a task.
        sizes: By the name of an aim, the size of its edit.
        too_few: A warning that some effects cannot be significant; "" if they can.
    """

    column: str
    tasks: Sequence[Effect]
    moved: Sequence[Effect]
    sizes: Mapping[str, float]
    too_few: str = ""

    @cached_property
    def by_aim(self) -> dict[Aim, list[Effect]]:
        """The tasks of each aim."""
        found: dict[Aim, list[Effect]] = {}
        for each in self.tasks:
            found.setdefault(each.aim, []).append(each)
        return found


def effects_of(column: str, ran: Sequence[Ran], *, draws: int, seed: int) -> Effects:
    """The numbers of all aims; p-values are corrected for the number of them all.

    Args:
        column: Where they were edited.
        ran: The sweeps.
        draws: Bootstrap resamples.
        seed: Of the resampling.
    """
    found: list[Effect] = []
    for one in ran:
        for swept in one.ablated:
            score, kinds = _scores(swept), _kinds(swept)
            for task, rows in rows_by_task([item.target for item in swept.items]).items():
                groups = [swept.items[i].group for i in rows]
                found.append(_effect(one.aim, task, score.of(rows), kinds, groups, draws, seed))
        if one.clamped is not None:
            score, kinds = _scores(one.clamped, to=0), _kinds(one.clamped)
            groups = [item.group for item in one.clamped.items]
            made = _effect(one.aim, one.aim.target, score, kinds, groups, draws, seed)
            found.append(replace(made, clamped=True))
    corrected = holm(np.array([each.p for each in found])) if found else ()
    few = [too_few(f"{one.aim.name}, {one.task}", one.groups, len(found)) for one in found]
    done = [
        replace(each, p=float(p), few=bool(message))
        for each, p, message in zip(found, corrected, few, strict=True)
    ]
    return Effects(
        column,
        [each for each in done if not each.clamped],
        [each for each in done if each.clamped],
        {one.aim.name: one.size for one in ran},
        next(filter(None, few), ""),
    )


def _kinds(swept: Swept) -> dict[str, list[int]]:
    """The numbers of the cells of each kind of control."""
    found: dict[str, list[int]] = {}
    for number, cell in enumerate(swept.cells):
        if "control" in cell.about:
            found.setdefault(cell.about["control"], []).append(number)
    return found


def _scores(swept: Swept, to: int | None = None) -> Scores:
    """The scores of a sweep; what counts as changed is, with `to`, what moved to that answer."""
    rivals = [_rival(one["base"]["logit"]) for one in swept.results[0]]
    found = scores(swept, rivals)
    if to is None:
        return found
    arrived = swept.says(to) & ~swept.says(to, "base")
    return replace(found, flipped=arrived.astype(np.float64))


def _rival(logits: Sequence[float]) -> int:
    """The strongest answer without edits beside the first; 0: there is none."""
    return 1 + int(np.argmax(logits[1:])) if len(logits) > 1 else 0


def _effect(
    aim: Aim,
    task: str,
    found: Scores,
    kinds: Mapping[str, Sequence[int]],
    groups: Sequence[str],
    draws: int,
    seed: int,
) -> Effect:
    """The numbers of cell 0; the other cells are its controls."""
    changes = found.changes[found.best]

    def mean(values: Floats, controls: Floats | None = None) -> tuple[Interval, float]:
        ones = np.ones(len(groups))
        one = tested(values[None], ones, groups, controls=[controls], seed=seed, draws=draws)
        return Interval(*(float(each[0]) for each in (one.value, one.low, one.high))), one.p[0]

    changed, _ = mean(found.flipped[0])
    if changed.value in (0.0, 1.0):
        changed = Interval(changed.value, *exact_ends(changed.value, len(set(groups))))
    there = [list(kinds[kind]) for kind in TESTED if kind in kinds]
    strongest = max(there, key=lambda cells: float(found.flipped[cells].mean()), default=None)
    beside = 0.0 if strongest is None else found.flipped[strongest].mean(0)
    return Effect(
        aim=aim,
        task=task,
        clamped=False,
        samples=len(groups),
        groups=len(set(groups)),
        changed=changed,
        gap=mean(found.flipped[0] - beside)[0],
        logits=mean(changes[0])[0],
        kl=float(found.divergence[0].mean()),
        controls={kind: _beside(found, changes, list(cells)) for kind, cells in kinds.items()},
        p=max((float(mean(changes[0], changes[cells])[1]) for cells in there), default=1.0),
    )


def _beside(found: Scores, changes: Floats, cells: list[int]) -> Beside:
    several = (found.flipped, changes, found.divergence)
    return Beside(*(float(each[cells].mean()) for each in several))
