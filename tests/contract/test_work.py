"""`check_work` over the works of the built-in analyses, and over deliberate mistakes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from vlmlens.abc import ModelWork, WorkUnit
from vlmlens.samples import Sample
from vlmlens.testing import CheckFailed, check_work
from vlmlens_plugins.analysis._answer_work import ChoiceScores, FirstTokens, WrittenAnswers

GRAY = {"blank": "gray", "sizes": [[96, 96]]}


def units(scenes: list[Sample], **arguments: Any) -> list[WorkUnit]:
    return [WorkUnit(sample, arguments) for sample in scenes[:4]]


def test_scores_of_choices(vlm: Any, scenes: list[Sample]) -> None:
    check_work(vlm, ChoiceScores(), units(scenes, choices=["red", "a blue sphere"]))
    check_work(vlm, ChoiceScores(), units(scenes, choices=["red", "blue"], **GRAY))


def test_first_tokens(vlm: Any, scenes: list[Sample]) -> None:
    check_work(vlm, FirstTokens(), units(scenes, own=1, blanks=[GRAY, {"blank": "none"}]))


def test_written_answers(vlm: Any, scenes: list[Sample]) -> None:
    check_work(vlm, WrittenAnswers(), units(scenes))


class Lengths(ModelWork):
    """A sound work: something about each prompt."""

    def run(self, vlm: Any, units: Sequence[WorkUnit]) -> list[Any]:
        return [self.one(unit, k) for k, unit in enumerate(units)]

    def one(self, unit: WorkUnit, k: int) -> Any:
        del k
        return {"letters": len(unit.sample.prompt), "share": len(unit.sample.prompt) / 7}


class InNumpy(Lengths):
    def one(self, unit: WorkUnit, k: int) -> Any:
        return np.float32(1.5)


class TooFew(Lengths):
    def run(self, vlm: Any, units: Sequence[WorkUnit]) -> list[Any]:
        return super().run(vlm, units)[1:]


class ByPlace(Lengths):
    def one(self, unit: WorkUnit, k: int) -> Any:
        return k / 10


class ByCompany(Lengths):
    def run(self, vlm: Any, units: Sequence[WorkUnit]) -> list[Any]:
        mean = float(np.mean([len(unit.sample.prompt) for unit in units]))
        return [len(unit.sample.prompt) - mean for unit in units]


class ById(Lengths):
    def one(self, unit: WorkUnit, k: int) -> Any:
        return unit.sample.id


class ByChance(Lengths):
    def one(self, unit: WorkUnit, k: int) -> Any:
        return random.random()


class ByMemory(Lengths):
    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.seen = 0

    def one(self, unit: WorkUnit, k: int) -> Any:
        self.seen += 1
        return self.seen


class NotSaid(Lengths):
    """Has something that its options do not say."""

    def __init__(self, options: Any = None, power: int = 2) -> None:
        super().__init__(options)
        self.power = power

    def one(self, unit: WorkUnit, k: int) -> Any:
        return len(unit.sample.prompt) ** self.power


MISTAKES = [
    (InNumpy(), "no JSON: Object of type float32"),
    (TooFew(), "3 results for 4 units"),
    (ByPlace(), "differs alone: 1.0e-01 apart"),
    (ByCompany(), "differs alone"),
    (ById(), "differs under another sample id"),
    (ByChance(), "differs alone"),
    (ByMemory(), "differs alone: 1 and 5"),
    (NotSaid(power=3), "differs made by another process"),
]


def test_a_sound_work_passes(scenes: list[Sample]) -> None:
    check_work(None, Lengths(), units(scenes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("work", "said"), MISTAKES)
def test_each_mistake_is_caught(work: ModelWork, said: str, scenes: list[Sample]) -> None:
    with pytest.raises(CheckFailed) as caught:
        check_work(None, work, units(scenes))  # type: ignore[arg-type]
    assert said in str(caught.value)


class FirstRow(ModelWork):
    """Takes the first row of a padded batch for a sample's own."""

    def run(self, vlm: Any, units: Sequence[WorkUnit]) -> list[Any]:
        batch = vlm.encode([unit.sample for unit in units])
        return vlm.forward(batch, logits="all").logits[:, 0, :8].double().tolist()


def test_a_row_of_padding_is_caught(vlm: Any, scenes: list[Sample]) -> None:
    with pytest.raises(CheckFailed, match="differs alone"):
        check_work(vlm, FirstRow(), units(scenes))


def test_a_class_that_no_other_process_can_import_is_caught(scenes: list[Sample]) -> None:
    class Inside(Lengths):
        pass

    with pytest.raises(CheckFailed, match="another process cannot make it"):
        check_work(None, Inside(), units(scenes))  # type: ignore[arg-type]
