"""What is probed for: a target gives some samples a class each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.errors import MissingAnnotation, did_you_mean
from vlmlens.samples import Sample

Ints = npt.NDArray[np.int64]
Read = Callable[[Sample], str | None]


@dataclass(frozen=True, slots=True)
class Target:
    """A classification problem over some of the run's samples.

    Args:
        name: For people: a task, an attribute, or `attribute@task`.
        ids: Sample ids, in the run's order.
        classes: Class names, sorted.
        y: int64 `[n]`, class numbers.
        groups: int64 `[n]`, group numbers from 0; samples of one group are never split.
    """

    name: str
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    y: Ints
    groups: Ints

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return int(self.groups.max()) + 1


def find_targets(
    specs: Sequence[str], samples: Sequence[Sample], *, folds: int, min_per_class: int
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

    Raises:
        MissingAnnotation: No labels, an unknown attribute or task, one class only, or fewer groups
            than folds.
    """
    least = max(folds, min_per_class)
    targets: list[Target] = []
    warnings: list[str] = []
    for spec in dict.fromkeys(specs):
        if spec == "label":
            targets += _label_targets(samples, folds, least, warnings)
        else:
            name, at, task = spec.partition("@")
            chosen = _of_task(samples, task) if at else samples
            _check_attribute(name, chosen, samples)
            targets.append(_target(spec, chosen, _reader(name), folds, least, warnings))
    return targets, warnings


def _label_targets(
    samples: Sequence[Sample], folds: int, least: int, warnings: list[str]
) -> list[Target]:
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
            targets.append(_target(task or "label", chosen, _label, folds, least, found))
            warnings += found
        except MissingAnnotation as error:
            failed.append(error)
    if not targets:
        raise failed[0]
    warnings += [f"Not probed: {error.message}" for error in failed]
    return targets


def _target(
    name: str, samples: Sequence[Sample], read: Read, folds: int, least: int, warnings: list[str]
) -> Target:
    known = [(sample, value) for sample in samples if (value := read(sample)) is not None]
    kept_classes = _enough(name, known, least, warnings)
    known = [(sample, value) for sample, value in known if value in kept_classes]
    classes = sorted(kept_classes)
    if len(classes) < 2:
        raise MissingAnnotation(
            f"{name!r} has {len(classes)} class{'es' * (not classes)} with at least {least} "
            f"samples in several groups among {len(samples)} samples; a probe needs two.",
            subject=name,
            hint="Use more samples, lower min_per_class, or probe for something else.",
        )
    group_names = [sample.split_group for sample, _ in known]
    numbers = {group: i for i, group in enumerate(dict.fromkeys(group_names))}
    if len(numbers) < folds:
        raise MissingAnnotation(
            f"{name!r} has {len(numbers)} groups, fewer than the {folds} folds.",
            subject=name,
            hint=f"Set folds to at most {len(numbers)}, or give samples a group column.",
        )
    return Target(
        name,
        tuple(sample.id for sample, _ in known),
        tuple(classes),
        np.array([classes.index(value) for _, value in known], dtype=np.int64),
        np.array([numbers[group] for group in group_names], dtype=np.int64),
    )


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
        warnings.append(f"{name}: left out, with fewer than {least} samples: {_some(rare)}.")
    if single:
        warnings.append(
            f"{name}: left out, all in one group, so never both learned and tested: "
            f"{_some(single)}."
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


def _label(sample: Sample) -> str | None:
    return sample.label


def _reader(name: str) -> Read:
    def read(sample: Sample) -> str | None:
        value = sample.attributes.get(name)
        return None if value is None else str(value)

    return read


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
