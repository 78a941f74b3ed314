"""Scales and labels of figures."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmlens.report._labels import grouped, groups, shortened
from vlmlens.report._scale import limits, ticks
from vlmlens.report._text import cut, show
from vlmlens.results import Figure, Series

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@given(NUMBERS, st.floats(1e-3, 1e6))
def test_ticks_are_even_and_inside(low: float, span: float) -> None:
    high = low + span
    made = ticks(low, high)
    assert 2 <= len(made) <= 8
    slack = 1e-6 * span + 1e-9 * abs(low)
    assert all(low - slack <= value <= high + slack for value in made)
    steps = [b - a for a, b in pairwise(made)]
    assert max(steps) - min(steps) <= slack + 1e-6 * span


@given(st.lists(st.one_of(NUMBERS, st.none(), st.just(float("nan"))), min_size=1, max_size=9))
def test_limits_hold_the_data(values: list[float | None]) -> None:
    names = [str(i) for i in range(len(values))]
    low, high = limits(Figure("f", "F", "line", names, series=[Series("s", values)]))
    numbers = [value for value in values if value is not None and value == value]
    assert low < high
    rounding = 1e-6 * max(1.0, high - low)
    assert all(low - rounding <= value <= high + rounding for value in numbers)


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        (Figure("f", "", "bar", ["a"], series=[Series("s", [3.0])]), (0.0, 3.0)),
        (Figure("f", "", "bar", ["a"], series=[Series("s", [-3.0])]), (-3.0, 0.0)),
        (Figure("f", "", "heatmap", ["a"], y=["b"], cells=[[2.0]]), (2.0, 3.0)),
        (Figure("f", "", "line", ["a"], series=[Series("s", [9.0])], y_range=(0, 1)), (0, 1)),
        (Figure("f", "", "line", ["a"], y_range=(1, 1)), (1, 2.0)),
        (Figure("f", "", "line", []), (0.0, 1.0)),
    ],
)
def test_limits(figure: Figure, expected: tuple[float, float]) -> None:
    assert limits(figure) == pytest.approx(expected)


@given(
    st.lists(st.sampled_from(["a.0/x", "a.1/x", "b", "a.1/y", "b.2.c/x", ".3", "é/"]), max_size=12)
)
def test_groups_cover_every_label_once(labels: list[str]) -> None:
    found = groups(labels)
    assert [i for group in found for i in range(group.start, group.stop)] == list(
        range(len(labels))
    )
    assert all(len(group.numbers) in {0, group.stop - group.start} for group in found)


def test_labels_without_a_pattern_are_not_grouped() -> None:
    assert grouped(["color", "number", "shape"]) is None
    assert grouped(["llm.block.0.mlp/last", "llm.block.1.mlp/last", "x"]) is not None


def test_shortened_drops_only_what_all_share() -> None:
    assert shortened(["a/last", "b/last"]) == ["a", "b"]
    assert shortened(["a/last", "b/max"]) == ["a/last", "b/max"]
    assert shortened(["last"]) == ["last"]
    assert shortened(["yes", "no"]) == ["yes", "no"]


@given(st.text(max_size=30), st.integers(1, 20))
def test_cut_is_never_longer(text: str, length: int) -> None:
    assert len(cut(text, length)) <= max(length, 2)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), ""),
        (float("inf"), "∞"),
        (-float("inf"), "-∞"),
        (0.0, "0"),
        (123.456, "123.5"),
    ],
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert show(value) == text
