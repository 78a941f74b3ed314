"""Parts of feature pages: output tokens, tokens in context, a user's explainer, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc import ModelAdapter
from vlmlens.errors import BrokenPlugin, DataError, DataNotFound, UnknownPlugin, VlmlensError
from vlmlens.results import FeatureMap, FeaturePage, FeatureSample
from vlmlens.samples import Sample
from vlmlens.tokens import PatchGrid, TokenKind, TokenLayout
from vlmlens_plugins.analysis.sae.held import split
from vlmlens_plugins.analysis.sae.options import SaeOptions
from vlmlens_plugins.analysis.sae.pages import Explainer, Looking, pages, read_page, write_pages
from vlmlens_plugins.analysis.sae.pages.histograms import EDGES, histograms
from vlmlens_plugins.analysis.sae.pages.pictured import maps, tokens, views
from vlmlens_plugins.analysis.sae.pages.written import written
from vlmlens_plugins.analysis.sae.peaks import peaks
from vlmlens_plugins.sae import About, Relu, Sae, TensorRows, TopK
from vlmlens_plugins.sae.feeding.layouts import row_layouts

WIDTH = 128
EVIL = "\x1b[31m<script>\x07"


def sae_of(directions: torch.Tensor, **kept: Any) -> Sae:
    width = directions.shape[1]
    given = directions.T.contiguous(), torch.zeros(len(directions)), directions, torch.zeros(width)
    return Sae(*given, **kept)


def token_of(vlm: ModelAdapter, answer: str) -> int:
    return vlm.answer_ids(answer)[0]


def unembedding(vlm: ModelAdapter) -> torch.Tensor:
    """The weights themselves, `[vocabulary, width]`; the demo model's norm has a weight, too."""
    return vlm.module.get_submodule(vlm.sites.canonical["llm.head"].path).weight.detach().float()


def test_a_direction_towards_a_word_raises_it_most(vlm: ModelAdapter) -> None:
    red = unembedding(vlm)[token_of(vlm, "red")]
    norm = vlm.module.get_submodule(vlm.sites.canonical["llm.norm"].path).weight.detach().float()
    sae = sae_of(torch.stack([red / norm, -red / norm, torch.randn(WIDTH)]))
    (up, down, other), about = written(vlm, sae, "llm.block.3/image", [0, 1, 2])
    assert up.raised[0][0] == "\u2423red" == down.lowered[0][0]
    assert up.raised[0][1] == pytest.approx(-down.lowered[0][1])
    assert "standard deviations" in about
    direction = sae.W_dec[2] * norm
    scores = unembedding(vlm) @ direction
    scaled = (scores - scores.mean()) / scores.std()
    assert [value for _, value in other.raised] == pytest.approx(
        scaled.topk(10).values.tolist(), rel=2e-3
    )


@pytest.mark.parametrize(
    ("column", "width", "part"),
    [
        ("vision.block.3/all", WIDTH, "vision.block.3 is no site of the language model"),
        ("projector/image", WIDTH, "projector is no site"),
        ("llm.block.3.attn.heads/all", WIDTH, "are not the residual stream"),
        ("llm.block.3.mlp/all", WIDTH, "are not the residual stream"),
        ("llm.block.3/all", 64, "64 numbers, the readout reads 128"),
        ("", WIDTH, "its site is no site"),
    ],
)
def test_where_directions_say_nothing_of_words_it_is_said(
    vlm: ModelAdapter, column: str, width: int, part: str
) -> None:
    (found,), about = written(vlm, sae_of(torch.randn(1, width)), column, [0])
    assert (found.raised, found.lowered) == ((), ())
    assert part in about
    (without,), why = written(None, sae_of(torch.randn(1, width)), column, [0])
    assert without.raised == ()
    assert "model" in why


def test_a_transcoder_writes_to_its_target(vlm: ModelAdapter, text_world: Looking) -> None:
    moved = replace(text_world.sae, about=About("projector/image", target="llm.block.1/all"))
    assert pages(replace(text_world, sae=moved)).pages[0].raised
    away = replace(moved, about=About("llm.block.1/all", target="vision.block.1/all"))
    assert not pages(replace(text_world, sae=away)).pages[0].raised


