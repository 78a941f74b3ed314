"""Which samples go through the model together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlmlens.extraction.batching import Lengths, Unit, units
from vlmlens.samples import Sample
from vlmlens.sites import Axis


def sample(number: int, prompt: str = "?", *images: Any) -> Sample:
    return Sample(str(number), prompt, images)


def lengths(whole: list[float], text: float = 10) -> Lengths:
    return Lengths(np.array(whole, float), np.full(len(whole), text, float))


def cut(samples: list[Sample], known: Lengths, **settings: Any) -> list[Unit]:
    return units(samples, known, **{"size": None, "budget": 100, "share": "beginnings", **settings})


def test_units_hold_what_the_budget_holds_longest_first() -> None:
    samples = [sample(i) for i in range(6)]
    found = cut(samples, lengths([20, 50, 25, 10, 40, 30]))
    assert [unit.samples for unit in found] == [(1, 4), (5, 2, 0), (3,)]
    assert not any(unit.shared for unit in found)


def test_a_sample_over_the_budget_goes_alone() -> None:
    found = cut([sample(i) for i in range(3)], lengths([500, 10, 300]))
    assert [unit.samples for unit in found] == [(0,), (2,), (1,)]


def test_a_fixed_size_sorts_by_length() -> None:
    found = cut([sample(i) for i in range(5)], lengths([1, 5, 2, 4, 3]), size=2)
    assert [unit.samples for unit in found] == [(1, 3), (4, 2), (0,)]


def test_equal_images_go_together() -> None:
    samples = [sample(i, "?", "ab"[i % 2]) for i in range(6)] + [sample(6, "?", "c"), sample(7)]
    found = cut(samples, lengths([60] * 8))
    shared = [unit for unit in found if unit.shared]
    assert [unit.groups for unit in shared] == [((0, 2, 4),), ((1, 3, 5),)]
    assert sorted(n for unit in found if not unit.shared for n in unit.samples) == [6, 7]
    together = cut(samples, lengths([60] * 8), budget=1000)
    assert together[0].groups == ((0, 2, 4), (1, 3, 5))
    assert not any(unit.shared for unit in cut(samples, lengths([60] * 8), share="nothing"))


def test_pictures_in_memory_are_equal_only_if_the_same() -> None:
    one, other = Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2))
    samples = [sample(0, "?", one), sample(1, "?", other), sample(2, "!", one)]
    shared = [unit.groups for unit in cut(samples, lengths([9] * 3)) if unit.shared]
    assert shared == [((0, 2),)]


def test_many_questions_on_one_image_are_cut() -> None:
    samples = [sample(i, "?", "a") for i in range(10)]
    found = cut(samples, lengths([600] * 10, text=30))
    assert [len(unit.samples) for unit in found] == [3, 3, 3, 1]
    fixed = cut(samples, lengths([600] * 10), size=4)
    assert [len(unit.samples) for unit in fixed] == [4, 4, 2]


def test_what_is_left_of_several_images_shares_a_unit() -> None:
    samples = [sample(i, "?", f"image {i // 5}") for i in range(10)]
    found = cut(samples, lengths([600] * 10), size=4)
    assert [unit.groups for unit in found] == [((0, 1, 2, 3),), ((5, 6, 7, 8),), ((4,), (9,))]


def test_halves_keep_groups_and_lose_nothing() -> None:
    unit = Unit(((0, 1, 2), (3, 4)), shared=True)
    assert unit.halves() == (Unit(((0, 1, 2),), True), Unit(((3, 4),), True))
    assert unit.halves()[0].halves() == (Unit(((0,),), True), Unit(((1, 2),), True))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 300), st.sampled_from(["", "a", "b", "c"])), min_size=1),
    st.one_of(st.none(), st.integers(1, 9)),
    st.integers(1, 500),
    st.sampled_from(["nothing", "images", "beginnings"]),
)
def test_every_sample_stands_in_one_unit(
    drawn: list[tuple[int, str]], size: int | None, budget: int, share: Any
) -> None:
    samples = [sample(i, "?", *([image] if image else [])) for i, (_, image) in enumerate(drawn)]
    known = lengths([length for length, _ in drawn])
    found = cut(samples, known, size=size, budget=budget, share=share)
    assert sorted(n for unit in found for n in unit.samples) == list(range(len(samples)))
    assert found == cut(samples, known, size=size, budget=budget, share=share)
    for unit in found:
        if size is not None:
            assert len(unit.samples) <= size
        for group in unit.groups if unit.shared else ():
            assert len({samples[n].images for n in group}) == 1


class Encoder:
    """Encodes to 7 tokens, a token per letter, and one per thousand pixels."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, one: Sample) -> Any:
        self.calls += 1
        pixels = sum(image.width * image.height for image in one.images)  # type: ignore[union-attr]
        tokens = range(7 + len(one.prompt) + pixels // 1000)
        return SimpleNamespace(layouts={Axis.LLM: SimpleNamespace(samples=[tokens])})


def test_lengths_are_told_from_a_few() -> None:
    encode = Encoder()
    samples = [
        sample(i, "x" * (i % 40 + 1), Image.new("L", (100 * (i % 7 + 1), 200))) for i in range(300)
    ]
    known = Lengths.of(samples, encode)
    assert encode.calls <= 12
    for one, found in zip(samples, known.whole, strict=True):
        pixels = sum(image.width * image.height for image in one.images)  # type: ignore[union-attr]
        assert found == pytest.approx(7 + len(one.prompt) + pixels / 1000, abs=0.5)
    assert known.text[39] == pytest.approx(48, abs=0.5)


def test_lengths_of_equal_samples() -> None:
    known = Lengths.of([sample(i, "what?") for i in range(3)], Encoder())
    assert known.whole.tolist() == pytest.approx([12, 12, 12])
