"""Rows of an SAE from stores and from passes, side by side, and what each of them stands for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc import ModelAdapter
from vlmlens.abc.storage import ColumnBlock, ColumnStore, Values
from vlmlens.errors import (
    ColumnNotFound,
    DataError,
    MissingAnnotation,
    OutOfMemory,
    SelectorError,
    SpecError,
    StoreError,
)
from vlmlens.registry import Registry
from vlmlens.samples import Sample
from vlmlens.stores.opening import open_named
from vlmlens.tokens import Selector, TokenKind
from vlmlens_adapter_minicpm.checks import MiniCpm46Checks
from vlmlens_plugins.sae import (
    JoinedRows,
    ModelRows,
    Passes,
    Shuffled,
    StoredRows,
    TensorRows,
    equal_scales,
    row_layouts,
)

IMAGE, ALL = "llm.block.2/image", "llm.block.2/all"


def stored(place: Path, values: Values, backend: str = "lmdb") -> ColumnStore:
    ids = tuple(f"s{i}" for i in range(len(values)))
    with open_named(Registry.default(), backend, str(place), mode="a") as store:
        store.write(ColumnBlock(ids, {"x/all": values}))
    return open_named(Registry.default(), backend, str(place), mode="r")


def values(dtype: str, lengths: tuple[int, ...] | None) -> tuple[Values, torch.Tensor]:
    """Values as a store keeps them, and as torch makes float32 of them."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(12, 6, generator=random).to(getattr(torch, dtype))
    bits = rows.view(torch.int16).numpy().view(np.uint16) if dtype == "bfloat16" else rows.numpy()
    return Values(bits, dtype, lengths), rows.float()


@pytest.mark.parametrize("backend", ["lmdb", "sqlite", "zarr", "memory"])
@pytest.mark.parametrize("lengths", [(3, 0, 5, 4), None])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_stored_rows_are_those_that_were_stored(
    tmp_path: Path, backend: str, lengths: tuple[int, ...] | None, dtype: str
) -> None:
    given, wanted = values(dtype, lengths)
    parts = wanted.split(list(lengths or (1,) * 12))
    with stored(tmp_path / "store", given, backend) as store:
        ids = [f"s{i}" for i in range(len(given))]
        rows = StoredRows(store, "x/all", ids)
        assert (rows.column, rows.width, len(rows)) == ("x/all", 6, len(ids))
        found = rows.read([2, 0, 1, 3])
        assert all(part.dtype == torch.float32 for part in found)
        assert all(map(torch.equal, found, [parts[i] for i in (2, 0, 1, 3)]))
        assert torch.equal(rows.read([3])[0], parts[3])
        assert rows.read([]) == []
        turned = StoredRows(store, "x/all", ids[::-1])
        assert torch.equal(turned.read([0])[0], parts[-1])
        feed = Shuffled(rows, batch=12, samples=range(len(ids)))
        (batch,) = next(iter(feed))
        assert torch.equal(batch.sum(1).sort().values, wanted.sum(1).sort().values)


def test_rows_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    given, _ = values("float16", (3, 0, 5, 4))
    given.array[5, 2], given.array[7, 0] = np.inf, np.nan
    with stored(tmp_path / "store", given) as store:
        rows = StoredRows(store, "x/all", ["s0", "s1", "s2", "s3"])
        assert len(rows.read([0, 1, 3])) == 3
        with pytest.raises(DataError, match=r"2 of 5 rows of the sample 's2' in 'x/all'.*is row 2"):
            rows.read([3, 2])
        with pytest.raises(DataError, match="sample 's2'"):
            Shuffled(rows, batch=4).statistics()


def test_large_rows_are_fine(tmp_path: Path) -> None:
    """The sum of a row may be infinite where no number is."""
    given = Values(np.full((2, 4), 3e38, np.float32), "float32", (1, 1))
    with stored(tmp_path / "store", given) as store:
        assert StoredRows(store, "x/all", ["s0", "s1"]).read([1])[0].isfinite().all()


def test_what_is_not_stored(tmp_path: Path) -> None:
    with stored(tmp_path / "store", values("float32", None)[0]) as store:
        with pytest.raises(ColumnNotFound, match="x/al"):
            StoredRows(store, "x/al", ["s0"])
        with pytest.raises(StoreError, match=r"2 of 3 samples have no rows .* 'a'"):
            StoredRows(store, "x/all", ["s0", "a", "b"])


