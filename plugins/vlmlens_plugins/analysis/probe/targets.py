"""Targets: what is predicted, a class or a number for each sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.errors import MissingAnnotation, did_you_mean
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.probe.chosen_samples import ChosenSamples, once

Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[Any]
Read = Callable[[Sample], str | None]


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be read, over some of the run's samples.

    Args:
        name: For people: a task, an attribute, or `attribute@task`.
        samples: In the run's order; those of another run that is tested on come last.
        classes: Class names, sorted; none for numbers.
        y: `[n]`, int64 class numbers or float64 numbers.
        groups: int64 `[n]`, group numbers from 0; samples of one group are never split.
        task: The task whose labels these are; None for an attribute.
        learned: How many samples are the run's own; the others are another run's.
        read: The class or number of a sample, as text; None where it has none.
    """

    name: str
    samples: Sequence[Sample]
    classes: tuple[str, ...]
    y: Labels
    groups: Ints
    read: Read
    learned: int
    task: str | None = None

    @property
    def ids(self) -> Sequence[str]:
        """Sample ids."""
        if isinstance(self.samples, ChosenSamples):
            return self.samples.ids
        return tuple(sample.id for sample in self.samples)

    @property
    def numbers(self) -> bool:
        """Whether numbers are read and not classes."""
        return not self.classes


def find_targets(
    specs: Sequence[str],
    samples: Sequence[Sample],
    *,
    folds: int,
    min_per_class: int,
    numbers: bool = False,
) -> tuple[list[Target], list[str]]:
    """The targets that a user asked for, and what was left out of them.

    `label` stands for one target per task, `NAME` for an attribute over all samples, `NAME@TASK`
    for an attribute on the samples of one task. A task whose labels cannot be probed is left out
    with a warning as long as another one can be.

    Args:
        specs: What the user asked for.
        samples: The run's samples.
        folds: Folds of the cross-validation.
        min_per_class: Classes with fewer samples (or fewer than `folds`) are left out.
        numbers: Read numbers instead of classes.

    Raises:
        MissingAnnotation: No labels, an unknown attribute or task, one class only, or fewer groups
            than folds.
    """
    rule = _Rule(folds, max(folds, min_per_class), numbers)
    targets: list[Target] = []
    warnings: list[str] = []
    for spec in dict.fromkeys(specs):
        if spec == "label":
            targets += _label_targets(samples, rule, warnings)
        else:
            name, at, task = spec.partition("@")
            read = _reader(name, task if at else None)
            values = once(map(read, samples))
            total = _of_task(samples, task) if at else len(samples)
            _check_attribute(name, values, samples)
            known = _Known(samples, values, _given(values), read, total)
            targets.append(_target(spec, known, rule, warnings))
    return targets, warnings


@dataclass(frozen=True, slots=True)
class _Known:
    """Samples that have a class or a number.

    Args:
        samples: All samples.
        values: The text of each.
        numbers: int64 `[k]`, which of them have one that counts.
        read: Reads a sample's.
        total: How many samples could have one.
    """

    samples: Sequence[Sample]
    values: Sequence[str | None]
    numbers: Ints
    read: Read
    total: int

    @property
    def texts(self) -> list[str]:
        """Of the samples that have one."""
        return [str(self.values[i]) for i in self.numbers.tolist()]


def _given(values: Sequence[str | None]) -> Ints:
    return np.flatnonzero([value is not None for value in values])


def _label_targets(samples: Sequence[Sample], rule: _Rule, warnings: list[str]) -> list[Target]:
    labels = once(sample.label for sample in samples)
    tasks = once(sample.task for sample in samples)
    labelled = _given(labels)
    if not len(labelled):
        raise MissingAnnotation(
            "No sample has a label to probe for.",
            subject="label",
            hint="Give the table a label column, sort the images into sub-folders named by label, "
            "or probe for an attribute: --set analysis.probe.targets=[NAME].",
        )
    targets: list[Target] = []
    failed: list[MissingAnnotation] = []
    for task in dict.fromkeys(tasks[i] for i in labelled.tolist()):
        own = labelled[[tasks[i] == task for i in labelled.tolist()]]
        known = _Known(samples, labels, own, _label_of(task), len(own))
        found: list[str] = []
        try:
            target = _target(task or "label", known, rule, found)
            targets.append(replace(target, task=task or "label"))
            warnings += found
        except MissingAnnotation as error:
            failed.append(error)
    if not targets:
        raise failed[0]
    warnings += [f"Not probed: {error.message}" for error in failed]
    return targets


def joined(target: Target, others: Sequence[Sample]) -> Target:
    """The target with another run's samples to test on; groups of equal name are one.

    Raises:
        MissingAnnotation: No other sample has it, with classes that this run has.
    """
    values = once(map(target.read, others))
    numbers = _given(values)
    texts = [str(values[i]) for i in numbers.tolist()]
    if target.numbers:
        known = [_number(text) for text in texts]
    else:
        places = {name: i for i, name in enumerate(target.classes)}
        known = [places.get(text) for text in texts]
    kept = [i for i, value in enumerate(known) if value is not None]
    if not kept:
        raise MissingAnnotation(
            f"No sample of the other run has {target.name!r} with a class that this run has.",
            subject=target.name,
            hint="Choose a run with the same tasks, labels and attributes.",
        )
    samples = _chosen(target.samples).joined(ChosenSamples((others, numbers[kept])))
    more = np.array([known[i] for i in kept], target.y.dtype)
    y = np.concatenate([target.y, more])
    return replace(target, samples=samples, y=y, groups=_numbered(samples))


