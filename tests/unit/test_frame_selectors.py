"""Rows of frames: `image.frame(3)`, ranges, `video`; frames that are not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import vlmlens
from vlmlens.compose.row_check import check_named_rows
from vlmlens.errors import EditWithoutEffect, MissingAnnotation, SelectorError
from vlmlens.rows.sample_regions import SampleRegions
from vlmlens.samples import Sample
from vlmlens.tokens import Column, PatchGrid, Selector, TokenKind, TokenLayout
from vlmlens.videos import Video

FRAMES, EACH = 3, 2


def grid(image: list[int], span: list[int] | None = None) -> PatchGrid:
    n = len(image)
    zeros = np.zeros(n, np.int64)
    spans = None if span is None else np.array(span)
    box = np.tile(np.array([0, 0, 1, 1], np.float32), (n, 1))
    return PatchGrid(
        np.array(image), ("image",) * n, zeros, zeros, zeros + 1, zeros + 1, box, spans
    )


def layout(image: list[int], span: list[int] | None = None) -> TokenLayout:
    """A text row before each image row: image row i is row 2 i + 1."""
    kinds = np.tile(np.array([TokenKind.TEXT, TokenKind.IMAGE], np.uint8), len(image))
    return TokenLayout(np.arange(len(kinds)), kinds, patches=grid(image, span))


def rows(selector: str, of: TokenLayout) -> list[int]:
    """Numbers of the image rows that are kept."""
    found = Selector.parse(selector).rows(of)
    assert all(row % 2 for row in found)
    return [int(row) // 2 for row in found]


PLAIN = layout([0, 0, 1, 1, 2, 2])
MERGED = layout([0, 0, 2, 2, 4, 4], [2, 2, 2, 2, 1, 1])
"""Five frames: two steps of two frames each, and a single one."""


@pytest.mark.parametrize(
    ("selector", "kept"),
    [
        ("image.frame(0)", [0, 1]),
        ("image.frame(2)", [4, 5]),
        ("image.frame(-1)", [4, 5]),
        ("image.frame(-3)", [0, 1]),
        ("image.frame(1:)", [2, 3, 4, 5]),
        ("image.frame(:-1)", [0, 1, 2, 3]),
        ("image.frame( 0 : 1 )", [0, 1]),
        ("image.frame(:)", [0, 1, 2, 3, 4, 5]),
        ("image.frame(1)[0]", [2]),
        ("image.frame(0:2)[-1]", [3]),
        ("video", [0, 1, 2, 3, 4, 5]),
        ("video[1:3]", [1, 2]),
    ],
)
def test_rows_of_frames(selector: str, kept: list[int]) -> None:
    assert rows(selector, PLAIN) == kept


@pytest.mark.parametrize(
    ("selector", "kept"),
    [
        ("image.frame(0)", [0, 1]),
        ("image.frame(1)", [0, 1]),
        ("image.frame(2)", [2, 3]),
        ("image.frame(3)", [2, 3]),
        ("image.frame(4)", [4, 5]),
        ("image.frame(-1)", [4, 5]),
        ("image.frame(1:3)", [0, 1, 2, 3]),
    ],
)
def test_merged_frames_share_their_rows(selector: str, kept: list[int]) -> None:
    assert rows(selector, MERGED) == kept


def test_without_spans_merged_rows_would_be_lost() -> None:
    forgotten = layout([0, 0, 2, 2, 4, 4])
    with pytest.raises(SelectorError, match="no such frame"):
        rows("image.frame(1)", forgotten)


def test_a_part_of_a_grid_keeps_its_spans() -> None:
    whole = MERGED.patches
    assert whole is not None
    part = whole.take(np.array([4, 1]))
    assert part.span is not None
    assert part.span.tolist() == [1, 2]
    assert part.end.tolist() == [5, 2]
    assert whole.of_image(3).tolist() == [False, False, True, True, False, False]


def test_regions_of_a_frame_lie_in_the_rows_that_stand_for_it() -> None:
    from vlmlens.rows.names import Names

    shapes = '{"cat": {"box": [0, 0, 4, 4], "image": 3}}'
    sample = Sample("a", "?", ("x",) * 5, attributes={"regions": shapes})
    names = Names(SampleRegions(sample, [(8, 8)] * 5))
    assert rows("image.region(cat)", replace(MERGED, names=names)) == [2, 3]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.data())
def test_every_frame_has_the_rows_of_its_step(spans: list[int], data: st.DataObject) -> None:
    firsts = [sum(spans[:i]) for i in range(len(spans))]
    made = layout(firsts, spans)
    number = data.draw(st.integers(-sum(spans), sum(spans) - 1))
    step = next(
        i for i, first in enumerate(firsts) if first <= number % sum(spans) < first + spans[i]
    )
    assert rows(f"image.frame({number})", made) == [step]
    assert rows("image.frame(:)", made) == list(range(len(spans)))


@pytest.mark.parametrize(
    "text",
    ["image.frame(3)", "image.frame(-1).mean", "image.frame(2:5).max", "image.frame(:)", "video",
     "video.mean", "video[-1]", "image.frame(:-1)[0]"],
)  # fmt: skip
def test_they_are_written_as_they_are_read(text: str) -> None:
    found = Selector.parse(text)
    assert str(found) == text
    assert Selector.parse(str(found)) == found
    assert found.kind is TokenKind.IMAGE
    assert str(Column.parse(f"llm.block.3/{text}")) == f"llm.block.3/{text}"


@pytest.mark.parametrize(
    "text",
    ["image.frame()", "image.frame(x)", "image.frame(1,2)", "image.frame", "frame(3)", "video(3)",
     "image.frame(1.5)", "image.frame(1:2:3)", "image.video", "video.frame(3)"],
)  # fmt: skip
def test_what_is_no_selector_of_frames(text: str) -> None:
    with pytest.raises(SelectorError, match="is not a selector"):
        Selector.parse(text)


@pytest.mark.parametrize("text", ["image.frame(3)", "image.frame(-4)", "image.frame(2:2)"])
def test_a_frame_that_is_not_there(text: str) -> None:
    with pytest.raises(SelectorError, match=r"no such frame\. It has 3 frames, 0 to 2"):
        rows(text, PLAIN)
    one = layout([0])
    with pytest.raises(SelectorError, match="It has 1 frame"):
        rows("image.frame(1)", one)


def test_a_family_without_a_grid_says_so() -> None:
    kinds = np.array([TokenKind.IMAGE] * 4, np.uint8)
    bare = TokenLayout(np.arange(4), kinds)
    with pytest.raises(SelectorError, match="where image rows lie"):
        Selector.parse("image.frame(0)").rows(bare)
    assert len(Selector.parse("video").rows(bare)) == 4


# --------------------------------------------------------------------------- before weights


def shown(frames: int, *, video: bool = True, name: str = "a") -> Sample:
    known = Video("a.mp4", tuple(range(frames))) if video and frames else None
    return Sample(name, "?", ("x.png",) * frames, video=known)


def test_samples_that_lack_frames_are_named_before_weights_are_loaded() -> None:
    columns = ["llm.block.0/image.frame(5)", "llm.block.0/last"]
    check_named_rows(columns, [], [shown(6)])
    with pytest.raises(
        MissingAnnotation, match=r"'b' has no such frame. So it is with 1 more of 3"
    ):
        check_named_rows(columns, [], [shown(6), shown(5, name="b"), shown(0, name="c")])
    check_named_rows(["projector/image.frame(-2)"], [], [shown(2, video=False)])
    with pytest.raises(MissingAnnotation, match="'a' has no video"):
        check_named_rows(["projector/video.mean"], [], [shown(2, video=False)])
    check_named_rows(["projector/video.mean"], [], [shown(2)])


# --------------------------------------------------------------------------- on a model


@pytest.fixture(scope="module")
def traced() -> tuple[Any, Sample, Any]:
    vlm = vlmlens.load("demo", device="cpu")
    colors = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    frames = tuple(Image.new("RGB", (64, 64), color) for color in colors)
    sample = Sample("a", "Color?", frames, video=Video(fps=1))
    return vlm, sample, vlm.trace(vlm.encode([sample]), ["llm.block.2", "vision.block.1"])


def test_means_of_frames_are_those_of_their_rows(traced: tuple[Any, Sample, Any]) -> None:
    _, _, trace = traced
    for site in ("llm.block.2", "vision.block.1"):
        whole = trace.select(f"{site}/image")[0].double()
        parts = whole.reshape(FRAMES, -1, whole.shape[-1])
        for number in range(FRAMES):
            own = trace.select(f"{site}/image.frame({number}).mean")[0].double()
            assert torch.allclose(own, parts[number].mean(0), atol=1e-5)
            other = parts[(number + 1) % FRAMES].mean(0)
            assert not torch.allclose(own, other, atol=1e-3)  # the next frame would be seen
        pooled = trace.select(f"{site}/video.mean")[0].double()
        assert torch.allclose(pooled, whole.mean(0), atol=1e-5)


def test_a_frame_is_edited_alone(traced: tuple[Any, Sample, Any]) -> None:
    vlm, sample, _ = traced
    batch = vlm.encode([sample])
    edited = vlm.trace(batch, ["llm.embed"], edits=["llm.embed/image.frame(1) = zero"])
    plain = vlm.trace(batch, ["llm.embed"])
    for number in range(FRAMES):
        column = f"llm.embed/image.frame({number})"
        now, before = edited.select(column)[0], plain.select(column)[0]
        assert bool((now == 0).all()) is (number == 1)
        assert torch.equal(now, before) is (number != 1)
    with pytest.raises((SelectorError, EditWithoutEffect)):
        vlm.trace(batch, ["llm.embed"], edits=["llm.embed/image.frame(3) = zero"])
