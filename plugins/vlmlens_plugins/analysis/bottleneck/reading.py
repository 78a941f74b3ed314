"""What probes read of the fact at each stage, held out by group, beside shuffled labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.errors import MissingAnnotation
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._estimates import NOTHING, Estimate, Resampled
from vlmlens_plugins.analysis._statistics import generator, permutation_p
from vlmlens_plugins.analysis.bottleneck.asked import Case
from vlmlens_plugins.analysis.bottleneck.options import BottleneckOptions
from vlmlens_plugins.analysis.bottleneck.work import STAGES
from vlmlens_plugins.analysis.probe.control_labels import shuffled_within
from vlmlens_plugins.analysis.probe.cross_validation import (
    Evaluation,
    evaluate,
    majority_predictions,
)
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.probe_kinds import family
from vlmlens_plugins.analysis.probe.splits import Split, assign_folds, folded
from vlmlens_plugins.analysis.probe.targets import Target, numbered

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Status(StrEnum):
    """Whether the fact can be read at a stage."""

    READ = "readable"
    LOST = "not readable"
    OPEN = "not decided"


@dataclass(frozen=True, slots=True)
class StageRead:
    """What the best probe of a stage reads of one question's fact.

    Args:
        stage: One of `STAGES`.
        site: Where the best probe reads.
        status: Whether the fact counts as readable. It is not decided where the model surely says
            it more often than the probe reads it: then the probe is what fails.
        accuracy: Of the best probe, held out by group.
        base: What guessing gains: the majority, or the best probe of shuffled labels, on average.
        skill: The part of the way from `base` (0) to perfect (1).
        p: Of the accuracy, among those of shuffled labels; each the best of the stage.
        hits: Bool `[samples]`, whether the probe reads each sample right.
    """

    stage: str
    site: str
    status: Status
    accuracy: Estimate
    base: float
    skill: Estimate
    p: float
    hits: Bools


@dataclass(frozen=True, slots=True)
class Question:
    """Samples that ask for the same, so that the image alone decides between their facts.

    Args:
        name: The prompt.
        rows: Numbers of the samples among the task's.
        probed: Which of these places in `rows` are probed: those of facts that are no rarities.
        stages: What is read, by stage; none where nothing is probed.
        why_not: Why nothing is probed; "" if it is.
    """

    name: str
    rows: tuple[int, ...]
    probed: tuple[int, ...] = ()
    stages: Mapping[str, StageRead] | None = None
    why_not: str = ""


def read_questions(cases: Sequence[Case], options: BottleneckOptions, seed: int) -> list[Question]:
    """The questions of a task, probed where there are enough samples.

    Args:
        cases: Of one task.
        options: Which facts, folds and strengths.
        seed: Of folds, shufflings and resamples.
    """
    rows: dict[str, list[int]] = {}
    for i, case in enumerate(cases):
        rows.setdefault(case.sample.prompt, []).append(i)
    return [_read(name, own, cases, options, seed) for name, own in rows.items()]


def fact_of(sample: Sample, name: str) -> str:
    """What has to be seen: the attribute, or the label."""
    return str(sample.attributes[name] if is_derived(sample, name) else sample.label)


def is_derived(sample: Sample, name: str) -> bool:
    """Whether the answer is more than what has to be seen: the sample has the attribute."""
    value = sample.attributes.get(name)
    empty = value is None or (isinstance(value, float) and math.isnan(value))
    return not empty


def _read(
    name: str, rows: Sequence[int], cases: Sequence[Case], options: BottleneckOptions, seed: int
) -> Question:
    if not options.charts and not any(cases[i].wrong for i in rows):
        return Question(name, tuple(rows), why_not="no answer is wrong")
    facts = [fact_of(cases[i].sample, options.fact) for i in rows]
    counts = Counter(facts)
    kept = {fact for fact, times in counts.items() if times >= options.min_class}
    if len(kept) < 2:
        why = f"fewer than two answers have {options.min_class} samples"
        return Question(name, tuple(rows), why_not=why)
    probed = tuple(k for k, fact in enumerate(facts) if fact in kept)
    own = [cases[rows[k]] for k in probed]
    target = _target(name, [case.sample for case in own], [facts[k] for k in probed])
    try:
        split = _split(target, options.folds, seed)
    except MissingAnnotation:
        return Question(name, tuple(rows), why_not="an answer has too few groups of samples")
    stages = {
        stage: _of_stage(stage, own, target, split, options, seed)
        for stage in STAGES
        if all(stage in case.states for case in own)
    }
    return Question(name, tuple(rows), probed, stages)


def _target(name: str, samples: Sequence[Sample], facts: Sequence[str]) -> Target:
    classes = tuple(sorted(set(facts)))
    y = np.array([classes.index(fact) for fact in facts], np.int64)
    groups = numbered([sample.split_group for sample in samples])
    return Target(name, tuple(samples), classes, y, groups, lambda sample: None, len(samples))


def _split(target: Target, folds: int, seed: int) -> Split:
    """Folds of groups; fewer where a class has fewer groups.

    Raises:
        MissingAnnotation: A class has one group only.
    """
    groups = [len(np.unique(target.groups[target.y == c])) for c in range(len(target.classes))]
    if min(groups) < 2:
        raise MissingAnnotation(f"{target.name}: an answer stands in one group only.")
    return folded(assign_folds(target.y, target.groups, folds=min(folds, *groups), seed=seed))


def _of_stage(
    stage: str,
    cases: Sequence[Case],
    target: Target,
    split: Split,
    options: BottleneckOptions,
    seed: int,
) -> StageRead:
    rng = generator(seed, "bottleneck", target.name)
    labels = np.concatenate(
        [
            target.y[None],
            *shuffled_within(target.y, target.groups, split.block, options.controls, rng),
        ]
    )
    names, found = _evaluated(stage, cases, target, split, labels, options, seed)
    right = np.stack([each.held_out == labels for each in found])  # [probes, 1 + controls, n]
    shares = right.mean(-1)
    best = int(shares[:, 0].argmax())
    controls = shares[:, 1:].max(0)
    hits = right[best, 0]
    majority = float((majority_predictions(target.y, split) == target.y).mean())
    base = max(majority, float(controls.mean()))
    accuracy = _share(hits, cases, options, seed)
    skill = _skill(accuracy, base)
    p = permutation_p(float(shares[best, 0]), controls)
    status = _status(skill, p, len(cases), options)
    if status is Status.LOST and _said(cases, base, options, seed).low > skill.high:
        status = Status.OPEN
    return StageRead(stage, names[best], status, accuracy, base, skill, p, hits)


def _evaluated(
    stage: str,
    cases: Sequence[Case],
    target: Target,
    split: Split,
    labels: Ints,
    options: BottleneckOptions,
    seed: int,
) -> tuple[list[str], list[Evaluation]]:
    """A site for each probe of a stage, and what it reads; sites of equal width together."""
    by_width: dict[int, list[str]] = {}
    for site, row in cases[0].states[stage].items():
        by_width.setdefault(len(row), []).append(site)
    names, found = [], []
    for own in by_width.values():
        columns = [np.array([case.states[stage][site] for case in cases]) for site in own]
        for strength in options.C:
            kind = family(ProbeOptions(C=[strength]), target, seed)
            found += evaluate(columns, labels, split, kind, torch.device("cpu"))
            names += own
    return names, found


def _share(hits: Bools, cases: Sequence[Case], options: BottleneckOptions, seed: int) -> Estimate:
    groups = [case.sample.split_group for case in cases]
    rng = generator(seed, "bottleneck-read")
    return Resampled(groups, options.draws, rng).share(hits.astype(np.float64))


def _said(cases: Sequence[Case], base: float, options: BottleneckOptions, seed: int) -> Estimate:
    """The skill of the model's own answers; none where they are more than the fact."""
    if any(is_derived(case.sample, options.fact) for case in cases):
        return NOTHING
    right = np.array([not case.wrong for case in cases])
    return _skill(_share(right, cases, options, seed), base)


def _skill(accuracy: Estimate, base: float) -> Estimate:
    """0 at `base`, 1 where all is read."""
    if base >= 1:
        return NOTHING
    value, low, high = (
        (one - base) / (1 - base) for one in (accuracy.value, accuracy.low, accuracy.high)
    )
    return Estimate(value, low, high, accuracy.groups)


def _status(skill: Estimate, p: float, samples: int, options: BottleneckOptions) -> Status:
    """Readable: significantly, and by enough. Not: enough is excluded, by enough samples."""
    if p <= options.alpha and skill.low > 0 and skill.value >= options.min_skill:
        return Status.READ
    excluded = skill.high < options.min_skill and samples >= options.min_lost
    return Status.LOST if excluded else Status.OPEN