# ---------------------------------------------------------------------- passes


@pytest.fixture(scope="module")
def some(vlm: ModelAdapter, scenes: list[Sample]) -> list[Sample]:
    del vlm
    return [*scenes[:11], Sample("text", "Only words.")]


def counted(monkeypatch: pytest.MonkeyPatch, vlm: ModelAdapter, name: str) -> list[int]:
    """How many samples each call of a method is about, from now on."""
    calls: list[int] = []
    method = getattr(type(vlm), name)

    def call(self: ModelAdapter, given: Any, **more: Any) -> Any:
        calls.append(len(given))
        return method(self, given, **more)

    monkeypatch.setattr(type(vlm), name, call)
    return calls


def traced(vlm: ModelAdapter, sample: Sample, column: str) -> torch.Tensor:
    """The rows of a sample, in a pass of its own."""
    trace = vlm.trace(vlm.encode([sample]), [column.partition("/")[0]])
    return trace.select(column)[0].reshape(-1, 128)


@pytest.mark.parametrize("column", [ALL, IMAGE, "vision.block.1/all", "llm.block.1/last"])
def test_rows_of_passes(vlm: ModelAdapter, some: list[Sample], column: str) -> None:
    rows = ModelRows(vlm, column, some)
    assert (rows.width, len(rows)) == (128, 12)
    found = rows.read(range(12))
    again = rows.read([11, *range(11)])
    assert all(map(torch.equal, found, [*again[1:], again[0]])), "in any order, bit for bit"
    pictured = column in (IMAGE, "vision.block.1/all")
    for sample, own in zip(some, found, strict=True):
        if pictured and not sample.images:
            assert own.shape == (0, 128)
        else:
            torch.testing.assert_close(own, traced(vlm, sample, column), atol=2e-5, rtol=1e-4)
    alone = ModelRows(vlm, column, some, 1, share=False)
    assert all(map(torch.equal, alone.read([3, 0, 7]), (alone.read([i])[0] for i in (3, 0, 7))))


