"""Whether an answer is right: the chosen one, or the written one by a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._tasks import ALL
from vlmlens_plugins.analysis.blind_test.answer_text import KnownAnswers, normalized
from vlmlens_plugins.benchmarks import Rule, card_of
from vlmlens_plugins.benchmarks.benchmark import NAME

_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Args:
        text: As it was chosen or written.
        said: What it says: two answers with the same are the same answer.
        right: Whether it is the right one.
    """

    text: str
    said: str
    right: bool


def rules_of(samples: Sequence[Sample], rule: str) -> dict[str, Rule]:
    """By benchmark, the rule that reads written answers to its questions.

    Args:
        samples: Those of a benchmark say so in an attribute.
        rule: The rule's name.

    Raises:
        SpecError: A benchmark is not installed, or has no such rule.
    """
    free = [sample for sample in samples if not sample.choices]
    names = {str(sample.attributes[NAME]) for sample in free if sample.attributes.get(NAME)}
    return {name: card_of(name).rule(rule) for name in sorted(names)}


class Grader:
    """Judges answers; those of open questions by the benchmark's rule, else by the task's labels.

    A written answer to a question of no benchmark is right where it is the label, or names it and
    no other label of the task; see `KnownAnswers`.

    Args:
        samples: All samples.
        rule: Name of the rule for benchmarks.
    """

    def __init__(self, samples: Sequence[Sample], rule: str) -> None:
        self._rules = rules_of(samples, rule)
        labels: dict[str, list[str]] = {}
        for sample in samples:
            labels.setdefault(sample.task or ALL, []).append(str(sample.label))
        self._known = {task: KnownAnswers(own) for task, own in labels.items()}

    def chosen(self, logs: npt.NDArray[np.float64], sample: Sample) -> Answer:
        """The most probable choice."""
        text = sample.choices[int(np.argmax(logs))]
        return Answer(text, text, text == sample.label)

    def written(self, text: str, sample: Sample) -> Answer:
        """A text."""
        rule = self._rules.get(str(sample.attributes.get(NAME)))
        if rule is not None:
            said = rule.read(text, sample)
            right = said is not None and rule.credit(said, sample) >= _HALF
            return Answer(text, normalized(text if said is None else said), right)
        said = self._known[sample.task or ALL].read(text)
        return Answer(text, said, said == normalized(str(sample.label)))
