"""What tuning says: sentences, notes, a cell of the overview."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from vlmlens._display import count
from vlmlens.results import Cell, Finding, Glance, Verdict
from vlmlens_plugins.analysis._sweeps.scores import number
from vlmlens_plugins.analysis.bottleneck.tuning.closing import Closing, State
from vlmlens_plugins.analysis.bottleneck.tuning.tables import figures, tables
from vlmlens_plugins.analysis.bottleneck.tuning.words import KINDS, percent, with_ends
from vlmlens_plugins.analysis.bottleneck.work import TOWER
from vlmlens_plugins.tuning.making import named

__all__ = ["figures", "findings", "glance", "notes", "tables"]

_HANDS_ON = ("vision", "projector")


def findings(one: Closing) -> list[Finding]:
    """The verdict, then what it rests on: all of the tested samples."""
    tested = [sample.id for sample in one.parts.test]
    return [replace(finding, samples=tested) for finding in _findings(one)]


def _findings(one: Closing) -> Iterator[Finding]:
    yield _verdict(one)
    others = "; ".join(_after(state) for state in one.states.values())
    yield Finding(
        f"{one.task}: accuracy after tuning: {others}; as it is, {with_ends(one.before.right)}.",
        Verdict.INFO,
        one.task,
    )
    if one.control is not None:
        yield Finding(
            f"{one.task}: trained on shuffled labels, the same training of the "
            f"{named(one.control.name)} gives {with_ends(one.control.right)}.",
            Verdict.INFO,
            one.task,
        )
    yield _blind(one)
    yield from _read(one)
    yield from _looked(one)


def _verdict(one: Closing) -> Finding:
    best, values = one.best, _values(one)
    upper = (
        f"what can be read off directly ({one.measure}: {with_ends(one.direct)})"
        if np.isfinite(one.direct.value)
        else "100 %"
    )
    if not _open(one):
        text = (
            f"{one.task}: there is no gap to close: the model answers "
            f"{with_ends(one.before.right)}, and {upper} is not surely more."
        )
        return Finding(text, Verdict.INCONCLUSIVE, one.task, values)
    raised = (
        f"raises accuracy from {percent(one.before.right.value)} to {with_ends(best.right)} and "
        f"closes {with_ends(best.closed)} of the gap to {upper}"
    )
    if one.leading == [best.name]:
        text = (
            f"{one.task}: tuning the {named(best.name)} closes the gap more than any other "
            f"component's tuning: it {raised}.{_held_before(one)}"
        )
        return Finding(text, Verdict.INFO, one.task, values, notable=True)
    if best.name in one.leading:
        others = " and the ".join(named(name) for name in one.leading if name != best.name)
        text = (
            f"{one.task}: tuning the {named(best.name)} {raised}. The {others} may gain as much, "
            "so no single bottleneck is shown."
        )
    else:
        text = (
            f"{one.task}: no component's tuning surely gains: the largest change is that of the "
            f"{named(best.name)}, to {with_ends(best.right)}, with {upper} to reach."
        )
    return Finding(text, Verdict.INCONCLUSIVE, one.task, values)


def _held_before(one: Closing) -> str:
    """Said where the tower held the answer already: then it does not see better."""
    before, after = one.before.read.get(TOWER), one.best.read.get(TOWER)
    if one.best.name not in _HANDS_ON or before is None or after is None:
        return ""
    if after.low > before.value:
        return ""
    return (
        f" The tower held the answer before (a probe reads {percent(before.value)}): it is passed "
        "on better, not seen better."
    )


def _open(one: Closing) -> bool:
    return bool(one.gap.low > 0)


def _shown(one: Closing) -> bool:
    """Whether one component is shown to be the bottleneck."""
    return _open(one) and list(one.leading) == [one.best.name]


def _values(one: Closing) -> dict[str, Cell]:
    values: dict[str, Cell] = {
        "component": one.best.name if _shown(one) else None,
        "before": number(one.before.right.value),
        "direct": number(one.direct.value),
        "tested": len(one.parts.test),
        "labelled": len(one.parts.train) + len(one.parts.held),
    }
    return values | {name: number(state.right.value) for name, state in one.states.items()}


def _after(state: State) -> str:
    low, high = state.range
    spread = f" (trainings {percent(low)} to {percent(high)})" if low < high else ""
    return f"{named(state.name)} {with_ends(state.right)}{spread}"


def _blind(one: Closing) -> Finding:
    """What the tuned model answers unseen, and whether that is the labels' frequency."""
    best = one.best
    text = (
        f"{one.task}: blind, {with_ends(one.before.blind)} are right as it is, and "
        f"{with_ends(best.blind)} with the {named(best.name)} tuned; the blind answers' "
        f"distance to the labels' frequencies goes from {percent(one.before.prior)} to "
        f"{percent(best.prior)}."
    )
    return Finding(text, Verdict.INFO, one.task)


def _read(one: Closing) -> Iterator[Finding]:
    """What is readable at the end, before and after."""
    stages = list(one.before.read)
    if not stages:
        return
    told = "; ".join(
        f"{stage} {percent(one.before.read[stage].value)} -> {percent(after.value)}"
        for stage, after in one.best.read.items()
    )
    yield Finding(
        f"{one.task}: what probes read before and after tuning the {named(one.best.name)}: {told}.",
        Verdict.INFO,
        one.task,
    )


def _looked(one: Closing) -> Iterator[Finding]:
    if not np.isfinite(one.before.region.value):
        return
    share, after = 100 * one.before.region.value, 100 * one.best.region.value
    yield Finding(
        f"{one.task}: of the answering row's attention, {share:.2g} % falls on the key region as "
        f"it is, and {after:.2g} % with the {named(one.best.name)} tuned (a region of that shape "
        f"at any place: {100 * one.area.value:.2g} %).",
        Verdict.INFO,
        one.task,
    )


def glance(one: Closing) -> Glance:
    """The cell of the overview."""
    sure = _shown(one)
    return Glance(
        one.task,
        "closed by tuning",
        named(one.best.name) if sure else "not shown",
        Verdict.INFO if sure else Verdict.INCONCLUSIVE,
        number(one.best.right.value),
        f"as it is {one.before.right.value:.2f}",
    )


def notes(one: Closing) -> Iterator[str]:
    """How the numbers were made."""
    kinds = {training.component: training for training in one.trainings}
    told = ", ".join(
        f"{named(name)} ({KINDS[each.kind]}, {count(each.parameters, 'number')})"
        for name, each in kinds.items()
    )
    trainings = max((one_.seed for one_ in one.trainings), default=0) + 1
    yield (
        f"Tuning: each component by itself, from the model as it is, on the same "
        f"{len(one.parts.train)} samples, {count(trainings, 'time')}: {told}. Training ends by the "
        f"loss on {len(one.parts.held)} others. All numbers are from {len(one.parts.test)} samples "
        "of groups that were not trained on."
    )
    yield (
        f"The direct readout is {one.measure}; it learned from the samples that trainings had."
        if np.isfinite(one.direct.value)
        else f"The direct readout is not known: {one.measure}. The gap is the one to 100 %."
    )
    yield (
        "A component is called the bottleneck if tuning it gains more than tuning each other one, "
        "by the interval of the paired difference and in every training. Intervals are from "
        "resampled groups; the spread of trainings stands beside. The order of experiments follows "
        "arXiv 2506.08008."
    )
