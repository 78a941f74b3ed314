"""Which samples are learned from, the control's labels, and what counts as a gain."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vlmlens.errors import MissingAnnotation, SpecError
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._tuning.dividing import Divided, divided
from vlmlens_plugins.analysis._tuning.gains import Gain, gain
from vlmlens_plugins.analysis._tuning.measuring import Answers
from vlmlens_plugins.analysis._tuning.shuffling import with_shuffled_labels
from vlmlens_plugins.tuning.making import Trainable


def asked(groups: int, tasks: tuple[str, ...] = ("color", "shape")) -> list[Sample]:
    return [
        Sample(
            f"{i}/{task}", "What?", label="ab"[i % 2], choices=("a", "b"), group=f"g{i}", task=task
        )
        for i in range(groups)
        for task in tasks
    ]


def split(samples: list[Sample], **more: object) -> Divided:
    given = {"tasks": (), "shares": (0.6, 0.15, 0.25), "most": None, "tests": 400, "seed": 0}
    return divided(samples, **{**given, **more})  # type: ignore[arg-type]


def test_no_group_is_in_two_sets() -> None:
    found = split(asked(40))
    groups = [{one.group for one in some} for some in (found.train, found.held, found.test)]
    assert [len(own) for own in groups] == [24, 6, 10]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    assert split(asked(40)).train == found.train
    assert split(asked(40), seed=1).train != found.train


def test_one_task_is_trained_and_all_are_tested() -> None:
    found = split(asked(40), tasks=("shape",), most=10, tests=5)
    assert {one.task for one in found.train} == {"shape"}
    assert (len(found.train), len(found.held), len(found.test)) == (8, 2, 10)
    assert Counter(one.task for one in found.test) == {"color": 5, "shape": 5}
    assert found.tasks == ["shape"]


def test_labels_that_cannot_be_learned_are_left_out() -> None:
    samples = asked(40, ("color",))
    samples[0] = replace(samples[0], label=None)
    samples[1] = replace(samples[1], label="c")
    found = split(samples)
    known = {one.id for some in (found.train, found.held, found.test) for one in some}
    assert known == {one.id for one in samples[2:]}


@pytest.mark.parametrize(
    ("groups", "tasks", "said"), [(2, (), "too few"), (9, ("size",), "'size'"), (0, (), "any")]
)
def test_what_cannot_be_divided_is_refused(groups: int, tasks: tuple[str, ...], said: str) -> None:
    with pytest.raises(MissingAnnotation, match=said):
        split(asked(groups), tasks=tasks)


def test_three_groups_are_enough() -> None:
    found = split(asked(3, ("color",)))
    assert [len(some) for some in (found.train, found.held, found.test)] == [1, 1, 1]


def test_labels_of_the_control_say_nothing_of_the_true_ones() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(["a", "b", "c"], 200, p=[0.6, 0.3, 0.1])
    samples = [
        Sample(f"{i}", "What?", label=label, choices=("a", "b", "c"), task="letter")
        for i, label in enumerate(labels)
    ]
    dealt = with_shuffled_labels(samples, rng)
    assert Counter(one.label for one in dealt) == Counter(labels)
    counts = Counter((one.label, new.label) for one, new in zip(samples, dealt, strict=True))
    share = Counter(labels)
    for (true, new), number in counts.items():
        assert abs(number - share[true] * share[new] / 200) <= 2
    assert [one.id for one in dealt] == [one.id for one in samples]


def test_labels_of_the_control_stay_among_the_choices_and_in_the_task() -> None:
    own = [
        Sample(f"own{i}", "?", label=f"x{i}", choices=(f"x{i}", f"y{i}"), task="own")
        for i in range(9)
    ]
    free = [Sample(f"free{i}", "?", label=f"word {i}", task="free") for i in range(9)]
    dealt = with_shuffled_labels([*own, *free], np.random.default_rng(0))
    assert all(one.label in one.choices for one in dealt[:9])
    assert sorted(str(one.label) for one in dealt[9:]) == [f"word {i}" for i in range(9)]
    assert [one.label for one in dealt[9:]] != [one.label for one in free]


def answers(right: np.ndarray, credit: np.ndarray | None = None) -> Answers:
    return Answers([""] * len(right), right, right if credit is None else credit)


def gained(before: np.ndarray, after: np.ndarray, control: np.ndarray, *, trained: bool) -> Gain:
    samples = asked(len(before), ("color",))
    found = {
        "before": answers(before), "after": answers(after), "control": answers(control),
        "blind before": answers(before), "blind after": answers(before),
    }  # fmt: skip
    return gain("color", samples, found, range(len(samples)), trained=trained, draws=2000, seed=0)


def test_a_gain_is_over_the_model_before_and_over_the_control() -> None:
    half, most = np.arange(60) % 2.0, (np.arange(60) % 10 > 0) * 1.0
    found = gained(half, most, half, trained=True)
    assert (found.before.value, found.after.value, found.samples, found.groups) == (
        0.5, 0.9, 60, 60,
    )  # fmt: skip
    assert found.change.value == pytest.approx(0.4)
    assert found.change.low > 0.2
    assert found.p < 0.01
    assert gained(half, most, most, trained=True).p > 0.4, "shuffled labels give as much"
    assert gained(most, half, half, trained=True).p > 0.9
    assert gained(most, half, half, trained=False).p < 0.01, "a loss is a change"
    spoilt = most.copy()
    spoilt[0] = np.nan
    assert gained(half, spoilt, half, trained=True).after.value == pytest.approx(54 / 59)


def test_components_and_methods() -> None:
    assert Trainable.of(None, None) == Trainable("llm", "lora")
    assert Trainable.of("projector", None).method == "weights"
    assert Trainable.of(None, "prompt").component == "prompt"
    assert Trainable.of("prompt", None).method == "prompt"
    for component, method in (("llm", "prompt"), ("prompt", "lora")):
        with pytest.raises(SpecError, match=method):
            Trainable.of(component, method)  # type: ignore[arg-type]