def _chosen(samples: Sequence[Sample]) -> ChosenSamples:
    if isinstance(samples, ChosenSamples):
        return samples
    return ChosenSamples((samples, np.arange(len(samples))))


def numbered(names: Iterable[str]) -> Ints:
    """int64 `[n]`: the names as numbers from 0, in order of appearance."""
    numbers: dict[str, int] = {}
    return np.fromiter((numbers.setdefault(name, len(numbers)) for name in names), np.int64)


@dataclass(frozen=True, slots=True)
class _Rule:
    """What makes a target fit to be probed."""

    folds: int
    least: int
    numbers: bool


def _target(name: str, known: _Known, rule: _Rule, warnings: list[str]) -> Target:
    groups = _numbered(ChosenSamples((known.samples, known.numbers)))
    if rule.numbers:
        classes: list[str] = []
        kept, y = _numbers(name, known, rule, warnings)
    else:
        classes, kept, y = _classes(name, known, groups, rule, warnings)
    samples, groups = ChosenSamples((known.samples, known.numbers[kept])), numbered(groups[kept])
    count = int(groups.max()) + 1
    if count < rule.folds:
        raise MissingAnnotation(
            f"{name!r} has {count} groups, fewer than the {rule.folds} folds.",
            subject=name,
            hint=f"Set folds to at most {count}, or give samples a group column.",
        )
    return Target(name, samples, tuple(classes), y, groups, known.read, len(samples))


def _numbered(samples: Iterable[Sample]) -> Ints:
    return numbered(sample.split_group for sample in samples)


def _classes(
    name: str, known: _Known, groups: Ints, rule: _Rule, warnings: list[str]
) -> tuple[list[str], Ints, Labels]:
    """Class names, which of the known samples have one of them `[k]`, and its numbers `[k]`."""
    texts = known.texts
    classes = sorted(_enough(name, texts, groups, rule.least, warnings))
    if len(classes) < 2:
        raise MissingAnnotation(
            f"{name}: too few samples ({known.total}). A probe needs 2 classes with at least "
            f"{rule.least} samples each, in several groups; there is "
            + (f"only {classes[0]!r}." if classes else "none."),
            subject=name,
            hint="Use more samples, or lower the number: --set analysis.probe.min_per_class=5. For "
            "numbers: --set analysis.probe.model=ridge.",
        )
    places = {value: i for i, value in enumerate(classes)}
    y = np.array([places.get(text, -1) for text in texts], dtype=np.int64)
    kept = np.flatnonzero(y >= 0)
    return classes, kept, y[kept]


def _numbers(name: str, known: _Known, rule: _Rule, warnings: list[str]) -> tuple[Ints, Labels]:
    found = [_number(text) for text in known.texts]
    kept = np.array([i for i, y in enumerate(found) if y is not None], np.int64)
    y = np.array([y for y in found if y is not None], np.float64)
    different = len(np.unique(y))
    if different < 3 or len(y) < 2 * rule.least:
        raise MissingAnnotation(
            f"{name!r} has {len(y)} numbers, {different} of them different; ridge regression "
            f"needs at least {2 * rule.least} numbers, 3 of them different.",
            subject=name,
            hint="Probe for an attribute with numbers, or use model: logistic for classes.",
        )
    if len(y) < len(found):
        warnings.append(f"{name}: {len(found) - len(y)} samples left out (not a number).")
    return kept, y


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if isfinite(number) else None


def _enough(
    name: str, texts: Sequence[str], groups: Ints, least: int, warnings: list[str]
) -> set[str]:
    """The classes with at least `least` samples, in at least two groups."""
    counts = Counter(texts)
    first = dict(zip(reversed(texts), groups[::-1].tolist(), strict=True))
    several = {t for t, group in zip(texts, groups.tolist(), strict=True) if first[t] != group}
    rare = sorted(value for value, count in counts.items() if count < least)
    single = sorted(v for v in counts if v not in rare and v not in several)
    if rare:
        warnings.append(f"{name}: classes with fewer than {least} samples left out: {_some(rare)}.")
    if single:
        warnings.append(
            f"{name}: classes with all samples in one group left out, because they cannot be both "
            f"trained and tested: {_some(single)}."
        )
    return set(counts) - set(rare) - set(single)


def _of_task(samples: Sequence[Sample], task: str) -> int:
    """How many samples have the task."""
    tasks = Counter(sample.task for sample in samples)
    if not tasks[task]:
        names = sorted(name for name in tasks if name is not None)
        raise MissingAnnotation(
            f"No sample has the task {task!r}.",
            subject=task,
            hint=did_you_mean(task, names) or f"Tasks: {', '.join(names) or 'none'}.",
        )
    return tasks[task]


def _check_attribute(name: str, values: Sequence[str | None], samples: Sequence[Sample]) -> None:
    if any(value is not None for value in values):
        return
    known = sorted({key for sample in samples for key in sample.attributes})
    raise MissingAnnotation(
        f"No sample has an attribute {name!r} to probe for.",
        subject=name,
        hint=did_you_mean(name, ["label", *known])
        or f"Known: {', '.join(['label', *known])}; NAME@TASK for one task.",
    )


def _label_of(task: str | None) -> Read:
    def read(sample: Sample) -> str | None:
        return sample.label if sample.task == task else None

    return read


def _reader(name: str, task: str | None) -> Read:
    def read(sample: Sample) -> str | None:
        value = sample.attributes.get(name)
        return None if value is None or task not in (None, sample.task) else str(value)

    return read


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