@pytest.fixture(scope="module")
def text_world(vlm: ModelAdapter, scenes: list[Sample]) -> Looking:
    """A feature that fires at the word " object" alone, in a column of all rows of the prompt."""
    column, samples = "llm.block.1/all", [one for one in scenes if one.task in ("color", "shape")]
    layouts = row_layouts(vlm, column, samples)
    rows = torch.zeros(sum(map(len, layouts)), WIDTH)
    ids = torch.cat([torch.from_numpy(one.token_ids) for one in layouts])
    (word,) = {int(i) for i in ids if vlm.decode([int(i)]).strip() == "object"}
    rows[ids == word, 0] = 2.0
    rows[:, 1] = torch.linspace(0, 1, len(rows))
    kept = TensorRows(rows, list(map(len, layouts)), column)
    sae, divided = sae_of(torch.eye(WIDTH)[:4]), split(samples, column, 0.5, 0)
    learn, held = (peaks(sae, kept, part) for part in (divided.learn, divided.held))
    options = SaeOptions(pages=4, permutations=99)
    return Looking(sae, column, kept, learn, held, samples, divided, options, 0, vlm)


def test_tokens_are_shown_in_context_with_their_codes(text_world: Looking) -> None:
    by_number = {page.number: page for page in pages(text_world).pages}
    for each in by_number[0].samples:
        lit = {text for text, value in zip(each.tokens, each.values, strict=True) if value}
        assert lit == {"\u2423object"}
        assert "[64 image rows]" in each.tokens
        assert each.values[each.tokens.index("[64 image rows]")] is None
        assert sum(len(one.boxes) for one in each.maps) == 0
        assert "prompt" not in each.facts
    assert [len(each.maps[0].boxes) for each in by_number[1].samples] >= [63]


def test_a_long_text_is_cut_around_its_strongest_row(vlm: ModelAdapter) -> None:
    ids = np.full(1000, token_of(vlm, "red"))
    layout = TokenLayout(np.arange(1000), np.zeros(1000, np.uint8), ids)
    codes = np.zeros(1000, np.float32)
    codes[700] = 3.0
    texts, values = tokens(vlm, layout, codes)
    assert (len(texts), texts[0], texts[-1]) == (242, "…", "…")
    assert values[0] is None
    assert values.count(3.0) == 1
    assert tokens(vlm, TokenLayout(np.arange(0), np.zeros(0, np.uint8)), codes[:0]) == ([], [])


def test_rows_that_are_no_tokens_are_named_only_where_they_fire(vlm: ModelAdapter) -> None:
    kinds = np.array([TokenKind.SPECIAL, TokenKind.IMAGE, TokenKind.IMAGE], np.uint8)
    layout = TokenLayout(np.arange(3), kinds)
    assert views(layout) == []
    assert tokens(vlm, layout, np.array([0, 1, 0], np.float32)) == ([], [])
    found = tokens(vlm, layout, np.array([2, 1, 0], np.float32))
    assert found == (["[row 1, no patch]", "[2 image rows]"], [2.0, None])


def test_tiles_and_images_have_their_own_patches() -> None:
    cells = [(0, "tile 0", 0.0), (0, "tile 1", 0.5), (0, "global", 0.0), (1, "image", np.nan)]
    box = np.array([[left, 0, left + 0.5, 1] for *_, left in cells], np.float32)
    zero = np.zeros(4, np.int64)
    grid = PatchGrid(np.array([image for image, *_ in cells]), tuple(view for _, view, _ in cells),
                     zero, zero, zero + 1, zero + 1, box)  # fmt: skip
    kinds = np.array([TokenKind.TEXT, *[TokenKind.IMAGE] * 4], np.uint8)
    own = views(TokenLayout(np.arange(5), kinds, np.zeros(5, np.int64), grid))
    assert [(one.image, one.view, one.rows.tolist(), one.boxes) for one in own] == [
        (0, "tile 0", [1], [(0, 0, 0.5, 1)]),
        (0, "tile 1", [2], [(0.5, 0, 1, 1)]),
        (0, "global", [3], [(0, 0, 0.5, 1)]),
        (1, "image", [4], [None]),
    ]
    found = maps(own, np.array([9, -1, 2, 0, 3], np.float32))
    assert [(one.view, one.values) for one in found] == [
        ("tile 0", []), ("tile 1", [2.0]), ("global", []), ("image", [3.0]),
    ]  # fmt: skip


