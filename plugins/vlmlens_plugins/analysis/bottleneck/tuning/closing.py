"""How much of the gap to the direct readout each component's tuning closes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._estimates import NOTHING, Estimate, Resampled
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._tuning.dividing import Divided
from vlmlens_plugins.analysis.bottleneck.options import BottleneckOptions
from vlmlens_plugins.analysis.bottleneck.tuning.snapshot import Snapshot
from vlmlens_plugins.analysis.bottleneck.tuning.trained import Training

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class State:
    """The numbers of the model in one state, over the tested samples.

    Args:
        name: The component, or "" for the model as it is.
        right: Accuracy; mean over trainings, as all numbers here.
        blind: Accuracy without the image.
        prior: Total variation between the blind answers and the labels: 0, if it answers blindly
            with the labels' frequencies; 1, if with no label that occurs.
        gain: Accuracy less that of the model as it is.
        closed: The share of the gap that is closed.
        range: The lowest and highest accuracy of its trainings.
        read: By stage, what a probe reads.
        region: The share of the answering row's attention on the key region; NaN if not known.
    """

    name: str
    right: Estimate
    blind: Estimate
    prior: float
    gain: Estimate
    closed: Estimate
    range: tuple[float, float]
    read: Mapping[str, Estimate]
    region: Estimate


@dataclass(frozen=True, slots=True)
class Closing:
    """What tuning says of one task.

    Args:
        task: The task.
        parts: Its samples.
        before: The model as it is.
        direct: What can be read off directly; NaN if it is not known.
        measure: How that is read.
        gap: `direct` less the accuracy of the model as it is.
        states: By component, the tuned model.
        control: The component with the largest gain, trained on shuffled labels; None without one.
        area: The share of attention that a region of that size would have by chance.
        leading: The components whose tuning surely gains, and not surely less than that of the one
            that gains most, in any training.
        trainings: All of them.
    """

    task: str
    parts: Divided
    before: State
    direct: Estimate
    measure: str
    gap: Estimate
    states: Mapping[str, State]
    control: State | None
    area: Estimate
    leading: Sequence[str]
    trainings: Sequence[Training]

    @property
    def best(self) -> State:
        """The component whose tuning gains most."""
        return max(self.states.values(), key=lambda state: state.gain.value)


@dataclass(frozen=True, slots=True)
class Direct:
    """What is read off without the language model.

    Args:
        hits: Per tested sample, whether it is right; none where it cannot be known.
        measure: How it is read, for people.
    """

    hits: Sequence[bool]
    measure: str


def closing(
    task: str,
    parts: Divided,
    before: Snapshot,
    direct: Direct,
    trainings: Sequence[Training],
    options: BottleneckOptions,
    seed: int,
) -> Closing:
    """The numbers of a task.

    Args:
        task: The task.
        parts: Its samples.
        before: The model as it is.
        direct: What is read off directly.
        trainings: Of all components and seeds; those with shuffled labels are the control.
        options: Of the analysis.
        seed: Of resamples.
    """
    groups = [sample.split_group for sample in parts.test]
    drawn = Resampled(groups, options.draws, generator(seed, "bottleneck", "closing"))
    labels = [str(sample.label) for sample in parts.test]
    base = np.asarray(before.right, np.float64)
    top = np.asarray(direct.hits, np.float64) if len(direct.hits) else np.ones(len(base))
    names = dict.fromkeys(one.component for one in trainings if not one.shuffled)
    of = _Numbers(drawn, labels, base, top)
    states = {
        name: of.state(
            name, [one.after for one in trainings if one.component == name and not one.shuffled]
        )
        for name in names
    }
    shuffled = [one for one in trainings if one.shuffled]
    return Closing(
        task=task,
        parts=parts,
        before=of.state("", [before]),
        direct=drawn.share(top) if len(direct.hits) else NOTHING,
        measure=direct.measure,
        gap=drawn.mean(top - base),
        states=states,
        control=of.state(shuffled[0].component, [one.after for one in shuffled])
        if shuffled
        else None,
        area=drawn.mean(_numbers(before.area)) if before.area else NOTHING,
        leading=_leading(drawn, base, trainings),
        trainings=trainings,
    )


@dataclass(frozen=True, slots=True)
class _Numbers:
    drawn: Resampled
    labels: Sequence[str]
    base: Floats
    top: Floats

    def state(self, name: str, found: Sequence[Snapshot]) -> State:
        right = np.mean([one.right for one in found], 0)
        shares = [float(np.mean(one.right)) for one in found]
        gap = self.drawn.mean(self.top - self.base)
        open_gap = gap.value > 0 and gap.low > 0
        read = {
            stage: self.drawn.share(np.mean([one.read[stage] for one in found], 0))
            for stage in found[0].read
        }
        return State(
            name=name,
            right=self.drawn.share(right),
            blind=self.drawn.share(np.mean([one.blind for one in found], 0)),
            prior=float(np.mean([_apart(one.said, self.labels) for one in found])),
            gain=self.drawn.mean(right - self.base),
            closed=self.drawn.ratio(right - self.base, self.top - self.base)
            if open_gap
            else NOTHING,
            range=(min(shares), max(shares)),
            read=read,
            region=self.drawn.mean(np.mean([_numbers(one.region) for one in found], 0))
            if found[0].region
            else NOTHING,
        )


def _numbers(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _apart(said: Sequence[str], labels: Sequence[str]) -> float:
    """Total variation between what is said and the labels; case and spaces do not count."""
    known = [label.strip().casefold() for label in labels]
    told = [text.strip().casefold() for text in said]
    names = sorted({*known, *told})
    gaps = [abs(told.count(name) / len(told) - known.count(name) / len(known)) for name in names]
    return sum(gaps) / 2


def _leading(drawn: Resampled, base: Floats, trainings: Sequence[Training]) -> list[str]:
    """The components that gain, but for those that gain surely less than the best one."""
    names = dict.fromkeys(one.component for one in trainings if not one.shuffled)
    rights = {
        name: np.array(
            [one.after.right for one in trainings if one.component == name and not one.shuffled],
            np.float64,
        )
        for name in names
    }
    best = max(rights, key=lambda name: float(rights[name].mean()))

    def surely_more(one: Floats, other: Floats) -> bool:
        means = drawn.mean(one.mean(0) - other.mean(0))
        return bool(means.low > 0 and one.mean(1).min() > other.mean(1).max())

    gaining = [name for name, own in rights.items() if surely_more(own, base[None])]
    return [name for name in gaining if name == best or not surely_more(rights[best], rights[name])]
