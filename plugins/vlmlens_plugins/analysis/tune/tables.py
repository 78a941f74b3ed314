"""Tables and figures of a tuning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vlmlens.results import Cell, Figure, Series, Table
from vlmlens_plugins.analysis._estimates import Estimate
from vlmlens_plugins.analysis._sweeps.scores import number
from vlmlens_plugins.analysis._tuning.dividing import Divided
from vlmlens_plugins.analysis._tuning.gains import Gain
from vlmlens_plugins.analysis._tuning.measuring import Answers
from vlmlens_plugins.analysis.tune.trainings import Tuning

_LABELS = ("given", "shuffled")


def tables(
    gains: Sequence[Gain],
    p: Sequence[float],
    trained: Sequence[bool],
    samples: Divided,
    before: Answers,
    tunings: Sequence[Tuning],
    control: Tuning | None,
) -> list[Table]:
    """By task, by epoch, and by sample.

    Args:
        gains: By task.
        p: Their corrected p-values.
        trained: Whether each task was trained.
        samples: With those of the test.
        before: Answers of the model as it was.
        tunings: One for each seed.
        control: That with shuffled labels.
    """
    return [
        _by_task(gains, p, trained),
        _by_epoch([*tunings, *([control] if control else [])]),
        _by_sample(samples, before, tunings[0]),
    ]


def figures(tunings: Sequence[Tuning], control: Tuning | None) -> list[Figure]:
    """The learning curve.

    Args:
        tunings: One for each seed.
        control: That with shuffled labels.
    """
    longest = max(len(each.fitted.curve) for each in [*tunings, *([control] if control else [])])
    series = [one for each in tunings[:1] for one in _lines(each, longest)]
    if control is not None:
        series += [one for one in _lines(control, longest) if one.dashed]
    return [
        Figure(
            "curve",
            "The loss of the labels while the part is trained",
            "line",
            [str(i) for i in range(longest)],
            x_label="epoch",
            y_label="loss (nats per token)",
            series=series,
        )
    ]


def _lines(one: Tuning, longest: int) -> Iterator[Series]:
    def padded(values: Sequence[float | None]) -> list[float | None]:
        return [*values, *[None] * (longest - len(values))]

    kind = ", shuffled labels" if one.shuffled else ""
    curve = one.fitted.curve
    yield Series(f"training{kind}", padded([each.train for each in curve]))
    yield Series(f"held out{kind}", padded([each.held for each in curve]), dashed=one.shuffled)


def _by_task(gains: Sequence[Gain], p: Sequence[float], trained: Sequence[bool]) -> Table:
    columns: dict[str, Sequence[Cell]] = {
        "task": [one.task for one in gains],
        "trained": list(trained),
        "samples": [one.samples for one in gains],
        "groups": [one.groups for one in gains],
    }
    for name in (
        "before", "after", "change", "control", "credit", "control_credit", "beyond",
        "blind_before", "blind_after",
    ):  # fmt: skip
        columns |= _estimates(name, [getattr(one, name) for one in gains])
    return Table("accuracy", "Accuracy before and after", {**columns, "p": list(p)})


def _estimates(name: str, found: Sequence[Estimate | None]) -> dict[str, Sequence[Cell]]:
    if all(one is None for one in found):
        return {}
    return {
        name: [number(one.value) if one else None for one in found],
        f"{name}_low": [number(one.low) if one else None for one in found],
        f"{name}_high": [number(one.high) if one else None for one in found],
    }


def _by_epoch(tunings: Sequence[Tuning]) -> Table:
    rows = [(one, epoch) for one in tunings for epoch in one.fitted.curve]
    return Table(
        "curve",
        "Losses by epoch (nats per token)",
        {
            "labels": [_LABELS[one.shuffled] for one, _ in rows],
            "seed": [one.seed for one, _ in rows],
            "epoch": [epoch.number for _, epoch in rows],
            "train": [epoch.train for _, epoch in rows],
            "held_out": [epoch.held for _, epoch in rows],
            "best": [epoch.number == one.fitted.best for one, epoch in rows],
        },
        ("labels", "seed", "epoch"),
    )


def _by_sample(samples: Divided, before: Answers, tuning: Tuning) -> Table:
    return Table(
        "answers",
        "Answers before and after",
        {
            "sample": [one.id for one in samples.test],
            "task": [one.task for one in samples.test],
            "label": [one.label for one in samples.test],
            "before": list(before.texts),
            "after": list(tuning.answers.texts),
            "right_before": [number(value) for value in before.right],
            "right_after": [number(value) for value in tuning.answers.right],
        },
    )