def test_codes_are_counted_by_size_whatever_their_sign_and_size() -> None:
    sae = Sae(*(torch.eye(3), torch.zeros(3)) * 2, TopK(3, rectified=False))
    rows = torch.tensor([[1.5, -2.0, 1e-12], [1.0, 3.0, 1e12], [2.0, 0.0, 0.0]])
    kept = TensorRows(rows, [2, 1, 0])
    found = histograms(sae, kept, peaks(sae, kept, [0, 1, 2]), [0, 1, 2], 0)
    assert found.rows == 3
    assert found.of(0) == ([1.0, 1.414, 2.0, 2.828], [1, 1, 1])
    edges = EDGES.round(6).tolist()
    assert found.sizes.sum(1).tolist() == [3, 1, 2]
    for low, count in ((1.0, 1), (round(2**0.5, 6), 1), (2.0, 1)):
        assert found.sizes[0, edges.index(low)] == count
    assert (found.sizes[2, 0], found.sizes[2, -1]) == (1, 1)


PAGE = FeaturePage(
    7, "llm.block.1/all", "asked for", 0.5, 10, "x", [1.0, 2.0], [5],
    [FeatureSample("s/../x", "top 1", 2.0, {"a": "b"}, [FeatureMap(0, "", [None], [2.0])], ["t"],
                   [None])],
    raised=[("a", 1.0)], nearest=[(3, 0.5)], modality={"image": 1.0},
)  # fmt: skip


def test_pages_are_files_and_earlier_ones_are_removed(tmp_path: Path) -> None:
    kept = tmp_path / "features" / "notes.txt"
    first = write_pages(tmp_path / "features", [PAGE, replace(PAGE, number=8)])
    kept.write_text("mine")
    assert [path.relative_to(tmp_path).as_posix() for path in first] == [
        "features/7.json", "features/8.json",
    ]  # fmt: skip
    write_pages(tmp_path / "features", [PAGE])
    assert sorted(path.name for path in kept.parent.iterdir()) == ["7.json", "notes.txt"]
    again = read_page(first[0])
    assert again.samples[0].maps[0].boxes == [None]
    assert again.nearest == ((3, 0.5),)
    write_pages(tmp_path / "b", [again])
    assert (tmp_path / "b/7.json").read_bytes() == first[0].read_bytes()


def broken(text: str) -> Any:
    data = json.loads(text)
    yield "[1]"
    yield "no JSON"
    yield "[" * 100_000
    yield text[:-20]
    yield "\udc80"
    changes: list[dict[str, Any]] = [
        {"number": "7"}, {"number": -1}, {"density": 2}, {"strange": 1}, {"samples": 3},
        {"samples": [{"maps": 1}]}, {"raised": [["a"]]}, {"nearest": [[1, "x"]]},
    ]  # fmt: skip
    for change in changes:
        yield json.dumps(data | change)
    yield json.dumps({key: value for key, value in data.items() if key != "why"})


def test_a_damaged_file_is_refused_and_nothing_else_is_raised(tmp_path: Path) -> None:
    (path,) = write_pages(tmp_path, [PAGE])
    for text in broken(path.read_text()):
        path.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(DataError, match="holds no page of a feature"):
            read_page(path)
    with pytest.raises(DataNotFound):
        read_page(tmp_path / "none.json")
    with pytest.raises(DataError, match="holds no page"):
        read_page(tmp_path)


SAYS = """
def tell(page):
    return f"{page.column} {page.number}: {len(page.samples)} samples"

def fail(page):
    raise ValueError("no \\x1b idea")

def leave(page):
    raise SystemExit(3)

def number(page):
    return 7

WORD = "word"
"""


def test_an_explainer_says_what_it_says(tmp_path: Path, text_world: Looking) -> None:
    (tmp_path / "mine.py").write_text(SAYS)
    name = f"{tmp_path}/mine.py:tell"
    options = text_world.options.model_copy(update={"explainer": name})
    for page in pages(replace(text_world, options=options)).pages:
        assert page.told == f"llm.block.1/all {page.number}: {len(page.samples)} samples"
        assert page.explainer == name
        assert page.name == ""
    assert Explainer.load("json:dumps").function is json.dumps


