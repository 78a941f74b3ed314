"""Which samples are of which concept: labels of a task, values of an attribute, names of images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np
import numpy.typing as npt

from vlmlens.abc import ColumnStore
from vlmlens.errors import MissingAnnotation, did_you_mean
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._tasks import ALL, rows_by_task
from vlmlens_plugins.analysis.concepts.options import IMAGE_NAME, LABEL
from vlmlens_plugins.analysis.probe.targets import numbered
from vlmlens_plugins.analysis.steering.aims import value_of

Ints = npt.NDArray[np.int64]
_MOST, _LEAST = 20, 3
_NUMBERED = re.compile(r"(.+)_\d+")


@dataclass(frozen=True, slots=True)
class ConceptSet:
    """Concepts that exclude each other, and samples of them.

    Args:
        name: For people: a task, an attribute, or `attribute@task`.
        task: The task whose samples these are; "" for all.
        attribute: `label`, `image-name`, or the attribute's name.
        concepts: Names of the concepts, sorted.
        samples: The samples.
        y: int64 `[samples]`, the number of each one's concept.
        groups: int64 `[samples]`, numbers of groups from 0.
        left_out: Concepts that are not measured, because they have too few samples or groups.
    """

    name: str
    task: str
    attribute: str
    concepts: tuple[str, ...]
    samples: tuple[Sample, ...]
    y: Ints
    groups: Ints
    left_out: tuple[str, ...] = ()

    @property
    def ids(self) -> list[str]:
        """Sample ids."""
        return [sample.id for sample in self.samples]

    def counts(self) -> Ints:
        """int64 `[concepts]`: samples of each."""
        return np.bincount(self.y, minlength=len(self.concepts))

    def take(self, rows: Sequence[int] | Ints) -> ConceptSet:
        """Some of its samples."""
        samples = tuple(self.samples[int(i)] for i in rows)
        groups = numbered([sample.split_group for sample in samples])
        return replace(self, samples=samples, y=self.y[rows], groups=groups)

    def drawn(self, most: int, seed: int) -> ConceptSet:
        """At most so many samples, drawn at random and kept in order."""
        return self if len(self.samples) <= most else self.take(self.chosen(most, seed))

    def chosen(self, most: int, seed: int) -> Ints:
        """Numbers of at most so many samples, drawn at random, rising."""
        order = generator(seed, "concepts", "samples", self.name).permutation(len(self.samples))
        return np.sort(order[:most])


def find_sets(
    by: Sequence[str], samples: Sequence[Sample], images: Mapping[str, str] | None = None
) -> list[ConceptSet]:
    """The sets of concepts that a user asked for.

    Args:
        by: `label`, `NAME`, `NAME@TASK` or `image-name`.
        samples: The run's samples.
        images: Names of image files by sample id, of samples without them.

    Raises:
        MissingAnnotation: An attribute or task is unknown, or no set has two concepts.
    """
    found = [
        _set(name, task, attribute, chosen, _reader(attribute, images or {}))
        for name, task, attribute, chosen in _all_chosen(by, samples)
    ]
    usable = [each for each in found if len(each.concepts) > 1]
    if not usable:
        raise MissingAnnotation(
            f"No two values of {', '.join(by)} have {_LEAST} samples each, in two groups or more.",
            subject="by",
            hint="Name an attribute with several values (--set analysis.concepts.by=NAME), or give "
            "more samples.",
        )
    return usable


def named_samples(
    by: Sequence[str], samples: Sequence[Sample], images: Mapping[str, str]
) -> dict[str, list[tuple[Sample, str]]]:
    """By set, every sample with a concept, however rare; sets without one are left out.

    Raises:
        MissingAnnotation: No sample has a concept.
    """
    found: dict[str, list[tuple[Sample, str]]] = {}
    for name, _, attribute, chosen in _all_chosen(by, samples):
        read = _reader(attribute, images)
        known = [(sample, value) for sample in chosen if (value := read(sample)) is not None]
        if known:
            found[name] = known
    if not found:
        raise MissingAnnotation(
            f"No sample has a concept by {', '.join(by)}.",
            subject="by",
            hint="Name an attribute (--set analysis.concepts.by=NAME), or image-name.",
        )
    return found


def stored_images(store: ColumnStore) -> dict[str, str]:
    """The first image's file by sample id, as a store without a run knows it."""
    found = {sample.id: sample.images[0] for sample in store.samples() if sample.images}
    return {name: image for name, image in found.items() if isinstance(image, str)}


