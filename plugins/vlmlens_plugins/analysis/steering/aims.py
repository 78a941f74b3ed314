"""What is steered towards, on which samples; samples to learn from and to test on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vlmlens.errors import MissingAnnotation, SpecError, did_you_mean
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._sweeps import Item
from vlmlens_plugins.analysis._tasks import rows_by_task
from vlmlens_plugins.analysis.steering.options import SteeringOptions, text_of

_LEAST = 2


@dataclass(frozen=True, slots=True)
class Aim:
    """What a direction is about.

    Args:
        task: The task that is steered.
        attribute: "label" or the name of an attribute.
        towards: Its value that is steered towards.
        away: The values that are steered from; empty: all others.
        answer: The answer that should become likelier.
    """

    task: str
    attribute: str
    towards: str
    away: tuple[str, ...]
    answer: str

    def side(self, sample: Sample) -> bool | None:
        """Whether a sample is on the side that is steered towards; None: on neither."""
        value = value_of(sample, self.attribute)
        if value is None or value == self.towards:
            return None if value is None else True
        return False if not self.away or value in self.away else None


@dataclass(frozen=True, slots=True)
class Parts:
    """Samples to learn from and to test on. No group of samples stands in two of them.

    Args:
        learn: Samples to learn from.
        positive: Per such sample, whether it is on the side that is steered towards.
        wanted: Questions whose answer should move, with (the answer, the right answer).
        untouched: Questions of other tasks, with (the right answer, another one).
        alone: How many of the others have no second answer to compare with, and are left out.
        prefix: The tokens that all steered questions' answers begin with.
    """

    learn: Sequence[Sample]
    positive: Sequence[bool]
    wanted: Sequence[Item]
    untouched: Sequence[Item]
    alone: int = 0
    prefix: Sequence[int] = ()


def value_of(sample: Sample, attribute: str) -> str | None:
    """The value of the label or of an attribute, as text; truth values are yes and no."""
    found = sample.label if attribute == "label" else sample.attributes.get(attribute)
    return None if found is None else str(text_of(found))


def mark_of(group: str) -> str:
    """A short digest of a group's name, by which a file knows what was learnt from."""
    return hashlib.sha256(group.encode()).hexdigest()[:12]


def chosen_aim(samples: Sequence[Sample], options: SteeringOptions) -> Aim:
    """What the options and the samples say is steered towards.

    Raises:
        MissingAnnotation: The samples do not have two sides, or no question has such an answer.
        SpecError: There is no such task.
    """
    tasks = rows_by_task(samples)
    if options.task is not None and options.task not in tasks:
        raise SpecError(
            f"The run has no task {options.task!r}.",
            subject="task",
            hint=did_you_mean(options.task, tasks) or f"Its tasks: {', '.join(tasks)}.",
        )
    name = options.attribute
    for task in tasks if options.task is None else [options.task]:
        members = [samples[i] for i in tasks[task]]
        towards = options.towards or _most_frequent(members, name)
        if towards is None:
            continue
        answer = options.answer or towards
        aim = Aim(task, name, towards, tuple(options.away), answer)
        if {True, False} <= {aim.side(sample) for sample in members}:
            _check_answer(aim, members)
            return aim
    said = f" {options.towards!r}" if options.towards else ""
    values = Counter(filter(None, (value_of(sample, name) for sample in samples)))
    some = ", ".join(f"{value} ({n})" for value, n in values.most_common(8))
    raise MissingAnnotation(
        f"Steering needs samples of one task with the {name}{said} and with another one.",
        subject=name,
        hint=f"The values of {name}: {some}." if some else f"No sample has the attribute {name!r}.",
    )


