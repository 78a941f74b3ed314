"""The conformance kit for the analysis of hallucination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from vlmlens.manifest import Manifest
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.testing import AnalysisTests, Planted, Signal
from vlmlens.testing.model import tiny_model
from vlmlens.testing.planting import answered, columns_of, in_model
from vlmlens_plugins.analysis.hallucination.held_out import Ints
from vlmlens_plugins.analysis.hallucination.scores import Bools
from vlmlens_plugins.analysis.manifests import HALLUCINATION

_PICTURES, _OBJECTS = 112, 20
_COLUMN, _NUMBER = "llm.block.1/last", 5


class HallucinationChecks(AnalysisTests):
    """Whether something inside a tiny model tells wrong answers.

    Its answers are made right or wrong by the label that is planted.

    - present: an answer is wrong where one coordinate of the last row is high.
    - absent: answers are wrong at random.
    - confounded: the object says which answers are wrong. What has seen the object knows it; for
      an object that is held out nothing is known.
    """

    manifest: ClassVar[Manifest] = HALLUCINATION
    options: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"folds": 3, "depths": (1.0,), "C": (0.01,), "draws": 1000}
    )

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        samples, answers, high = _pictured()
        numbers = np.array([int(str(one.attributes["object"]).split()[1]) for one in samples])
        wrong = np.random.default_rng(0).random(len(samples)) < 0.5
        if signal == "present":
            wrong = high
        if signal == "confounded":
            wrong = numbers < _OBJECTS // 2
        labelled = with_wrong(samples, answers, wrong.tolist())
        return Planted(labelled, columns_of(tiny_model(), labelled), tiny_model)

    def claims(self, result: Result) -> bool:
        """See `AnalysisTests.claims`."""
        return result.findings[0].verdict is Verdict.DIFFERS


@cache
def _pictured() -> tuple[list[Sample], list[str], Bools]:
    """Questions about objects, the answers, and where a coordinate is high."""
    samples = [
        replace(
            one,
            prompt=f"Which letter is on toy {i % _OBJECTS}?",
            choices=one.choices[:2],
            attributes={"object": f"toy {i % _OBJECTS}"},
        )
        for i, one in enumerate(in_model("present", samples=_PICTURES).samples)
    ]
    values = columns_of(tiny_model(), samples)[_COLUMN].numpy()[:, _NUMBER]
    answers = answered(tiny_model(), samples)
    kept, high = extremes(values, answers)
    return [samples[i] for i in kept], [answers[i] for i in kept], high


def extremes(values: npt.NDArray[Any], answers: Sequence[str]) -> tuple[Ints, Bools]:
    """The highest and the lowest quarter of the values with each answer, and which are high.

    The answer itself says nothing of them.
    """
    found: dict[int, bool] = {}
    for answer in set(answers):
        own = np.flatnonzero(np.array(answers) == answer)
        order = own[np.argsort(values[own], kind="stable")]
        part = len(order) // 4
        found |= dict.fromkeys(order[:part].tolist(), False)
        found |= dict.fromkeys(order[len(order) - part :].tolist(), True)
    kept = sorted(found)
    return np.array(kept, np.int64), np.array([found[i] for i in kept])


def with_wrong(
    samples: Sequence[Sample], answers: Sequence[str], wrong: Sequence[bool]
) -> list[Sample]:
    """The samples with labels that make these answers wrong, or right.

    Args:
        samples: With choices.
        answers: What the model answers.
        wrong: Whether that shall be wrong; the label is then the choice that follows.
    """
    made = []
    for sample, answer, is_wrong in zip(samples, answers, wrong, strict=True):
        place = sample.choices.index(answer) + is_wrong
        label = sample.choices[place % len(sample.choices)]
        made.append(replace(sample, label=label))
    return made


HALLUCINATION_CHECKS = (HallucinationChecks,)
