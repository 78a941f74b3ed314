"""Prompts in notebooks: the text of each row, and patches on the picture."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import vlmlens.report.notebook  # noqa: F401  notebooks show layouts
from vlmlens.hf.row_texts import row_texts, token_texts
from vlmlens.passes.batch import Batch
from vlmlens.report._prompt import COLOURS
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.model import tiny_model
from vlmlens.tokens import PatchGrid, TokenKind, TokenLayout

HOSTILE = 'What is <script>alert("x")</script> & 🍎é\n\x1b[31m\u202e?'
PHOTO = Image.new("RGB", (90, 60), (200, 30, 30))


@cache
def encoded(*images: Any, prompt: str = HOSTILE) -> Batch:
    return tiny_model().encode([Sample('<b>"id"</b>', prompt, images or (PHOTO,))])


def page(value: Any) -> ElementTree.Element:
    markup = value._repr_html_()
    assert "<script" not in markup
    assert '<b>"' not in markup
    return ElementTree.fromstring(markup)


def chips(shown: ElementTree.Element) -> list[ElementTree.Element]:
    """Those of the prompt, without the key above it."""
    return shown.findall("p")[1].findall("span")


# ---------------------------------------------------------------------- the text of each row


def test_texts_spell_the_prompt_row_by_row() -> None:
    layout = encoded().layout(0)
    texts = layout.texts()
    assert texts is not None
    assert len(texts) == len(layout)
    assert layout.token_ids is not None
    said = layout.kinds != TokenKind.IMAGE
    assert "".join(texts) == tiny_model().decode(layout.token_ids[said].tolist())
    assert {texts[place] for place in layout.positions(TokenKind.IMAGE)} == {""}
    start = texts.index("🍎")
    assert texts[start : start + 4] == ("🍎", "", "", "")
    shifted = tiny_model().decode(layout.token_ids[np.roll(said, 1)].tolist())
    assert "".join(texts) != shifted


def test_rows_that_are_no_tokens_have_no_texts() -> None:
    layouts = encoded().layouts
    assert layouts[Axis.VISION].samples[0].texts() is None
    assert replace(encoded().layout(0), names=None).texts() is None


def test_image_rows_need_not_be_in_the_vocabulary() -> None:
    def decode(ids: Sequence[int]) -> str:
        assert min(ids) >= 0
        return "".join("ab"[number] for number in ids)

    kinds = np.array([TokenKind.TEXT, TokenKind.IMAGE, TokenKind.VIRTUAL, TokenKind.TEXT], np.uint8)
    assert row_texts(np.array([0, -200, -1, 1]), kinds, decode) == ("a", "", "", "b")


def test_blanks_that_a_tokenizer_leaves_out_at_its_ends_are_kept() -> None:
    words = ["Red", "▁", "▁cube", "s", "\n", "▁?"]

    def decode(ids: Sequence[int]) -> str:
        return "".join(words[number] for number in ids).replace("▁", " ").strip(" ")

    texts = token_texts(range(len(words)), decode)
    assert "".join(texts) == decode(range(len(words))) == "Red  cubes\n ?"
    assert [text.strip() for text in texts] == ["Red", "", "cube", "s", "", "?"]


def test_bytes_that_never_become_a_character_end() -> None:
    texts = token_texts(range(40), lambda ids: "\ufffd" * len(ids))
    assert "".join(texts) == "\ufffd" * 40


def test_texts_and_pictures_travel_without_the_tokenizer() -> None:
    layout = encoded().layout(0)
    again = pickle.loads(pickle.dumps(layout))
    assert again.texts() == layout.texts()
    assert again._repr_html_() == layout._repr_html_()


# ---------------------------------------------------------------------- what is shown


def test_each_token_is_a_chip_in_the_colour_of_its_kind() -> None:
    layout = encoded().layout(0)
    texts, row = layout.texts() or (), 0
    for chip in chips(page(layout)):
        kind = TokenKind(int(layout.kinds[row]))
        assert COLOURS[kind] in chip.attrib["style"]
        if kind == TokenKind.IMAGE:
            assert chip.text == f"image [{row}:{row + 16}]"
            row += 16
            continue
        shown = (chip.text or "").replace("\\x1b", "\x1b").replace("\\u202e", "\u202e")
        assert shown == (texts[row].replace("\n", "⏎") or "…")
        row += 1
    assert row == len(layout)


def drawn_boxes(shown: ElementTree.Element) -> list[list[float]]:
    found = []
    for box in shown.findall(".//g/rect"):
        x, y, wide, high = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
        found.append([x, y, x + wide, y + high])
    return found


@pytest.mark.parametrize("axis", [Axis.LLM, Axis.VISION])
def test_patches_lie_on_the_picture_where_the_layout_says(axis: Axis) -> None:
    layout = encoded().layouts[axis].samples[0]
    assert layout.patches is not None
    shown = page(layout)
    picture = shown.find(".//image")
    assert picture is not None
    size = [float(picture.attrib[key]) for key in ("width", "height")]
    assert size == [180, 120]
    expected = layout.patches.box.astype(float) * [*size, *size]
    assert np.allclose(drawn_boxes(shown), expected, atol=0.02)
    wrong = replace(layout, patches=replace(layout.patches, box=layout.patches.box[::-1]))
    assert not np.allclose(drawn_boxes(page(wrong)), expected, atol=0.02)
    assert picture.attrib["href"].startswith("data:image/")


def test_patches_beyond_the_picture_are_seen_and_those_without_a_place_left_out() -> None:
    layout = encoded().layout(0)
    assert layout.patches is not None
    box = layout.patches.box.copy()
    box[0], box[1] = [-0.5, -0.5, 0.0, 0.0], np.nan
    shown = page(replace(layout, patches=replace(layout.patches, box=box)))
    svg = shown.find(".//svg")
    assert svg is not None
    left, top, _, _ = map(float, svg.attrib["viewBox"].split())
    assert (left, top) == (-94.0, -64.0)
    assert len(drawn_boxes(shown)) == len(layout.patches) - 1


def test_each_picture_has_its_patches() -> None:
    batch = tiny_model().encode([Sample("two", "Same?", (PHOTO, Image.new("RGB", (30, 90))))])
    figures = page(batch.layout(0)).findall("figure")
    assert [each.findtext("figcaption") for each in figures] == [
        "image 0, image: 4 x 4", "image 1, image: 4 x 4",
    ]  # fmt: skip
    sizes = [(each.attrib["width"], each.attrib["height"]) for each in page(batch).iter("image")]
    assert sizes == [("180", "120"), ("60", "180")]


def test_a_picture_that_is_gone_is_said(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    PHOTO.save(path)
    layout = encoded(str(path)).layout(0)
    path.unlink()
    shown = page(layout)
    assert shown.find(".//image") is None
    assert "photo.png" in (shown.findtext(".//figcaption") or "")
    assert len(drawn_boxes(shown)) == len(layout.patches or ())


def test_pictures_without_places_are_shown_alone() -> None:
    shown = page(replace(encoded().layout(0), patches=None))
    assert shown.find(".//image") is not None
    assert shown.findtext(".//figcaption") == "image 0: no patches are known for its rows"
    alone = page(tiny_model().encode([Sample("none", "Hello?")]).layout(0))
    assert alone.find(".//svg") is None


def test_large_layouts_stay_small() -> None:
    layout, side = encoded().layout(0), 70
    count = side * side
    row, col = np.divmod(np.arange(count), side)
    box = np.stack([col, row, col + 1, row + 1], 1).astype(np.float32) / side
    ints = np.full(count, side)
    grid = PatchGrid(np.zeros(count, np.int64), ("image",) * count, row, col, ints, ints, box)
    kinds = np.r_[np.full(count, TokenKind.IMAGE), np.arange(9000) % 3 * 2].astype(np.uint8)
    names = layout.names and replace(layout.names, texts=lambda: ("word",) * len(kinds))
    large = TokenLayout(np.arange(len(kinds)), kinds, np.zeros(len(kinds), int), grid, names)
    shown = page(large)
    assert len(chips(shown)) == 400
    assert "and 8,601 more" in "".join(shown.findall("p")[1].itertext())
    assert len(shown.findall(".//g/path")) == 1
    assert (shown.find(".//g/path").attrib["d"]).count("M") == count  # type: ignore[union-attr]
    assert len(large._repr_html_() or "") < 400_000


def test_a_batch_shows_its_first_samples() -> None:
    samples = [Sample(str(number), f"Number {number}?", (PHOTO,)) for number in range(5)]
    shown = page(tiny_model().encode(samples))
    assert [each.text for each in shown.findall("div/p/b")] == ["0", "1", "2"]
    assert page(encoded()).findtext("div/p/b") == '<b>"id"</b>'
    assert shown.findall("p")[-1].text == "and 2 more samples: .layout(i)"
