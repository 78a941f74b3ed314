"""Samples to learn from, held-out ones, and those of the test: by groups."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vlmlens.errors import MissingAnnotation
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._tasks import ALL, rows_by_task


@dataclass(frozen=True, slots=True)
class Divided:
    """Samples of three sets of groups.

    Args:
        train: What is learned from.
        held: Whose loss says when to stop.
        test: What is measured, of all tasks.
        tasks: The tasks that are trained.
    """

    train: Sequence[Sample]
    held: Sequence[Sample]
    test: Sequence[Sample]
    tasks: Sequence[str]


def usable(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with a label, which is one of the choices where there are some."""
    return [one for one in samples if one.label and (not one.choices or one.label in one.choices)]


def divided(
    samples: Sequence[Sample],
    *,
    tasks: Collection[str],
    shares: tuple[float, float, float],
    most: int | None,
    tests: int,
    seed: int,
) -> Divided:
    """Divide groups at random.

    Args:
        samples: All samples.
        tasks: The tasks to train; empty: all.
        shares: Of the groups: to learn from, held out, of the test.
        most: The most samples to learn from, held-out ones included; None: no limit.
        tests: The most samples of the test, for each task.
        seed: Of the draw.

    Raises:
        MissingAnnotation: There is no such task, no label, or there are too few groups.
    """
    known = usable(samples)
    names = [name for name in rows_by_task(known) if not tasks or name in tasks]
    _check_tasks(known, tasks)
    groups = list(dict.fromkeys(one.split_group for one in known if (one.task or ALL) in names))
    order = generator(seed, "tuning", "groups").permutation(len(groups))
    sizes = [max(1, round(share * len(groups))) for share in shares]
    if sum(sizes) > len(groups) + 1 or len(groups) < len(sizes):
        raise MissingAnnotation(
            f"Samples with a label stand in {len(groups)} groups (images), which are too few to "
            "learn from some, hold some out, and test on others.",
            subject="labels",
            hint="Give more labelled images; three are the least, and hundreds are usual.",
        )
    drawn = [groups[i] for i in order]
    test, held = drawn[: sizes[2]], drawn[sizes[2] : sizes[2] + sizes[1]]
    train = drawn[sizes[2] + sizes[1] :][: sizes[0]]
    asked = [one for one in known if (one.task or ALL) in names]
    part = shares[1] / (shares[0] + shares[1])
    return Divided(
        _of_groups(asked, train, None if most is None else most - round(most * part)),
        _of_groups(asked, held, None if most is None else max(1, round(most * part))),
        _first_of_tasks(_of_groups(known, test, None), tests),
        names,
    )


def _of_groups(samples: Sequence[Sample], groups: Sequence[str], most: int | None) -> list[Sample]:
    """The samples of some groups, group after group, until there are enough."""
    rows: dict[str, list[Sample]] = {name: [] for name in groups}
    for one in samples:
        if one.split_group in rows:
            rows[one.split_group].append(one)
    return [one for own in rows.values() for one in own][:most]


def _first_of_tasks(samples: Sequence[Sample], most: int) -> list[Sample]:
    return [samples[i] for rows in rows_by_task(samples).values() for i in rows[:most]]


def _check_tasks(known: Sequence[Sample], tasks: Collection[str]) -> None:
    there = list(rows_by_task(known))
    unknown = [name for name in tasks if name not in there]
    if unknown or not there:
        what = f"the task {unknown[0]!r}" if unknown else "any question"
        raise MissingAnnotation(
            f"No sample of {what} has a label, one of its choices where there are some.",
            subject=unknown[0] if unknown else "labels",
            hint=f"Tasks with labels: {', '.join(there) or 'none'}.",
        )
