"""What features may stand for: labels by task, and attributes of samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens.samples import Attribute, Sample
from vlmlens_plugins.analysis._tasks import ALL
from vlmlens_plugins.analysis.sae.held import Split

LABEL = "label"
_MANY = 20
_FEWEST = 3


@dataclass(frozen=True, slots=True)
class Concept:
    """Something that is known of samples.

    Args:
        name: The name of a task, or of an attribute.
        value: By number of a sample of the split, the value as text. Samples without are missing.
        values: The values that can be tested: each has at least 3 samples in either part of the
            split, and so have the other values together. The 20 most frequent ones, in this order.
    """

    name: str
    value: Mapping[int, str]
    values: tuple[str, ...]

    def known(self, samples: Sequence[int]) -> list[int]:
        """The places in `samples` where the value is known."""
        return [place for place, number in enumerate(samples) if number in self.value]


def concepts(samples: Sequence[Sample], split: Split, by: Sequence[str]) -> list[Concept]:
    """All concepts that can be tested.

    Numbers of more than 20 values become two: above the median of the samples to learn from, and
    not above it.

    Args:
        samples: The run's samples.
        split: Which of them are learnt from and judged.
        by: "label" (the labels of each task), or names of attributes.
    """
    found: list[Concept] = []
    for source in dict.fromkeys(by):
        raw = _labels(samples, split) if source == LABEL else _attribute(samples, split, source)
        for name, known in raw.items():
            value = _as_text(known, split)
            if values := _tested(value, split):
                taken = {each.name for each in found}
                found.append(Concept(_free(name, taken), value, values))
    return found


def _free(name: str, known: Collection[str]) -> str:
    """A name that is not known yet: an attribute may be called what a task is called."""
    if name not in known:
        return name
    return f"{name} (attribute)"


def _labels(samples: Sequence[Sample], split: Split) -> dict[str, dict[int, Attribute]]:
    """Labels by task. A sample about a picture has the labels of all questions about it."""
    found: dict[str, dict[int, Attribute]] = {}
    for number, alike in split.alike.items():
        for each in alike:
            sample = samples[each]
            if sample.label is not None:
                found.setdefault(sample.task or ALL, {}).setdefault(number, sample.label)
    return found


def _attribute(
    samples: Sequence[Sample], split: Split, name: str
) -> dict[str, dict[int, Attribute]]:
    values = {number: samples[number].attributes.get(name) for number in split.alike}
    return {name: {number: value for number, value in values.items() if value is not None}}


def _as_text(known: Mapping[int, Attribute], split: Split) -> dict[int, str]:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in known.values())
    if not numbers or len(set(known.values())) <= _MANY:
        return {number: str(value) for number, value in known.items()}
    learnt = [float(known[number]) for number in split.learn if number in known]  # type: ignore[arg-type]
    middle = float(np.median(learnt)) if learnt else 0.0
    return {
        number: f"above {middle:g}" if float(value) > middle else f"up to {middle:g}"  # type: ignore[arg-type]
        for number, value in known.items()
    }


def _tested(value: Mapping[int, str], split: Split) -> tuple[str, ...]:
    parts = [[value[n] for n in part if n in value] for part in (split.learn, split.held)]
    counts = {each: [part.count(each) for part in parts] for each in dict.fromkeys(value.values())}
    kept = [
        each
        for each, numbers in counts.items()
        if all(_FEWEST <= n <= len(p) - _FEWEST for n, p in zip(numbers, parts, strict=True))
    ]
    return tuple(sorted(kept, key=lambda each: (-sum(counts[each]), each)))[:_MANY]
