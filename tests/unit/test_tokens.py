"""Selectors, columns, layouts, and pooling against a plain-Python reference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmlens.errors import SelectorError, SiteError, SiteShapeError
from vlmlens.sites import Axis, Site
from vlmlens.tokens import (
    AxisLayout,
    Column,
    PatchGrid,
    Selector,
    TokenKind,
    TokenLayout,
    select,
)

SITE = Site("llm.block.0", "model.layers.0", Axis.LLM, index=0)
INT = st.integers(-12, 12)
INDEX = st.none() | INT | st.builds(slice, st.none() | INT, st.none() | INT)
SELECTOR = st.builds(
    Selector,
    kind=st.none() | st.sampled_from(TokenKind),
    index=INDEX,
    pool=st.sampled_from([None, "mean", "max"]),
)
DTYPE = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])


@given(SELECTOR)
def test_selectors_round_trip(selector: Selector) -> None:
    assert Selector.parse(str(selector)) == selector
    assert hash(Selector.parse(str(selector))) == hash(selector)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("last", "last"),
        ("all[-1]", "last"),
        ("first", "first"),
        ("[0]", "first"),
        ("mean", "mean"),
        ("all.mean", "mean"),
        ("max", "max"),
        ("all", "all"),
        ("image", "image"),
        ("image.mean", "image.mean"),
        ("text[-4:].max", "text[-4:].max"),
        ("all[3:9]", "[3:9]"),
        ("[:9].mean", "[:9].mean"),
        ("[:]", "[:]"),
        ("special[0]", "special[0]"),
        ("answer", "answer"),
    ],
)
def test_spellings(text: str, canonical: str) -> None:
    assert str(Selector.parse(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "[-]", "[-:3]", "[1:2:3]", "[1.5]", "[٣]", "all[", "imag", "image.sum"),
        *("image..mean", "last.mean", "mean.max", ".mean"),
        *("", " last", "last\n", f"[{'9' * 5000}]"),
    ],
)
def test_what_is_no_selector(text: str) -> None:
    with pytest.raises(SelectorError, match="is not a selector") as caught:
        Selector.parse(text)
    assert caught.value.subject == text
    assert "image.mean" in caught.value.hint


LIKE_A_SELECTOR = st.lists(
    st.sampled_from([*"[]:-0123456789.#/ \n", "image", "all", "mean"]), max_size=9
).map("".join)


@given(st.text() | LIKE_A_SELECTOR)
def test_parse_raises_selector_errors_only(text: str) -> None:
    try:
        selector = Selector.parse(text)
    except SelectorError:
        return
    assert Selector.parse(str(selector)) == selector


@given(st.text() | LIKE_A_SELECTOR)
def test_column_parse_raises_its_own_errors_only(text: str) -> None:
    try:
        column = Column.parse(text)
    except SelectorError:
        return
    assert Column.parse(str(column)) == column


@given(st.from_regex(r"[a-z]+(\.[a-z0-9*]+){0,3}(#[0-9])?", fullmatch=True), SELECTOR)
def test_columns_round_trip(site: str, selector: Selector) -> None:
    column = Column(site, selector)
    assert Column.parse(str(column)) == column


def test_a_column_without_a_selector() -> None:
    with pytest.raises(SelectorError, match=r"Write llm.norm/last"):
        Column.parse("llm.norm")


@pytest.mark.parametrize(
    ("text", "ragged"),
    [("last", False), ("image", True), ("all[2:]", True), ("image.mean", False), ("mean", False)],
)
def test_ragged(text: str, ragged: bool) -> None:
    assert Selector.parse(text).ragged is ragged


def one_row_each(activation: torch.Tensor, selector: str, layout: AxisLayout) -> torch.Tensor:
    """What a selector that is not ragged gives."""
    got = select(activation, Selector.parse(selector), layout, SITE)
    assert isinstance(got, torch.Tensor)
    return got


@dataclass(frozen=True)
class Case:
    """A batch: flattened activation, layout, and the padding rows that belong to no sample."""

    activation: torch.Tensor
    layout: AxisLayout

    def plain(self, selector: Selector) -> list[list[list[float]]]:
        """Selected rows per sample, by loops over Python lists."""
        flat = self.activation.double().reshape(self.layout.total, -1).tolist()
        return [_plain_rows(flat, selector, sample) for sample in self.layout.samples]


def _plain_rows(
    flat: list[list[float]], selector: Selector, sample: TokenLayout
) -> list[list[float]]:
    rows = []
    for row, kind in zip(sample.rows.tolist(), sample.kinds.tolist(), strict=True):
        of_prompt = selector.kind is None and kind != TokenKind.ANSWER
        if of_prompt or (selector.kind is not None and int(selector.kind) == kind):
            rows.append(flat[row])
    if isinstance(selector.index, int):
        position = selector.index if selector.index >= 0 else len(rows) + selector.index
        return [row for i, row in enumerate(rows) if i == position]
    return rows if selector.index is None else rows[selector.index]


def _plain_pool(rows: list[list[float]], pool: str) -> list[float]:
    columns = list(zip(*rows, strict=True))
    if pool == "max":
        return [max(column) for column in columns]
    return [math.fsum(column) / len(column) for column in columns]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Left-padded, right-padded or packed batches with text, images and special tokens."""
    packing = draw(st.sampled_from(["left", "right", "packed"]))
    kinds = draw(
        st.lists(
            st.lists(st.sampled_from(TokenKind), min_size=1, max_size=9).filter(
                lambda row: set(row) != {TokenKind.ANSWER}
            ),
            min_size=1,
            max_size=4,
        )
    )
    longest = max(map(len, kinds))
    samples, start = [], 0
    for row in kinds:
        pad = 0 if packing == "packed" else longest - len(row)
        first = start + (pad if packing == "left" else 0)
        samples.append(
            TokenLayout(np.arange(first, first + len(row)), np.array(row, dtype=np.uint8))
        )
        start += len(row) + pad
    width = draw(st.integers(1, 4))
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    activation = torch.randn(start, width, generator=generator).mul(3).to(draw(DTYPE))
    if packing != "packed":
        activation = activation.reshape(len(kinds), longest, width)
    return Case(activation, AxisLayout(start, samples))


