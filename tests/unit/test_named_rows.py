"""Rows that people name: words of the question, options, regions, views, patches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vlmlens.compose.row_check import check_named_rows
from vlmlens.errors import (
    DataError,
    ImageError,
    MissingAnnotation,
    SelectorError,
    VlmlensError,
)
from vlmlens.hf.layouts import CropGeometry, grid_patches
from vlmlens.hf.question_rows import spelled
from vlmlens.hf.tiles import tiled_patches
from vlmlens.passes.edits import WrittenEdit
from vlmlens.question_text import marked_options, named_choices, option_span, word_spans
from vlmlens.regions import Shape, regions_of
from vlmlens.rows.names import Names
from vlmlens.rows.question import Question
from vlmlens.rows.sample_regions import SampleRegions
from vlmlens.runs.trust import NOWHERE, vetted_sample
from vlmlens.samples import Sample
from vlmlens.testing.model import tiny_model
from vlmlens.testing.tiny import picture
from vlmlens.tokens import Column, PatchGrid, Selector, TokenKind, TokenLayout
from vlmlens_plugins.data.table import Table, TableOptions

# ---------------------------------------------------------------------- how they are written


@pytest.mark.parametrize(
    ("text", "canonical", "ragged"),
    [
        ("question", "question", True),
        ("question.mean", "question.mean", False),
        ("word(red)[-1]", "word(red)[-1]", False),
        ("word( main   object )", "word(main object)", True),
        ("option(B).max", "option(B).max", False),
        ("image.region(cube).mean", "image.region(cube).mean", False),
        ("image.region(red cube,ring = 2)[:3]", "image.region(red cube, ring=2)[:3]", True),
        ("image.region(cube, ring=0)", "image.region(cube)", True),
        ("image.rest", "image.rest", True),
        ("image.rest(cube).mean", "image.rest(cube).mean", False),
        ("image.rest(ring=1)", "image.rest(ring=1)", True),
        ("image.view(tile 0)", "image.view(tile 0)", True),
        ("image.view(-1)[0]", "image.view(-1)[0]", False),
        ("image.patch(2,3)", "image.patch(2, 3)", True),
    ],
)
def test_spellings(text: str, canonical: str, ragged: bool) -> None:
    selector = Selector.parse(text)
    assert (str(selector), selector.ragged) == (canonical, ragged)
    assert Selector.parse(canonical) == selector
    assert hash(Selector.parse(canonical)) == hash(selector)
    kind = TokenKind.IMAGE if text.startswith("image") else TokenKind.TEXT
    assert selector.kind == kind
    assert str(Column.parse(f"llm.block.3/{text}")) == f"llm.block.3/{canonical}"


@pytest.mark.parametrize(
    "text",
    [
        *("word", "word()", "word( )", "word(a, b)", "word(a)b", "word((a))", "word(a/b)"),
        *("option(A, ring=1)", "question(a)", "question()", "image.word(a)", "image.question"),
        *("image.region", "image.region()", "image.region(ring=1)", "image.region(a, b)"),
        *("image.region(a, ring=x)", "image.region(a, ring=-1)", "image.rest()", "image.rest(,)"),
        *("image.view(a, b)", "image.patch(1)", "image.patch(-1, 2)", "image.patch(1, 2, 3)"),
        *("region(a)", "[3](a)", "word(a).sum", "last.word(a)"),
    ],
)
def test_what_is_no_selector(text: str) -> None:
    with pytest.raises(SelectorError, match="is not a selector"):
        Selector.parse(text)


def test_edits_take_them() -> None:
    edit = WrittenEdit.parse("llm.block.3/image.region(cube, ring=1) = noise(2, seed=1)")
    assert (edit.site, edit.selector) == ("llm.block.3", "image.region(cube, ring=1)")
    cut = WrittenEdit.parse("llm.block.*.attn / question <- image.region(cube, ring=1) = cut").cut
    assert (str(cut.queries), str(cut.keys)) == ("question", "image.region(cube, ring=1)")


# ---------------------------------------------------------------------- words and options


@pytest.mark.parametrize(
    ("text", "word", "found"),
    [
        ("Is the red one reddish or RED?", "red", ["red", "RED"]),
        ("main\n  object, domain object", "main object", ["main\n  object"]),
        ("What is this?", "this?", ["this?"]),
        ("C++ or C?", "C++", ["C++"]),
        ("这个红色的方块", "红色", ["红色"]),
        ("redo", "red", []),
        ("a.b", ".", ["."]),
    ],
)
def test_words(text: str, word: str, found: list[str]) -> None:
    assert [text[low:high] for low, high in word_spans(text, word)] == found


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("Which?\nA. red\nB. dark blue ", {"A": "red", "B": "dark blue"}),
        ("Which?\n (a) red;\n (b) blue", {"a": "red", "b": "blue"}),
        (
            "Which? (A) red, (B) blue or (C) green. Say a letter.",
            {"A": "red", "B": "blue", "C": "green"},
        ),
        ("Which? A) red B) blue\nAnswer with a letter.", {"A": "red", "B": "blue"}),
        ("1. yes\n2. no", {"1": "yes", "2": "no"}),
        ("A. x\nB. y\n\nNow:\nA. red\nB. blue", {"A": "red", "B": "blue"}),
        ("Who is J. Smith?", {}),
        ("Is A. Smith there?", {}),
        ("It is 1.5 m. Or 2.5 m?", {}),
    ],
)
def test_options(text: str, options: dict[str, str]) -> None:
    assert {mark: text[low:high] for mark, (low, high) in marked_options(text).items()} == options


def test_an_option_is_found_by_letter_or_text_where_that_is_clear() -> None:
    marked = "Which?\nA. red\nB. blue\nC. red"
    assert option_span(marked, (), "b") == option_span(marked, (), "Blue") == (17, 21)
    assert option_span(marked, (), "red") is None
    assert option_span(marked, ("x", "y"), "y") is None
    asked, choices = "Is it red or blue?", ("red", "blue")
    assert option_span(asked, choices, "B") == option_span(asked, choices, "blue") == (13, 17)
    assert option_span(asked, (), "B") is None
    assert option_span(asked, ("red", "green"), "A") is None
    assert option_span("Is the red one red or blue?", choices, "A") is None


# ---------------------------------------------------------------------- rows of the question


def test_characters_of_several_tokens_are_told_from_their_neighbours() -> None:
    day, e = "日".encode(), "é".encode()
    raw = [b"a ", day[:1], day[1:] + b"b", e[:1], e[1:]]

    def decode(ids: Sequence[int]) -> str:
        return b"".join(raw[i] for i in ids).decode(errors="replace")

    found = list(spelled(range(5), decode))
    assert found == [("a", 0, 0), (" ", 0, 0), ("日", 1, 2), ("b", 2, 2), ("é", 3, 4)]
    assert list(spelled([0, 1], decode))[-1] == ("\ufffd", 1, 1)


def layout_of_question(
    text: str, pieces: Sequence[str], choices: Sequence[str] = ()
) -> TokenLayout:
    """Rows of a question in pieces, between a row before it and one after it."""
    ends = np.cumsum([len(piece) for piece in pieces])
    spans = [(-1, -1), *zip(ends - [len(p) for p in pieces], ends, strict=True), (-1, -1)]
    question = Question("s", text, np.array(spans), choices)
    names = Names(SampleRegions(Sample("s", text), []), lambda: question)
    return TokenLayout(np.arange(len(spans)) + 5, np.zeros(len(spans), np.uint8), names=names)


def test_rows_of_words() -> None:
    pieces = ["A", " red", "dish", " re", "d.", " Red"]
    layout = layout_of_question("A reddish red. Red", pieces)

    def rows(selector: str) -> list[int]:
        return Selector.parse(selector).positions(layout).tolist()

    assert rows("question") == [1, 2, 3, 4, 5, 6]
    assert rows("word(red)") == [4, 5, 6]
    assert rows("word(red)[0]") == [4]
    assert rows("word(reddish red)") == [2, 3, 4, 5]
    assert Selector.parse("word(red)").rows(layout).tolist() == [9, 10, 11]
    with pytest.raises(SelectorError, match=r"the sample 's' has no word 'green'"):
        rows("word(green)")
    with pytest.raises(SelectorError, match="no option 'A'"):
        rows("option(A)")


def test_axes_without_words_and_adapters_that_say_nothing_are_refused() -> None:
    bare = TokenLayout(np.arange(3), np.zeros(3, np.uint8))
    with pytest.raises(SelectorError, match="the adapter says nothing"):
        Selector.parse("question").positions(bare)
    names = Names(SampleRegions(Sample("s", "?"), []))
    with pytest.raises(SelectorError, match="do not stand on this axis"):
        Selector.parse("question").positions(replace(bare, names=names))


PROMPTS = (
    "What is the red cube, 日本 é?",
    "USER: x ASSISTANT: USER:",
    "Is <image> the red  one\nred?",
    "red <image>",
    "The ASSISTANT: <image> red",
    "It is <s> red <s>?",
)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_question_is_found_whatever_else_is_in_the_prompt(prompt: str) -> None:
    vlm = tiny_model()
    other = Sample(
        "o", "A much longer question, so that the other one is padded?", (picture(9, 9),)
    )
    layout = vlm.encode([other, Sample("s", prompt, (picture(64, 48),))]).layout(1)
    assert layout.token_ids is not None

    def read(selector: str) -> str:
        places = Selector.parse(selector).positions(layout)
        return "".join(vlm.decode(layout.token_ids[places].tolist()).split())

    plain = prompt.replace("<image>", "").replace("<s>", "")
    assert read("question") == "".join(plain.split())
    if "red" in prompt:
        assert read("word(red)") == "red" * plain.count("red")


def test_what_the_tokens_do_not_spell_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = tiny_model()
    layout = vlm.encode([Sample("s", "What?", (picture(9, 9),))]).layout(0)
    monkeypatch.setattr(type(vlm), "decode", lambda self, ids: "x" * len(ids))
    with pytest.raises(
        SelectorError, match=r"the question of the sample 's' stands .* is not known"
    ):
        Selector.parse("question").positions(layout)


# ---------------------------------------------------------------------- rows of images


def image_layout(grid: PatchGrid | None, regions: object = None, sizes: Any = ((60, 40),)) -> Any:
    """A layout of a CLS row and the rows of a grid."""
    count = 6 if grid is None else len(grid)
    kinds = np.array([TokenKind.SPECIAL, *[TokenKind.IMAGE] * count], np.uint8)
    given = {} if regions is None else {"regions": json.dumps(regions)}
    names = Names(SampleRegions(Sample("s", "?", attributes=given), sizes))
    return TokenLayout(np.arange(count + 1), kinds, patches=grid, names=names)


def places(selector: str, layout: TokenLayout) -> list[int]:
    found: list[int] = Selector.parse(selector).positions(layout).tolist()
    return found


GRID = grid_patches(0, 4, 6, (10, 10), CropGeometry(60, 40))
"""Patches of 10 x 10 pixels over an image of 60 x 40; the first row is place 1."""


@pytest.mark.parametrize(
    ("box", "cells"),
    [
        ([0, 0, 10, 10], [(0, 0)]),
        ([10, 10, 20, 20], [(1, 1)]),
        ([10, 10, 20.5, 20], [(1, 1), (1, 2)]),
        ([19, 9, 21, 11], [(0, 1), (0, 2), (1, 1), (1, 2)]),
        ([59, 39, 60, 40], [(3, 5)]),
        ([[0, 0, 1, 1], [55, 0, 60, 1]], [(0, 0), (0, 5)]),
    ],
)
def test_a_region_is_the_patches_that_share_area_with_it(box: Any, cells: list[Any]) -> None:
    layout = image_layout(GRID, {"cube": box, "all": [0, 0, 60, 40]})
    expected = [1 + 6 * row + col for row, col in cells]
    assert places("image.region(cube)", layout) == expected
    assert places("image.rest(cube)", layout) == sorted({*range(1, 25)} - {*expected})
    near = [
        1 + 6 * r + c
        for r in range(4)
        for c in range(6)
        if any(max(abs(r - row), abs(c - col)) <= 1 for row, col in cells)
    ]
    assert places("image.region(cube, ring=1)", layout) == near
    assert places("image.region(cube, ring=9)", layout) == [*range(1, 25)]
    with pytest.raises(SelectorError, match="keeps no token"):
        places("image.rest", layout)


@pytest.mark.parametrize("width", [7, 30, 60, 333, 4096])
def test_edges_that_meet_do_not_overlap_by_rounding(width: int) -> None:
    grid = grid_patches(0, 3, 3, (width / 3, width / 3), CropGeometry(width, width))
    box = [width / 3, width / 3, 2 * width / 3, 2 * width / 3]
    layout = image_layout(grid, {"cube": box}, [(width, width)])
    assert places("image.region(cube)", layout) == [5]


def test_every_view_that_shows_a_region_counts() -> None:
    grid = tiled_patches(0, 2, (2, 1), overview="first")
    layout = image_layout(grid, {"cube": [0, 0, 16, 20]})
    assert places("image.region(cube)", layout) == [1, 5, 6]
    assert places("image.region(cube, ring=1)", layout) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert places("image.view(0)", layout) == places("image.view(global)", layout) == [1, 2, 3, 4]
    assert (
        places("image.view(-1)", layout) == places("image.view(tile 1)", layout) == [*range(9, 13)]
    )
    assert places("image.patch(1, 0)", layout) == [3, 7, 11]
    with pytest.raises(SelectorError, match="no such view") as caught:
        places("image.view(3)", layout)
    assert "0 (global), 1 (tile 0), 2 (tile 1)" in caught.value.hint
    with pytest.raises(SelectorError, match="no such patch") as caught:
        places("image.patch(2, 0)", layout)
    assert "2 x 2" in caught.value.hint


def mask(path: Path, *, size: tuple[int, int] = (60, 40), mode: str = "L") -> str:
    made = Image.new(mode, size)
    ImageDraw.Draw(made).rectangle((20, 10, 29, 10), fill=1 if mode == "L" else (0, 1, 0, 255))
    made.save(path)
    return str(path)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_masks(tmp_path: Path, mode: str) -> None:
    path = mask(tmp_path / "m.png", mode=mode)
    layout = image_layout(GRID, {"cube": {"mask": path}})
    assert places("image.region(cube)", layout) == [1 + 6 + 2]
    wrong = image_layout(GRID, {"cube": {"mask": mask(tmp_path / "n.png", size=(40, 60))}})
    with pytest.raises(ImageError, match="is 40 x 60 pixels") as caught:
        places("image.region(cube)", wrong)
    assert "60 x 40" in caught.value.hint
    with pytest.raises(ImageError, match="cannot be read"):
        places("image.region(cube)", image_layout(GRID, {"cube": {"mask": "no.png"}}))


def test_regions_of_another_image_and_grids_that_are_not_known() -> None:
    two = {"cube": {"image": 1, "box": [0, 0, 5, 5]}}
    with pytest.raises(SelectorError, match="no image row of the sample 's' lies there"):
        places("image.region(cube)", image_layout(GRID, two, ((60, 40), (60, 40))))
    for selector in ("image.region(cube)", "image.rest", "image.view(0)", "image.patch(0, 0)"):
        with pytest.raises(SelectorError, match="needs to know where image rows lie"):
            places(selector, image_layout(None, two))
    with pytest.raises(SelectorError, match="has no regions"):
        places("image.rest", image_layout(GRID))
    with pytest.raises(SelectorError, match="has no region 'ball'") as caught:
        places("image.region(ball)", image_layout(GRID, {"cube": [0, 0, 1, 1]}))
    assert "cube" in caught.value.hint


# ---------------------------------------------------------------------- what samples say


def test_regions_are_read_in_every_form() -> None:
    given = {
        "a": [0, 1, 2, 3],
        "b": [[0, 1, 2, 3], {"image": 1, "box": [0, 0, 1, 1]}],
        "c": {"mask": "m.png"},
    }
    assert regions_of(json.dumps(given), "s") == {
        "a": (Shape(0, (0, 1, 2, 3)),),
        "b": (Shape(0, (0, 1, 2, 3)), Shape(1, (0, 0, 1, 1))),
        "c": (Shape(0, mask="m.png"),),
    }


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "3", '{"a": []}', '{"a": 3}', '{"a": [1, 2, 3]}', '{"a": [2, 0, 1, 1]}'),
        *(
            '{"a": [0, 0, NaN, 1]}',
            '{"a": [0, 0, true, 1]}',
            '{"a": {"box": [0, 0, 1, 1], "x": 1}}',
        ),
        *('{"a": {}}', '{"a": {"image": -1, "box": [0, 0, 1, 1]}}', '{"a": {"mask": 3}}'),
        *('{"a": {"mask": "m", "box": [0, 0, 1, 1]}}', '{"a": [[0, 0, 1, 1], 3]}', 17),
    ],
)
def test_regions_that_cannot_be_used(text: object) -> None:
    with pytest.raises(DataError, match="regions of the sample 's7' cannot be used"):
        regions_of(text, "s7")


def test_samples_keep_what_says_which_rows_are_meant(tmp_path: Path) -> None:
    path = mask(tmp_path / "m.png")
    plain = Sample("s", "Is it red or blue?")
    boxed = replace(plain, attributes={"regions": json.dumps({"a": {"mask": path}}), "x": 1})
    asked = replace(plain, choices=("red", "blue"))
    prints = {each.fingerprint() for each in (plain, boxed, asked)}
    assert len(prints) == 3
    assert set(boxed.as_seen().attributes) == {"regions"}
    for each in (plain, boxed, asked):
        assert each.as_seen().fingerprint() == each.fingerprint()
    mask(tmp_path / "m.png", size=(50, 50))
    assert boxed.fingerprint() not in prints
    assert named_choices("Which?", ("red", "blue")) == ()
    assert replace(asked, prompt="Which?").as_seen().choices == ()


def test_masks_outside_a_run_that_is_not_trusted_are_not_opened(tmp_path: Path) -> None:
    inside, outside = str(tmp_path / "run" / "m.png"), str(tmp_path / "m.png")
    regions = {"a": {"mask": inside}, "b": [{"mask": outside}]}
    sample = Sample("s", "?", attributes={"regions": json.dumps(regions)})
    kept = json.loads(vetted_sample(sample, tmp_path / "run").attributes["regions"])
    assert kept == {"a": {"mask": inside}, "b": [{"mask": f"{NOWHERE}{outside}"}]}
    assert vetted_sample(sample, tmp_path) is sample


# ---------------------------------------------------------------------- before weights are loaded


def test_composing_names_the_sample_and_what_there_is(tmp_path: Path) -> None:
    picture(64, 48).save(tmp_path / "a.png")
    image = (str(tmp_path / "a.png"),)
    regions = json.dumps({"cube": [0, 0, 64, 48]})
    good = Sample("good", "Is it (A) red or (B) blue?", image, attributes={"regions": regions})
    lacking = [replace(good, id=f"bad{i}", prompt="?", attributes={}) for i in range(3)]
    columns = [
        "llm.block.0/word(red)",
        "projector/image.region(cube).mean",
        "llm.block.0/option(B)",
    ]
    check_named_rows([*columns, "llm.block.0/question", "llm.block.1/last"], [], [good])
    for column in columns:
        with pytest.raises(MissingAnnotation, match=r"'bad0' .*2 more of 4 samples"):
            check_named_rows([column], [], [good, *lacking])
    cut = WrittenEdit.parse("llm.block.0.attn / last <- image.region(ball) = cut").cut
    with pytest.raises(MissingAnnotation, match="'good' has no region 'ball'") as caught:
        check_named_rows([], [cut], [good])
    assert "cube" in caught.value.hint
    outside = replace(good, attributes={"regions": regions.replace("64", "65")})
    with pytest.raises(DataError, match=r"outside its 64 x 48 image"):
        check_named_rows(["projector/image.rest"], [], [outside])
    check_named_rows(["projector/image"], [], [outside])


def test_an_edit_of_a_region_is_one_of_its_rows() -> None:
    vlm = tiny_model()
    given = {"regions": json.dumps({"cube": [20, 20, 30, 40]})}
    samples = [
        Sample(f"s{i}", prompt, (picture(*size),), attributes=given)
        for i, (prompt, size) in enumerate([("What is it?", (64, 48)), ("Hm?", (40, 88))])
    ]
    batch = vlm.encode(samples)
    site = "llm.block.0"
    named = vlm.trace(batch, [site], edits={f"{site}/image.region(cube)": lambda rows: rows * 0})
    for i in range(2):
        rows = Selector.parse("image.region(cube)").rows(batch.layout(i)).tolist()
        flat = named[site].flatten(0, 1)
        zero = [row for row in batch.layout(i).rows.tolist() if not flat[row].any()]
        assert zero == rows
        assert 0 < len(rows) < 16
    trace = vlm.trace(batch, [site])
    assert trace.select(f"{site}/image.region(cube).mean").shape == (2, 32)  # type: ignore[union-attr]


def test_a_table_finds_masks_beside_it(tmp_path: Path) -> None:
    picture(60, 40).save(tmp_path / "a.png")
    mask(tmp_path / "m.png")
    row = {"image": "a.png", "prompt": "?", "regions": {"a": {"mask": "m.png"}}}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    (sample,) = Table(str(tmp_path / "t.jsonl"), TableOptions()).samples([])
    found = json.loads(str(sample.attributes["regions"]))
    assert found == {"a": {"mask": str(tmp_path / "m.png")}}
    row["regions"] = {"a": {"mask": "../m.png"}}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    with pytest.raises(VlmlensError, match="outside"):
        list(Table(str(tmp_path / "t.jsonl"), TableOptions()).samples([]))


def test_two_images_between_words() -> None:
    vlm = tiny_model()
    given = {"regions": json.dumps({"cube": {"image": 1, "box": [8, 8, 16, 16]}})}
    prompt = "Is red <image> like <image> the red?"
    sample = Sample("s", prompt, (picture(32, 32), picture(32, 32, seed=1)), attributes=given)
    layout = vlm.encode([sample]).layout(0)
    assert layout.token_ids is not None
    images = layout.positions(TokenKind.IMAGE).tolist()
    assert places("image.region(cube)", layout) == [images[16 + 5]]
    assert places("image.view(1)", layout) == images[16:]
    read = vlm.decode(layout.token_ids[places("question", layout)].tolist())
    assert "".join(read.split()) == "Isredlikethered?"
    first, second = places("word(like)[0]", layout)[0], places("word(red)[-1]", layout)[0]
    assert images[15] < first < images[16] < images[31] < second


def test_samples_that_share_their_beginning_keep_their_names() -> None:
    vlm = tiny_model()
    given = {"regions": json.dumps({"cube": [20, 20, 30, 40]})}
    samples = [
        Sample(f"s{i}", prompt, (picture(64, 48),), attributes=given)
        for i, prompt in enumerate(["Is it red?", "Name all red things, please."])
    ]
    batch = vlm.encode_shared([samples])
    assert batch is not None
    assert batch.passes
    selectors = ("word(red)", "question", "image.region(cube)")
    for i, sample in enumerate(samples):
        alone, shared = vlm.encode([sample]).layout(0), batch.layout(i)
        for selector in selectors:
            assert places(selector, shared) == places(selector, alone)
            rows = Selector.parse(selector).rows(shared)
            assert rows.tolist() == shared.rows[places(selector, alone)].tolist()


def test_a_model_writes_under_edits_of_rows_by_name_with_and_without_a_cache() -> None:
    vlm = tiny_model()
    given = {"regions": json.dumps({"cube": [20, 20, 30, 40]})}
    samples = [
        Sample("a", "Is it red?", (picture(64, 48),), attributes=given),
        Sample("b", "Name all red things, please.", (picture(64, 48, seed=1),), attributes=given),
    ]
    batch = vlm.encode(samples)
    config = vlm.module.generation_config
    plain = vlm.generate(batch, max_new_tokens=5)
    for column in ("llm.block.0/question", "llm.block.0/image.rest(cube)"):
        edit = {column: lambda rows: rows * -9}
        found = []
        for config.use_cache in (False, True):  # type: ignore[union-attr, assignment]
            found.append(vlm.generate(batch, max_new_tokens=5, edits=edit))
        assert [one.token_ids for one in found[0]] == [one.token_ids for one in found[1]]
        for i, sample in enumerate(samples):
            (alone,) = vlm.generate(vlm.encode([sample]), max_new_tokens=5, edits=edit)
            assert alone.token_ids == found[1][i].token_ids
        assert [one.token_ids for one in plain] != [one.token_ids for one in found[1]]
