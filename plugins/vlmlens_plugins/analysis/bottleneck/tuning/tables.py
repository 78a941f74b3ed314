"""Tables and figures of tuning."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vlmlens.results import Cell, Figure, Series, Table
from vlmlens_plugins.analysis._estimates import Estimate
from vlmlens_plugins.analysis._results import slug, table
from vlmlens_plugins.analysis._sweeps.scores import number
from vlmlens_plugins.analysis.bottleneck.tuning.closing import Closing, State
from vlmlens_plugins.analysis.bottleneck.tuning.trained import Training
from vlmlens_plugins.analysis.bottleneck.tuning.words import AS_IS, KINDS
from vlmlens_plugins.tuning.making import named

_DIRECT = "direct readout"


def tables(one: Closing) -> Iterator[Table]:
    """States; stages of each state; trainings; tested samples."""
    states = [("", one.before), *one.states.items()]
    rows = [_state(one, state) for _, state in states]
    if one.control is not None:
        rows.append({**_state(one, one.control), "tuned": f"{one.control.name} (shuffled labels)"})
    yield table(
        "bottleneck-tuned", "The model as it is, and with a component tuned", rows,
        ["task", "tuned"],
    )  # fmt: skip
    yield table(
        "bottleneck-tuned-stages",
        "What probes read at each stage, as it is and tuned",
        [
            {"task": one.task, "tuned": name or AS_IS, "stage": stage, **_ends("read", read)}
            for name, state in states
            for stage, read in state.read.items()
        ],
        ["task", "tuned", "stage"],
    )
    yield table(
        "bottleneck-trainings",
        "Trainings",
        [_training(one, each) for each in one.trainings],
        ["task", "tuned", "seed"],
    )
    yield table(
        "bottleneck-tuned-samples",
        "Tested samples: how often right, as it is and in all trainings",
        [_sample(one, i) for i in range(len(one.parts.test))],
    )


def figures(one: Closing) -> Iterator[Figure]:
    """Accuracies; stages; attention on the key region; learning curves."""
    yield _accuracies(one)
    if one.before.read:
        yield _stages(one)
    if np.isfinite(one.before.region.value):
        yield _region(one)
    yield _curves(one)


def _state(one: Closing, state: State) -> dict[str, Cell]:
    return {
        "task": one.task,
        "tuned": state.name or AS_IS,
        "samples": len(one.parts.test),
        **_ends("right", state.right),
        "lowest": number(state.range[0]),
        "highest": number(state.range[1]),
        **_ends("gain", state.gain),
        **_ends("closed", state.closed),
        **_ends("blind", state.blind),
        "prior_distance": number(state.prior),
        **_ends("region", state.region),
        **_ends("direct", one.direct),
    }


def _training(one: Closing, each: Training) -> dict[str, Cell]:
    return {
        "task": one.task,
        "tuned": f"{each.component} (shuffled labels)" if each.shuffled else each.component,
        "seed": each.seed,
        "kind": KINDS[each.kind],
        "numbers": each.parameters,
        "epochs": each.epochs,
        "best_epoch": each.best,
        "held_out_loss": number(each.held[each.best]),
        "right": number(float(np.mean(each.after.right))),
    }


def _sample(one: Closing, i: int) -> dict[str, Cell]:
    sample = one.parts.test[i]
    shares: dict[str, Cell] = {}
    for name in one.states:
        own = [each for each in one.trainings if each.component == name and not each.shuffled]
        shares[f"right_{name}"] = number(float(np.mean([each.after.right[i] for each in own])))
    return {"sample": sample.id, "task": one.task, "label": sample.label, **shares}


def _ends(name: str, found: Estimate) -> dict[str, Cell]:
    low, high = number(found.low), number(found.high)
    return {name: number(found.value), f"{name}_low": low, f"{name}_high": high}


def _accuracies(one: Closing) -> Figure:
    states = [one.before, *one.states.values()]
    series = [_bars("with the image", [state.right for state in states])]
    series.append(_bars("blind", [state.blind for state in states]))
    if np.isfinite(one.direct.value):
        series.append(Series(_DIRECT, [number(one.direct.value)] * len(states), dashed=True))
    return Figure(
        slug(f"bottleneck tuned {one.task}"),
        f"{one.task}: accuracy as it is, and with one component tuned",
        "bar",
        x=[AS_IS, *(named(name) for name in one.states)],
        x_label="tuned",
        y_label="accuracy",
        series=series,
        y_range=(0.0, 1.0),
    )


def _bars(name: str, found: list[Estimate]) -> Series:
    return Series(
        name,
        [number(each.value) for each in found],
        [number(each.low) for each in found],
        [number(each.high) for each in found],
    )


def _stages(one: Closing) -> Figure:
    stages = list(one.before.read)
    states = [(AS_IS, one.before), *((named(n), state) for n, state in one.states.items())]
    return Figure(
        slug(f"bottleneck tuned stages {one.task}"),
        f"{one.task}: what probes read on the way to the answer, as it is and tuned",
        "line",
        x=stages,
        x_label="stage",
        y_label="accuracy",
        series=[
            Series(
                name,
                [number(state.read[stage].value) for stage in stages],
                [number(state.read[stage].low) for stage in stages],
                [number(state.read[stage].high) for stage in stages],
                dashed=name == AS_IS,
            )
            for name, state in states
        ],
        y_range=(0.0, 1.0),
    )


def _region(one: Closing) -> Figure:
    states = [one.before, *one.states.values()]
    return Figure(
        slug(f"bottleneck tuned attention {one.task}"),
        f"{one.task}: attention of the answering row on the key region",
        "bar",
        x=[AS_IS, *(named(name) for name in one.states)],
        x_label="tuned",
        y_label="share of attention",
        series=[
            _bars("key region", [state.region for state in states]),
            Series("the same shape anywhere", [number(one.area.value)] * len(states), dashed=True),
        ],
    )


def _curves(one: Closing) -> Figure:
    """The mean held-out loss of each component's trainings; later epochs have fewer of them."""
    longest = 1 + max(each.epochs for each in one.trainings)
    series = []
    for name in one.states:
        own = [each for each in one.trainings if each.component == name and not each.shuffled]
        means = []
        for epoch in range(longest):
            held = [each.held[epoch] for each in own if epoch <= each.epochs]
            means.append(number(float(np.mean(held))) if held else None)
        series.append(Series(named(name), means))
    return Figure(
        slug(f"bottleneck tuned loss {one.task}"),
        f"{one.task}: loss on held-out samples while training",
        "line",
        x=[str(epoch) for epoch in range(longest)],
        x_label="epoch",
        y_label="loss (nats)",
        series=series,
    )