@settings(max_examples=300, deadline=None)
@given(cases(), SELECTOR)
def test_selecting_equals_the_reference(case: Case, selector: Selector) -> None:
    expected = case.plain(selector)
    if not all(expected):
        with pytest.raises(SelectorError, match="keeps no token"):
            select(case.activation, selector, case.layout, SITE)
        return
    got = select(case.activation, selector, case.layout, SITE)
    if selector.ragged:
        assert isinstance(got, list)
        assert [rows.double().tolist() for rows in got] == expected
        return
    assert isinstance(got, torch.Tensor)
    assert got.dtype == case.activation.dtype
    if selector.pool is None:
        assert got.double().tolist() == [rows[0] for rows in expected]
    else:
        _assert_pooled(got, [_plain_pool(rows, selector.pool) for rows in expected])


def _assert_pooled(got: torch.Tensor, expected: list[list[float]]) -> None:
    wanted = torch.tensor(expected, dtype=torch.float64)
    tolerance = max(torch.finfo(got.dtype).eps, torch.finfo(torch.float32).eps * 4)
    if got.dtype == torch.float64:
        tolerance = 1e-12
    torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=tolerance * 8)


@settings(max_examples=50, deadline=None)
@given(cases())
def test_a_sample_does_not_depend_on_its_batch(case: Case) -> None:
    pooled = one_row_each(case.activation, "mean", case.layout)
    for i, sample in enumerate(case.layout.samples):
        alone = AxisLayout(case.layout.total, [sample])
        assert torch.equal(
            select(case.activation, Selector.parse("mean"), alone, SITE)[0], pooled[i]
        )