def split(
    samples: Sequence[Sample],
    aim: Aim,
    options: SteeringOptions,
    seed: int,
    known: Collection[str] | None = None,
) -> Parts:
    """Half of the groups to learn from, the others to test on.

    Groups with a sample of `towards` are divided by themselves, so that both halves have some.

    Args:
        samples: All samples of the run.
        aim: What is steered.
        options: How many samples to use.
        seed: Of the division.
        known: Marks of groups from which a direction was learnt already: all others are to test
            on. None: there is no direction yet.

    Raises:
        MissingAnnotation: There are too few samples on one side, or none to test on.
    """
    tasks = rows_by_task(samples)
    members = [samples[i] for i in tasks[aim.task]]
    learning = _learning_groups(members, aim, seed) if known is None else set()

    def tested(sample: Sample) -> bool:
        if known is None:
            return sample.split_group not in learning
        return mark_of(sample.split_group) not in known

    learn = [] if known is not None else [s for s in members if s.split_group in learning]
    kept = [
        sample
        for side in (True, False)
        for sample in [s for s in learn if aim.side(s) is side][: max(2, options.learn // 2)]
    ]
    positive = [aim.side(sample) is True for sample in kept]
    wanted = [
        Item(sample, (aim.answer, sample.label), group=sample.split_group, task=aim.task)
        for sample in members
        if aim.side(sample) is False and sample.label not in (None, aim.answer) and tested(sample)
    ]  # fmt: skip
    untouched, alone = [], 0
    for task, numbers in tasks.items():
        if task == aim.task:
            continue
        others = [samples[i] for i in numbers if samples[i].label is not None]
        items = _untouched(task, others, [s for s in others if tested(s)][: options.samples])
        untouched += [item for item in items if len(item.answers) > 1]
        alone += sum(len(item.answers) == 1 for item in items)
    if known is None:
        _check_sides(aim, positive)
    if not wanted:
        raise MissingAnnotation(
            f"No sample of the task {aim.task!r} is left to test on: none whose right answer is "
            f"another one than {aim.answer!r}, in a group that nothing was learnt from.",
            subject="samples",
            hint="Give more samples, in more groups. By default samples on one image are a group.",
        )
    return Parts(kept, positive, wanted[: options.samples], untouched, alone)


def _most_frequent(members: Sequence[Sample], name: str) -> str | None:
    corrupted = [s for s in members if s.attributes.get("role") == "corrupted"]
    values = Counter(filter(None, (value_of(s, name) for s in corrupted or members)))
    return min(values, key=lambda value: (-values[value], value)) if values else None


def _check_answer(aim: Aim, members: Sequence[Sample]) -> None:
    known = {sample.label for sample in members if sample.label is not None}
    known |= {choice for sample in members for choice in sample.choices}
    if aim.answer not in known:
        raise MissingAnnotation(
            f"No question of the task {aim.task!r} has the answer {aim.answer!r}.",
            subject="answer",
            hint=f"Say with `answer` which should become likelier: {', '.join(sorted(known)[:8])}.",
        )


def _check_sides(aim: Aim, positive: Sequence[bool]) -> None:
    for side, words in ((True, repr(aim.towards)), (False, "other values")):
        count = sum(each is side for each in positive)
        if count < _LEAST:
            raise MissingAnnotation(
                f"In the half of the groups that a direction is learnt from, {count} samples of "
                f"the task {aim.task!r} have {words} as {aim.attribute}; at least {_LEAST} are "
                "needed.",
                subject=aim.attribute,
                hint="Give more samples, or steer towards a more frequent value.",
            )


def _learning_groups(members: Sequence[Sample], aim: Aim, seed: int) -> set[str]:
    rng = generator(seed, "steering", "split")
    having = {sample.split_group for sample in members if aim.side(sample) is True}
    others = {sample.split_group for sample in members} - having
    found: set[str] = set()
    for names in (sorted(having), sorted(others)):
        order = rng.permutation(len(names))
        found |= {names[i] for i in order[: (len(names) + 1) // 2]}
    return found


def _untouched(task: str, all_of_task: Sequence[Sample], shown: Sequence[Sample]) -> list[Item]:
    """The right answer of each question and the first other one; or the right one alone."""
    labels = sorted({str(sample.label) for sample in all_of_task})
    found = []
    for sample in shown:
        label = str(sample.label)
        other = [each for each in (*sample.choices, *labels) if each != label][:1]
        found.append(Item(sample, (label, *other), group=sample.split_group, task=task))
    return found
