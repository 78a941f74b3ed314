"""H-POPE's card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Answer, Card, Floats
from vlmlens_plugins.benchmarks.counting import YesNo
from vlmlens_plugins.benchmarks.pope.card import PROMPTS, YES_NO_RULES
from vlmlens_plugins.benchmarks.pope.metrics import MeanOfParts

LEVELS: Final = ("object", "attribute")
IMAGE: Final = "image-adversarial"
SETTINGS: Final = ("random", "popular", "adversarial", IMAGE)


def part_of(sample: Sample) -> str:
    """The setting and the level: "popular/attribute"."""
    known = sample.attributes
    return f"{known.get('setting') or ''}/{known.get('level') or ''}"


def _level(level: str) -> MeanOfParts:
    parts = tuple(f"{setting}/{level}" for setting in SETTINGS)
    return MeanOfParts(parts, part_of, f"{level}_")


@dataclass(frozen=True)
class LevelMeans:
    """For each level, the means of the settings' accuracies and F1s, in percent."""

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        found = [_level(level).counts(samples, answers) for level in LEVELS]
        return {name: values for each in found for name, values in each.items()}

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`."""
        found = [_level(level).scores(sums) for level in LEVELS]
        return {name: values for each in found for name, values in each.items()}


CARD: Final = Card(
    name="hpope",
    title="H-POPE",
    paper="arXiv 2411.04077",
    licence="that of the objects and pictures that questions are made of",
    prompts=PROMPTS,
    rules=YES_NO_RULES,
    metrics=LevelMeans(),
    headline="attribute_f1",
    task_metrics=YesNo(),
    max_new_tokens=128,
    shortcuts=(
        "A constant yes has F1 66.67 and accuracy 50 in every setting and level.",
        "Objects and attributes that are frequent are more often right: compare with the score of "
        "the blind model, and hold objects out.",
        "The positives are the same in all settings.",
    ),
    faults=(
        "The authors' questions are not public: these are made by the same design from your own "
        "objects, so figures of the paper do not compare.",
        "A false attribute is taken from those of the same type. Where types do not exclude each "
        "other, or are not given, the question may be right after all.",
    ),
)