def image_name(path: object) -> str | None:
    """The concept in an image's file name, as VLM-Lens reads it; None if there is no name.

    >>> image_name("images/dark_red_01.jpg"), image_name("cube.png")
    ('dark_red', 'cube')
    """
    stem = PurePath(path.replace("\\", "/")).stem if isinstance(path, str) else ""
    match = _NUMBERED.fullmatch(stem)
    return (match[1] if match else stem) or None


def _all_chosen(
    by: Sequence[str], samples: Sequence[Sample]
) -> list[tuple[str, str, str, Sequence[Sample]]]:
    """As `_chosen`, of several texts; an attribute named like a task is told apart."""
    found: list[tuple[str, str, str, Sequence[Sample]]] = []
    for spec in dict.fromkeys(by):
        taken = {name for name, *_ in found}
        for name, task, attribute, chosen in _chosen(spec, samples):
            kind = "labels" if attribute == LABEL else "attribute"
            own = f"{name} ({kind})" if name in taken else name
            found.append((own, task, attribute, chosen))
    return found


def _chosen(spec: str, samples: Sequence[Sample]) -> list[tuple[str, str, str, Sequence[Sample]]]:
    """(name, task, attribute, samples) of each set that a text means."""
    if spec == LABEL:
        tasks = rows_by_task(samples)
        return [
            (task, "" if task == ALL else task, LABEL, [samples[i] for i in rows])
            for task, rows in tasks.items()
        ]
    name, at, task = spec.partition("@")
    chosen = [sample for sample in samples if not at or sample.task == task]
    if not chosen:
        tasks_known = sorted({sample.task for sample in samples if sample.task})
        raise MissingAnnotation(
            f"No sample has the task {task!r}.",
            subject=spec,
            hint=did_you_mean(task, tasks_known) or f"Tasks: {', '.join(tasks_known) or 'none'}.",
        )
    if name not in (LABEL, IMAGE_NAME) and all(value_of(each, name) is None for each in chosen):
        known = sorted({key for sample in samples for key in sample.attributes})
        raise MissingAnnotation(
            f"No sample has an attribute {name!r}.",
            subject=name,
            hint=did_you_mean(name, [LABEL, IMAGE_NAME, *known])
            or f"Known: {', '.join([LABEL, IMAGE_NAME, *known])}; NAME@TASK for one task.",
        )
    return [(spec, task, name, chosen)]


def _reader(attribute: str, images: Mapping[str, str]) -> Callable[[Sample], str | None]:
    if attribute != IMAGE_NAME:
        return lambda sample: value_of(sample, attribute)
    return lambda sample: image_name(sample.images[0] if sample.images else images.get(sample.id))


def _set(
    name: str,
    task: str,
    attribute: str,
    chosen: Sequence[Sample],
    read: Callable[[Sample], str | None],
) -> ConceptSet:
    known = [(sample, value) for sample in chosen if (value := read(sample)) is not None]
    counts = Counter(value for _, value in known)
    groups: dict[str, set[str]] = {}
    for sample, value in known:
        groups.setdefault(value, set()).add(sample.split_group)
    frequent = [v for v, n in counts.most_common() if n >= _LEAST and len(groups[v]) > 1][:_MOST]
    concepts = sorted(frequent)
    place = {value: number for number, value in enumerate(concepts)}
    kept = [(sample, place[value]) for sample, value in known if value in place]
    samples = tuple(sample for sample, _ in kept)
    return ConceptSet(
        name,
        task,
        attribute,
        tuple(concepts),
        samples,
        np.array([number for _, number in kept], np.int64),
        numbered([sample.split_group for sample in samples]),
        tuple(sorted(set(counts) - set(concepts))),
    )