def _two_samples(padding: float) -> tuple[torch.Tensor, AxisLayout]:
    """Samples of one and three tokens, all ones, left-padded with some value."""
    activation = torch.ones(2, 3, 2)
    activation[0, :2] = padding
    text = np.zeros(3, dtype=np.uint8)
    samples = [TokenLayout(np.array([2]), text[:1]), TokenLayout(np.array([3, 4, 5]), text)]
    return activation, AxisLayout(6, samples)


@pytest.mark.parametrize("padding", [100.0, math.nan, math.inf])
@pytest.mark.parametrize("selector", ["mean", "max", "text.mean", "last", "first"])
def test_padding_is_never_pooled_in(padding: float, selector: str) -> None:
    activation, layout = _two_samples(padding)
    got = one_row_each(activation, selector, layout)
    assert torch.equal(got, torch.ones(2, 2))


def test_a_mean_over_padding_would_be_caught() -> None:
    activation, layout = _two_samples(100.0)
    mistaken = activation.mean(1)
    right = one_row_each(activation, "mean", layout)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(mistaken, right)


def test_means_of_half_precision_are_taken_in_float32() -> None:
    activation = torch.full((4096, 1), 1.0, dtype=torch.bfloat16)
    activation[0] = 64.0
    kinds = np.zeros(4096, dtype=np.uint8)
    layout = AxisLayout(4096, [TokenLayout(np.arange(4096), kinds)])
    got = one_row_each(activation, "mean", layout)
    assert got.item() == torch.tensor((4095 + 64) / 4096).to(torch.bfloat16).item()
    running = torch.zeros(1, dtype=torch.bfloat16)
    for row in activation:
        running = running + row
    assert (running / 4096).item() != got.item()


def test_a_non_contiguous_activation() -> None:
    activation, layout = _two_samples(0.0)
    turned = activation.transpose(0, 2).contiguous().transpose(0, 2)
    assert torch.equal(one_row_each(turned, "mean", layout), torch.ones(2, 2))


@pytest.mark.parametrize("shape", [(2, 4, 2), (2, 2), (5, 2), (), (6,), (0, 6, 2)])
def test_a_wrong_number_of_rows(shape: tuple[int, ...]) -> None:
    _, layout = _two_samples(0.0)
    with pytest.raises(SiteShapeError, match=r"'llm.block.0' gave .* llm axis has 6") as caught:
        select(torch.zeros(shape), Selector.parse("last"), layout, SITE)
    assert isinstance(caught.value, SiteError)
    assert caught.value.subject == "llm.block.0"


def test_no_image_tokens_is_an_error_with_a_way_out() -> None:
    activation, layout = _two_samples(0.0)
    with pytest.raises(SelectorError, match=r"'image.mean' keeps no token of a sample with 1"):
        select(activation, Selector.parse("image.mean"), layout, SITE)


def test_several_images_with_text_between() -> None:
    kinds = np.array([2, 1, 1, 0, 1, 0, 2], dtype=np.uint8)
    layout = AxisLayout(9, [TokenLayout(np.arange(2, 9), kinds)])
    activation = torch.arange(9.0)[:, None]
    wanted = {"image": [3, 4, 6], "text": [5, 7], "special": [2, 8], "image[1:]": [4, 6]}
    for selector, rows in wanted.items():
        (got,) = select(activation, Selector.parse(selector), layout, SITE)
        assert got.flatten().tolist() == rows
    assert one_row_each(activation, "image.mean", layout).item() == pytest.approx(13 / 3)


def test_layout_positions_and_patches() -> None:
    kinds = np.array([0, 1, 1, 3], dtype=np.uint8)
    ints = np.array([0, 0])
    grid = PatchGrid(
        ints,
        ("image", "image"),
        ints,
        np.array([0, 1]),
        ints + 1,
        ints + 2,
        np.zeros((2, 4), dtype=np.float32),
    )
    layout = TokenLayout(np.arange(4), kinds, np.array([5, 9, 9, 7]), grid)
    assert layout.positions(TokenKind.IMAGE).tolist() == [1, 2]
    assert layout.positions(TokenKind.SPECIAL).tolist() == []
    assert (len(layout), layout.patches is not None and len(layout.patches)) == (4, 2)