@pytest.mark.parametrize(
    ("name", "part"),
    [("fail", "ValueError: no"), ("number", "gave no text for"), ("leave", "SystemExit: 3")],
)
def test_an_explainer_that_fails_is_named_with_its_feature(
    tmp_path: Path, name: str, part: str
) -> None:
    (tmp_path / "mine.py").write_text(SAYS)
    said: list[str] = []
    found = Explainer.load(f"{tmp_path}/mine.py:{name}").told(PAGE, said.append)
    assert found == PAGE
    (text,) = said
    assert part in text
    assert f"mine.py:{name}" in text
    assert "feature 7 of llm.block.1/all" in text
    assert "\x1b" not in text


def raised(action: Callable[[], object]) -> VlmlensError:
    with pytest.raises(VlmlensError) as caught:
        action()
    return caught.value


def test_an_explainer_that_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SAYS)
    (tmp_path / "bad.py").write_text("1 / 0")
    wrong = {
        f"{tmp_path}/none.py:tell": UnknownPlugin,
        f"{tmp_path}/mine.py:none": UnknownPlugin,
        f"{tmp_path}/mine.py:WORD": UnknownPlugin,
        f"{tmp_path}/mine.py": UnknownPlugin,
        f"{tmp_path}/bad.py:tell": BrokenPlugin,
        "no_such_module:tell": BrokenPlugin,
        "json": UnknownPlugin,
        "json:": UnknownPlugin,
        ":tell": UnknownPlugin,
        "json:a b": UnknownPlugin,
        "..json:dumps": BrokenPlugin,
    }
    for name, kind in wrong.items():
        error = raised(lambda name=name: Explainer.load(name))  # type: ignore[misc]
        assert isinstance(error, kind), name
        assert error.subject == name
        assert error.hint


def test_names_of_the_data_are_kept_as_they_are_and_shown_escaped(text_world: Looking) -> None:
    samples = [
        replace(one, label=EVIL + str(one.label), attributes={"a" + EVIL: EVIL})
        for one in text_world.samples
    ]
    found = pages(replace(text_world, samples=samples))
    facts = found.pages[0].samples[0].facts
    assert facts["a" + EVIL] == EVIL
    from vlmlens.report._figure import draw_figures
    from vlmlens.report._pictures import Pictures

    drawn = draw_figures([found], pictures=Pictures(samples))
    assert "\x1b" not in drawn
    assert "<script>\\x07" not in drawn
    assert "\\u003cscript\\u003e" in drawn


def test_a_sample_without_rows_and_a_single_held_out_sample(text_world: Looking) -> None:
    held = replace(text_world, held=peaks(text_world.sae, text_world.rows, [0]))
    (page, *_) = pages(held).pages
    assert len(page.samples) <= 1
    lengths = [0 if i in text_world.split.held else 3 for i in range(len(text_world.samples))]
    rows = TensorRows(torch.rand(sum(lengths), WIDTH), lengths, text_world.column)
    learn, none = (
        peaks(text_world.sae, rows, p) for p in (text_world.split.learn, text_world.split.held)
    )
    empty = pages(replace(text_world, rows=rows, learn=learn, held=none))
    assert {(page.density, len(page.samples)) for page in empty.pages} == {(0.0, 0)}
    assert isinstance(text_world.sae.activation, Relu)


def test_a_pooled_column_shows_the_prompt(vlm: ModelAdapter, scenes: list[Sample]) -> None:
    column, sae = "llm.block.1/last", sae_of(torch.eye(WIDTH)[:4])
    rows = TensorRows(torch.rand(len(scenes), WIDTH), None, column)
    divided, options = split(scenes, column, 0.5, 0), SaeOptions(pages=2, permutations=99)
    learn, held = (peaks(sae, rows, part) for part in (divided.learn, divided.held))
    found = pages(Looking(sae, column, rows, learn, held, scenes, divided, options, 0, vlm))
    for each in found.pages[0].samples:
        assert (len(each.tokens), each.values) == (1, [each.value])
        assert each.facts["prompt"] in {one.prompt for one in scenes}
