"""Whether the model understands descriptions at all: without that, they show nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._estimates import NOTHING, Estimate, Resampled
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.bottleneck.asked import Case
from vlmlens_plugins.analysis.bottleneck.options import BLIND, IMAGE, TEXT, BottleneckOptions

Floats = npt.NDArray[np.float64]


class Source(StrEnum):
    """Which questions show whether descriptions are understood."""

    OWN = "questions of the task that it answers right from the image"
    OTHERS = "questions of other tasks that it answers right from the image"
    ALL = "all questions"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Understood:
    """Whether descriptions are understood.

    Args:
        understood: Whether they are; None: not known.
        use: The part of the way from blind answers (0) to perfect (1).
        text: Accuracy with the description alone, of the questions that show it.
        blind: Blind accuracy of these.
        samples: How many they are.
        source: Which they are.
        why_not: Why it is not known.
    """

    understood: bool | None
    use: Estimate = NOTHING
    text: float = np.nan
    blind: float = np.nan
    samples: int = 0
    source: Source = Source.NOTHING
    why_not: str = ""


def understanding(
    tasks: Mapping[str, Sequence[Case]], task: str, options: BottleneckOptions, seed: int
) -> Understood:
    """Whether the model understands descriptions, as the questions show that it can answer.

    A task whose answers are surely better with the image than blind shows it by itself: what is
    answered right from the image should be answered right from a description. For another task,
    the other ones show it. If no task can be answered from images, all questions show it.

    Args:
        tasks: The cases of all tasks.
        task: The task in question.
        options: The least numbers, and what counts as understood.
        seed: Of resamples.
    """
    if not any(TEXT in case.answers for case in tasks[task]):
        return Understood(None, why_not="no sample has a description")
    for source, cases in _pools(tasks, task, options, seed):
        found = _judged(cases, source, options, seed)
        if found is not None:
            return found
    return Understood(None, why_not="too few samples show whether descriptions are understood")


def _pools(
    tasks: Mapping[str, Sequence[Case]], task: str, options: BottleneckOptions, seed: int
) -> Iterator[tuple[Source, list[Case]]]:
    able = {name for name, cases in tasks.items() if _able(cases, options, seed)}
    if task in able:
        yield Source.OWN, [case for case in tasks[task] if not case.wrong]
    others = [case for name in able - {task} for case in tasks[name] if not case.wrong]
    yield Source.OTHERS, sorted(others, key=lambda case: case.sample.id)
    if not able:
        yield Source.ALL, [case for cases in tasks.values() for case in cases]


def _able(cases: Sequence[Case], options: BottleneckOptions, seed: int) -> bool:
    """Whether the task is surely answered better with the image than blind."""
    gain = _right(cases, IMAGE) - _right(cases, BLIND)
    mean = _resampled(cases, options, seed).mean(gain)
    return bool(mean.low > 0)


def _judged(
    cases: Sequence[Case], source: Source, options: BottleneckOptions, seed: int
) -> Understood | None:
    """None where too few samples have a description, or blind answers leave nothing to gain."""
    told = [case for case in cases if TEXT in case.answers]
    if not told:
        return None
    text, blind = _right(told, TEXT), _right(told, BLIND)
    if (1 - blind).sum() < options.min_class:
        return None
    use = _resampled(told, options, seed).ratio(text - blind, 1 - blind)
    if use.groups < 2:
        return None
    good = use.low > 0 and use.value >= options.min_understood
    means = float(text.mean()), float(blind.mean())
    return Understood(bool(good), use, *means, len(told), source)


def _right(cases: Sequence[Case], condition: str) -> Floats:
    return np.array([case.answers[condition].right for case in cases], np.float64)


def _resampled(cases: Sequence[Case], options: BottleneckOptions, seed: int) -> Resampled:
    groups = [case.sample.split_group for case in cases]
    return Resampled(groups, options.draws, generator(seed, "bottleneck-text"))
