"""Targets: what is predicted, a class or a number for each sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.errors import MissingAnnotation, did_you_mean
from vlmlens.samples import Sample

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
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    y: Labels
    groups: Ints
    read: Read
    learned: int
    task: str | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """Sample ids."""
        return tuple(sample.id for sample in self.samples)

    @property
    def numbers(self) -> bool:
        """Whether numbers are read and not classes."""
        return not self.classes

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return int(self.groups.max()) + 1


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
            chosen = _of_task(samples, task) if at else samples
            _check_attribute(name, chosen, samples)
            read = _reader(name, task if at else None)
            targets.append(_target(spec, chosen, read, rule, warnings))
    return targets, warnings


def _label_targets(samples: Sequence[Sample], rule: _Rule, warnings: list[str]) -> list[Target]:
    labelled = [sample for sample in samples if sample.label is not None]
    if not labelled:
        raise MissingAnnotation(
            "No sample has a label to probe for.",
            subject="label",
            hint="Give the table a label column, sort the images into sub-folders named by label, "
            "or probe for an attribute: --set analysis.probe.targets=[NAME].",
        )
    targets: list[Target] = []
    failed: list[MissingAnnotation] = []
    for task in dict.fromkeys(sample.task for sample in labelled):
        chosen = [sample for sample in labelled if sample.task == task]
        found: list[str] = []
        try:
            target = _target(task or "label", chosen, _label_of(task), rule, found)
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
    read = [(sample, value) for sample in others if (value := target.read(sample)) is not None]
    if target.numbers:
        known = [(sample, n) for sample, value in read if (n := _number(value)) is not None]
    else:
        known = [(s, target.classes.index(value)) for s, value in read if value in target.classes]
    if not known:
        raise MissingAnnotation(
            f"No sample of the other run has {target.name!r} with a class that this run has.",
            subject=target.name,
            hint="Choose a run with the same tasks, labels and attributes.",
        )
    samples = (*target.samples, *(sample for sample, _ in known))
    y = np.concatenate([target.y, np.array([value for _, value in known], target.y.dtype)])
    return replace(target, samples=samples, y=y, groups=_numbered(samples))


def numbered(names: Sequence[str]) -> Ints:
    """int64 `[n]`: the names as numbers from 0, in order of appearance."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Rule:
    """What makes a target fit to be probed."""

    folds: int
    least: int
    numbers: bool


def _target(
    name: str, samples: Sequence[Sample], read: Read, rule: _Rule, warnings: list[str]
) -> Target:
    known = [(sample, value) for sample in samples if (value := read(sample)) is not None]
    if rule.numbers:
        classes: list[str] = []
        kept, y = _numbers(name, known, rule, warnings)
    else:
        classes, kept, y = _classes(name, known, rule, warnings, len(samples))
    groups = _numbered(kept)
    count = int(groups.max()) + 1
    if count < rule.folds:
        raise MissingAnnotation(
            f"{name!r} has {count} groups, fewer than the {rule.folds} folds.",
            subject=name,
            hint=f"Set folds to at most {count}, or give samples a group column.",
        )
    return Target(name, tuple(kept), tuple(classes), y, groups, read, len(kept))


def _numbered(samples: Sequence[Sample]) -> Ints:
    return numbered([sample.split_group for sample in samples])


def _classes(
    name: str, known: Sequence[tuple[Sample, str]], rule: _Rule, warnings: list[str], total: int
) -> tuple[list[str], list[Sample], Labels]:
    kept_classes = _enough(name, known, rule.least, warnings)
    known = [(sample, value) for sample, value in known if value in kept_classes]
    classes = sorted(kept_classes)
    if len(classes) < 2:
        raise MissingAnnotation(
            f"{name}: too few samples ({total}). A probe needs 2 classes with at least "
            f"{rule.least} samples each, in several groups; there is "
            + (f"only {classes[0]!r}." if classes else "none."),
            subject=name,
            hint="Use more samples, or lower the number: --set analysis.probe.min_per_class=5. For "
            "numbers: --set analysis.probe.model=ridge.",
        )
    y = np.array([classes.index(value) for _, value in known], dtype=np.int64)
    return classes, [sample for sample, _ in known], y


def _numbers(
    name: str, known: Sequence[tuple[Sample, str]], rule: _Rule, warnings: list[str]
) -> tuple[list[Sample], Labels]:
    pairs = [(sample, y) for sample, value in known if (y := _number(value)) is not None]
    different = len({y for _, y in pairs})
    if different < 3 or len(pairs) < 2 * rule.least:
        raise MissingAnnotation(
            f"{name!r} has {len(pairs)} numbers, {different} of them different; ridge regression "
            f"needs at least {2 * rule.least} numbers, 3 of them different.",
            subject=name,
            hint="Probe for an attribute with numbers, or use model: logistic for classes.",
        )
    if len(pairs) < len(known):
        warnings.append(f"{name}: {len(known) - len(pairs)} samples left out (not a number).")
    return [sample for sample, _ in pairs], np.array([y for _, y in pairs], dtype=np.float64)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if isfinite(number) else None


def _enough(
    name: str, known: Sequence[tuple[Sample, str]], least: int, warnings: list[str]
) -> set[str]:
    """The classes with at least `least` samples, in at least two groups."""
    counts = Counter(value for _, value in known)
    groups: dict[str, set[str]] = {}
    for sample, value in known:
        groups.setdefault(value, set()).add(sample.split_group)
    rare = sorted(value for value, count in counts.items() if count < least)
    single = sorted(v for v in counts if v not in rare and len(groups[v]) < 2)
    if rare:
        warnings.append(f"{name}: classes with fewer than {least} samples left out: {_some(rare)}.")
    if single:
        warnings.append(
            f"{name}: classes with all samples in one group left out, because they cannot be both "
            f"trained and tested: {_some(single)}."
        )
    return set(counts) - set(rare) - set(single)


def _of_task(samples: Sequence[Sample], task: str) -> list[Sample]:
    chosen = [sample for sample in samples if sample.task == task]
    if not chosen:
        tasks = sorted({sample.task for sample in samples if sample.task is not None})
        raise MissingAnnotation(
            f"No sample has the task {task!r}.",
            subject=task,
            hint=did_you_mean(task, tasks) or f"Tasks: {', '.join(tasks) or 'none'}.",
        )
    return chosen


def _check_attribute(name: str, chosen: Sequence[Sample], samples: Sequence[Sample]) -> None:
    if any(sample.attributes.get(name) is not None for sample in chosen):
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