def test_several_columns_take_one_pass(
    vlm: ModelAdapter, some: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Passes(vlm, ["vision.block.1/image", IMAGE], some[:5], 5, share=False)
    joined = JoinedRows(passes.rows(), [1.0, 2.0])
    assert (joined.width, joined.column) == (256, "vision.block.1/image + llm.block.2/image")
    calls = counted(monkeypatch, vlm, "forward")
    found = joined.read(range(5))
    assert calls == [5]
    near = traced(vlm, some[4], "vision.block.1/image")
    far = traced(vlm, some[4], IMAGE)
    torch.testing.assert_close(found[4], torch.cat([near, 2 * far], 1), atol=5e-5, rtol=1e-4)


def test_what_is_kept_is_what_the_same_samples_gave(
    vlm: ModelAdapter, some: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    room = 4 * 64 * 128 * 2
    passes = Passes(vlm, ["projector/image", IMAGE], some, share=False, keep=room)
    near, far = passes.rows()
    wanted = ModelRows(vlm, IMAGE, some, share=False).read([0, 3, 6])
    assert near.width == far.width == 128
    calls = counted(monkeypatch, vlm, "forward")
    first = near.read([0, 3, 6])
    done = len(calls)
    assert done
    assert all(map(torch.equal, far.read([0, 3, 6]), wanted))
    assert all(map(torch.equal, near.read([0, 3, 6]), first))
    assert len(calls) == done
    near.read([3, 6])
    assert len(calls) == done + 1, "other company"
    near.read([3, 6])
    assert len(calls) == done + 2, "there is no room for more"


def test_samples_without_images_have_rows_of_text(vlm: ModelAdapter, some: list[Sample]) -> None:
    image, text = Passes(vlm, [IMAGE, ALL], some).rows()
    assert [len(one) for one in image.read([11, 3, 11])] == [0, 64, 0]
    found = text.read([11, 3, 11])
    assert torch.equal(found[0], found[2])
    torch.testing.assert_close(found[0], traced(vlm, some[11], ALL), atol=2e-5, rtol=1e-4)
    assert [len(one) for one in image.read([11])] == [0]
    with pytest.raises(MissingAnnotation, match="none of 1 samples has an image"):
        Passes(vlm, [ALL, IMAGE], some[11:])
    assert ModelRows(vlm, ALL, some[11:]).width == 128


def test_edits_hold_in_the_thread_that_reads_ahead(vlm: ModelAdapter, some: list[Sample]) -> None:
    rows = ModelRows(vlm, IMAGE, some[:2])
    with vlm.edited([f"{IMAGE} = zero"]):
        (batch,) = next(iter(Shuffled(rows, batch=32, buffer=64)))
    assert not batch.any()
    assert rows.read([0])[0].any()


def test_a_feed_of_passes_goes_on_bit_for_bit(vlm: ModelAdapter, scenes: list[Sample]) -> None:
    def feed() -> Shuffled:
        return Shuffled(ModelRows(vlm, ALL, scenes[:14]), batch=30, buffer=600, seed=4)

    first = feed()
    batches = iter(first)
    for _ in range(41):
        next(batches)
    state = first.state()
    assert state["epoch"] > 0
    assert state["left_0"].numel()
    wanted = list(itertools.islice(batches, 12))
    again = feed()
    again.restore(state)
    for one, other in zip(wanted, again, strict=False):
        assert torch.equal(one[0], other[0])


def test_batches_that_do_not_fit_are_halved(
    vlm: ModelAdapter, some: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = type(vlm).forward
    fits = 2

    def narrow(self: ModelAdapter, batch: Any, **more: Any) -> Any:
        if len(batch) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, batch, **more)

    wanted = ModelRows(vlm, IMAGE, some).read(range(8))
    monkeypatch.setattr(type(vlm), "forward", narrow)
    said: list[str] = []
    found = ModelRows(vlm, IMAGE, some, share=False, warn=said.append).read(range(8))
    assert "halved" in said[0]
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    with pytest.raises(OutOfMemory, match="8 samples at once"):
        ModelRows(vlm, IMAGE, some, 8, share=False).read(range(8))


def test_columns_that_passes_do_not_give(vlm: ModelAdapter, some: list[Sample]) -> None:
    cases: list[tuple[type[Exception], str, str]] = [
        (SelectorError, "llm.block.1/steps", "about generated tokens"),
        (SelectorError, "llm.block.1/answer.mean", "about generated tokens"),
        (SelectorError, "llm.block.1", "has no selector"),
        (SpecError, "llm.block.*/image", "names 6 sites"),
    ]
    for error, column, message in cases:
        with pytest.raises(error, match=message):
            ModelRows(vlm, column, some)
    assert ModelRows(vlm, "llm.block.-1/image", some).column == "llm.block.5/image"


# ---------------------------------------------------------------------- side by side


def test_columns_are_scaled_to_equal_parts() -> None:
    random = torch.Generator().manual_seed(1)
    one = TensorRows(torch.randn(400, 8, generator=random) * 30 + 500, [4] * 100, "a/all")
    other = TensorRows(torch.randn(400, 24, generator=random) * 0.01, [4] * 100, "b/all")
    joined = JoinedRows([one, other], equal_scales([one, other]))
    rows = torch.cat(joined.read(range(100))).double()
    spread = (rows - rows.mean(0)).square().sum(0)
    near, far = (float(part.sum()) / 400 for part in spread.split([8, 24]))
    assert near == pytest.approx(16, rel=1e-4)
    assert far == pytest.approx(16, rel=1e-4)
    with pytest.raises(DataError, match="b/all are all the same"):
        equal_scales([one, TensorRows(torch.ones(400, 3), [4] * 100, "b/all")])


def test_what_cannot_be_joined(tmp_path: Path) -> None:
    given, _ = values("float32", (3, 0, 5, 4))
    with stored(tmp_path / "store", given) as store:
        rows = StoredRows(store, "x/all", ["s0", "s1", "s2", "s3"])
        other = TensorRows(torch.ones(12, 2), [3, 0, 4, 5], "y/all")
        with pytest.raises(DataError, match=r"The sample 's2' has .* 5 in 'x/all', 4 in 'y/all'"):
            JoinedRows([rows, other]).read([0, 1, 2])
        with pytest.raises(DataError, match="x/all: 4, y/all: 3"):
            JoinedRows([rows, TensorRows(torch.ones(12, 2), [4, 4, 4], "y/all")])
        for parts, scales in (([], None), ([rows], [1.0, 1.0])):
            with pytest.raises(SpecError, match="are joined with"):
                JoinedRows(parts, scales)


# ---------------------------------------------------------------------- layouts


def kinds(layout: Any) -> list[int]:
    return [int(kind) for kind in layout.kinds]


@pytest.mark.parametrize("column", [ALL, IMAGE, "vision.block.1/all", "llm.block.2/text[-3:]"])
def test_layouts_of_rows(vlm: ModelAdapter, some: list[Sample], column: str) -> None:
    rows = ModelRows(vlm, column, some).read(range(11))
    found = row_layouts(vlm, column, some[:11])
    assert [len(one) for one in found] == [len(one) for one in rows]
    site, _, text = column.partition("/")
    selector = Selector.parse(text)
    (where,) = vlm.sites.resolve(site)
    for sample, one in zip(some, found, strict=False):
        (whole,) = vlm.encode([sample]).layouts[where.axis].samples
        places = selector.positions(whole)
        assert kinds(one) == [int(whole.kinds[i]) for i in places]
        if whole.token_ids is not None and one.token_ids is not None:
            assert one.token_ids.tolist() == whole.token_ids[places].tolist()
        shown = int((one.kinds == TokenKind.IMAGE).sum())
        assert (one.patches is None) == (whole.patches is None)
        if one.patches is not None and whole.patches is not None:
            assert np.array_equal(one.patches.box, whole.patches.box[:shown])


def test_pooled_rows_and_samples_without_images(vlm: ModelAdapter, some: list[Sample]) -> None:
    def of(column: str) -> list[list[int]]:
        return [kinds(one) for one in row_layouts(vlm, column, some[-2:])]

    assert of("llm.block.2/image.mean") == [[TokenKind.IMAGE], []]
    assert of("llm.block.2/mean") == [[TokenKind.SPECIAL], [TokenKind.SPECIAL]]
    assert of("llm.block.2/last") == [[TokenKind.TEXT], [TokenKind.TEXT]]
    with pytest.raises(SelectorError, match="no token"):
        row_layouts(vlm, "llm.block.2/answer", some[:1])
    with pytest.raises(DataError, match=r"has 9 rows at llm\.block\.2/image"):
        row_layouts(vlm, IMAGE, some[:1], [9])
    with pytest.raises(DataError, match="2 numbers of rows were given for 1"):
        row_layouts(vlm, IMAGE, some[:1], [9, 9])


def test_a_skeleton_knows_them_and_asking_again_is_free(
    vlm: ModelAdapter, some: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    skeleton = type(vlm).skeleton(vlm.request)  # type: ignore[attr-defined]
    encoded = counted(monkeypatch, vlm, "encode")
    first = row_layouts(skeleton, IMAGE, some[:11])
    assert encoded == [2, 1], "one of each picture, in two batches of samples"
    again = row_layouts(skeleton, IMAGE, [replace(sample, id="other") for sample in some[:11]])
    assert encoded == [2, 1]
    assert all(one is other for one, other in zip(first, again, strict=True))
    row_layouts(skeleton, ALL, some[:5])
    assert encoded == [2, 1, 5], "where text counts, each prompt is encoded"
    words = [kinds(one) for one in row_layouts(skeleton, ALL, some[:5])]
    assert words == [kinds(one) for one in row_layouts(vlm, ALL, some[:5])]


def test_each_site_has_its_own_resolution() -> None:
    """MiniCPM-V merges patches on the way through the tower."""
    vlm = MiniCpm46Checks().vlm
    samples: Sequence[Sample] = MiniCpm46Checks().samples
    for site in ("vision.block.0", "vision.block.2", "projector"):
        rows = ModelRows(vlm, f"{site}/image", samples, 2).read(range(3))
        counts = [len(one) for one in rows]
        found = row_layouts(vlm, f"{site}/image", samples)
        assert [len(one) for one in found] == counts
        known = row_layouts(vlm, f"{site}/image", samples, counts)
        assert [len(one.patches or ()) for one in known] == counts
        for one, other in zip(found, known, strict=True):
            assert one.patches is not None
            assert other.patches is not None
            assert np.array_equal(one.patches.box, other.patches.box)
