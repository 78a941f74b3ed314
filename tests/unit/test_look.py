"""One look: planted truths of demo scenes, an independent recomputation, and mistakes that show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vlmlens
from vlmlens.abc import AnalysisContext, ColumnStore, ModelAdapter
from vlmlens.compose.looking import questions
from vlmlens.errors import DataError, ImageError, MissingAnnotation, SpecError, VlmlensError
from vlmlens.results import Result, Table
from vlmlens.samples import Sample
from vlmlens.testing.model import tiny_model
from vlmlens.testing.tiny import picture
from vlmlens_adapter_clip.checks import ClipChecks
from vlmlens_plugins.analysis.look import Look, windows
from vlmlens_plugins.analysis.look.answers import chance, log_odds
from vlmlens_plugins.analysis.look.options import LookOptions, passes
from vlmlens_plugins.analysis.look.windows import Part
from vlmlens_plugins.hf.checks import Qwen35Checks

COLOR, SURFACE = 0, 4
NEAR: dict[str, Any] = {"grid": 6, "components": 3, "controls": 3}
FEW: dict[str, Any] = {"grid": 3, "components": 2, "controls": 1, "blocks": 2, "max_new_tokens": 2}


def looked(vlm: ModelAdapter, samples: Sequence[Sample], **options: Any) -> Result:
    store: ColumnStore = None  # type: ignore[assignment]  # look reads no columns
    analysis = Look(LookOptions.model_validate(options))
    analysis.check(samples, ())
    analysis.check_model(vlm, samples, ())
    return analysis.run(AnalysisContext(samples, store, cache(lambda: vlm)))


def values(result: Result, name: str, sample: str) -> dict[str, Any]:
    """The values of the one finding about a sample that has this one."""
    own = [one.values for one in result.findings if one.subject == sample and name in one.values]
    (found,) = own
    return dict(found)


def rows(table: Table, **wanted: object) -> list[dict[str, Any]]:
    found = [dict(zip(table.columns, row, strict=True)) for row in table.rows()]
    return [row for row in found if all(row[key] == value for key, value in wanted.items())]


@pytest.fixture(scope="module")
def asked(scenes: list[Sample]) -> list[Sample]:
    """A color and a surface question."""
    return [scenes[COLOR], scenes[SURFACE]]


@pytest.fixture(scope="module")
def result(vlm: ModelAdapter, asked: list[Sample]) -> Result:
    return looked(vlm, asked, **NEAR)


# ---------------------------------------------------------------------- planted truths


def test_a_color_is_read_off_the_main_object(result: Result, asked: list[Sample]) -> None:
    sample = asked[0]
    (figure,) = (one for one in result.figures if one.name == "look-map")
    sheet = next(one for one in figure.sheets if one.sample == sample.id)
    (cells,) = sheet.cells
    left, top, right, bottom = sheet.boxes[int(np.argmax(np.array(cells, float)))] or ()
    box = np.array(json.loads(str(sample.attributes["regions"]))["main"])
    x, y = (left + right) * 64, (top + bottom) * 64
    assert box[0] <= x <= box[2]
    assert box[1] <= y <= box[3]
    assert values(result, "answer", sample.id)["answer"] == sample.label
    assert values(result, "needed", sample.id)["needed"]
    blind = values(result, "survives", sample.id)
    assert not blind["survives"]
    assert max(blind[f"{fill}_probability"] for fill in ("gray", "white", "noise")) < 0.2


def test_a_surface_survives_without_the_picture(result: Result, asked: list[Sample]) -> None:
    sample = asked[1].id
    assert values(result, "survives", sample)["survives"]
    assert abs(values(result, "survives", sample)["effect"]) < 0.1
    assert not values(result, "needed", sample)["local"]
    assert abs(values(result, "components", sample)["effect"]) < 0.5


def test_findings_are_ranked_behind_the_answer(result: Result, asked: list[Sample]) -> None:
    for sample in asked:
        own = [one for one in result.findings if one.subject == sample.id]
        assert len(own) == 5
        assert "answer" in own[0].values
        effects = [float(one.values.get("effect") or -1) for one in own[1:]]
        assert effects == sorted(effects, reverse=True)


# ---------------------------------------------------------------------- computed in another way


def test_numbers_are_those_of_plain_passes(
    vlm: ModelAdapter, result: Result, asked: list[Sample]
) -> None:
    sample = asked[0]
    ids = [vlm.answer_ids(choice)[0] for choice in sample.choices]
    own = sample.choices.index(str(sample.label))

    def probability(image: Image.Image) -> float:
        batch = vlm.encode([replace(sample, images=(image,))])
        logits = vlm.forward(batch, logits="last").logits
        assert logits is not None
        return float(logits[0, ids].double().softmax(-1)[own])

    image = sample.open_images()[0]
    gray = Image.new("RGB", image.size, (128, 128, 128))
    pictures = result.table("pictures")
    for shown, fill, made in (("as it is", "", image), ("blank", "gray", gray)):
        (row,) = rows(pictures, sample=sample.id, shown=shown, fill=fill)
        assert row["probability"] == pytest.approx(probability(made), rel=1e-4)

    names = [site.name for site in vlm.sites.resolve("llm.block.*")]
    trace = vlm.trace(vlm.encode([sample]), names)
    readout = vlm.readout()
    assert readout is not None
    for name in names:
        with torch.inference_mode():
            logits = readout(trace.select(f"{name}/last").reshape(1, -1))[0]
        (row,) = rows(result.table("layers"), sample=sample.id, block=name)
        expected = float(logits[ids].double().softmax(-1)[own])
        assert row["probability"] == pytest.approx(expected, rel=1e-3)

    found = rows(result.table("components"), sample=sample.id)
    best = max((row for row in found if row["effect"] is not None), key=lambda row: row["effect"])
    edit = f"{best['site']}/{best['rows']} = patch"
    with vlm.edited([edit], donors=[replace(sample, images=(gray,))]):
        changed = log_odds(float(np.log(probability(image))))
    assert best["effect"] == pytest.approx(log_odds(float(np.log(probability(image)))) - changed,
                                           abs=0.02)  # fmt: skip


def test_a_map_that_is_upside_down_is_seen(
    vlm: ModelAdapter, result: Result, asked: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = windows.mapped
    monkeypatch.setattr("vlmlens_plugins.analysis.look.evidence.mapped", lambda *a: -right(*a))
    wrong = looked(vlm, asked[:1], **NEAR)
    assert values(result, "needed", asked[0].id)["needed"]
    assert not values(wrong, "needed", asked[0].id)["needed"]


def test_windows_hold_every_cell_as_often() -> None:
    found = windows.windows((40, 80), 4)
    counts = np.zeros((4, 4))
    for window in found:
        for cell in window.cells:
            counts[cell] += 1
    assert (counts == 4).all()
    drops = np.array([float((1, 2) in window.cells) for window in found])
    values = windows.mapped(drops, 4)
    assert np.unravel_index(values.argmax(), values.shape) == (1, 2)
    assert values[1, 2] == 1
    part = windows.highest(values, (40, 80), 0)[0]
    assert part.boxes == [(20, 20, 30, 40)]
    rng = np.random.default_rng(0)
    assert all((1, 2) not in other.cells for other in windows.others(part, 5, rng))
    assert windows.others(Part((8, 8), 4, tuple(np.ndindex(4, 4))), 3, rng) == []


@pytest.mark.parametrize("p", [1e-9, 0.3, 0.999999])
def test_log_odds_and_back(p: float) -> None:
    assert chance(log_odds(float(np.log(p)))) == pytest.approx(p)
    assert np.isfinite([log_odds(0.0), log_odds(-np.inf)]).all()


# ---------------------------------------------------------------------- comparisons


def test_the_difference_passes_from_the_image_to_the_last_row(
    vlm: ModelAdapter, scenes: list[Sample]
) -> None:
    first = scenes[COLOR]
    other = next(s for s in scenes[5::5] if s.label != first.label)
    smaller = other.open_images()[0].resize((96, 96))  # the part does not fit into it as it is
    pair = questions([first.images[0]], [first.prompt], against=smaller)
    found = looked(vlm, pair, **FEW)
    told = values(found, "other", pair[0].id)
    assert told["other"] == other.label
    shares = found.table("difference")
    (early,) = rows(shares, site="llm.block.0", rows="image")
    (late,) = rows(shares, site="llm.block.5", rows="last")
    (nothing,) = rows(shares, site="llm.block.0", rows="last")
    assert early["share"] == pytest.approx(1, abs=0.1)
    assert late["share"] == pytest.approx(1, abs=0.1)
    assert nothing["share"] == pytest.approx(0, abs=0.1)


def test_another_question_about_the_same_picture(vlm: ModelAdapter, scenes: list[Sample]) -> None:
    first = scenes[COLOR]
    pair = questions(
        [first.images[0]], [first.prompt], against_question="Shape of the main object:"
    )
    found = looked(vlm, pair, **FEW)
    (image,) = rows(found.table("difference"), site="llm.block.0", rows="image")
    (last,) = rows(found.table("difference"), site="llm.block.5", rows="last")
    assert abs(image["share"]) < 0.01
    assert last["share"] == pytest.approx(1, abs=0.01)
    assert "passes of the model" in Look(LookOptions()).cost(vlm, pair)


def test_pictures_with_other_numbers_of_rows_are_refused() -> None:
    vlm = Qwen35Checks().load()
    pair = questions([picture(32, 32, seed=1)], ["What?"], against=picture(96, 96, seed=2))
    with pytest.raises(DataError, match="image rows"):
        Look(LookOptions()).check_model(vlm, pair, ())


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"pictures": ["none.png"]}, ImageError, "does not exist"),
        ({"pictures": ["."]}, ImageError, "is a folder"),
        ({"pictures": ["https://example.org/a.png"]}, ImageError, "nothing is downloaded"),
        ({"pictures": ["text.png"]}, ImageError, "cannot be read"),
        ({"pictures": []}, DataError, "no picture"),
        ({"pictures": [np.zeros((8, 8, 3))]}, DataError, "a ndarray"),
        ({"texts": [" "]}, DataError, "empty"),
        ({"choices": ["red"]}, DataError, "two or more"),
        ({"choices": ["red", ""]}, DataError, "two or more"),
        ({"choices": "red"}, DataError, "two or more"),
        ({"against": "same.png"}, DataError, "nothing differs"),
        ({"against_question": "What?"}, DataError, "the same"),
        ({"against_question": ""}, DataError, "empty"),
        ({"against": "other.png", "against_question": "Why?"}, DataError, "not to both"),
    ],
)
def test_bad_input_is_named(
    in_tmp: Path, change: dict[str, Any], error: type[VlmlensError], says: str
) -> None:
    picture(8, 8, seed=1).save("a.png")
    picture(8, 8, seed=1).save("same.png")
    picture(8, 8, seed=2).save("other.png")
    Path("text.png").write_text("no picture", encoding="utf-8")
    given = {"pictures": ["a.png"], "texts": ["What?"], **change}
    with pytest.raises(error, match=says):
        questions(given.pop("pictures"), given.pop("texts"), **given)


def test_samples_have_names_of_their_own(in_tmp: Path) -> None:
    Path("b").mkdir()
    for place in ("a.png", "b/a.png"):
        picture(8, 8, seed=1).save(place)
    assert questions(["a.png"], ["What?"], choices="red, blue")[0].choices == ("red", "blue")
    made = questions(["a.png", "b/a.png", picture(8, 8, seed=2)], ["What?", "Why?"])
    assert len({sample.id for sample in made}) == len(made) == 6


def test_what_cannot_be_looked_at_is_refused(vlm: ModelAdapter) -> None:
    with pytest.raises(MissingAnnotation, match="no sample has one"):
        Look(LookOptions()).check([Sample("a", "What?")], ())
    several = [Sample(str(i), "What?", (picture(8, 8, seed=i),)) for i in range(3)]
    with pytest.raises(SpecError, match="max_passes"):
        Look(LookOptions(max_passes=100)).check_model(vlm, several, ())


def test_the_cost_is_about_what_it_takes() -> None:
    vlm = tiny_model()
    sample = Sample("a", "What?", (picture(16, 16, seed=1),), choices=("a", "b"))
    options = LookOptions(**FEW)
    counted = [0]
    forward = type(vlm).forward

    class Counting(type(vlm)):  # type: ignore[misc]
        def forward(self, batch: Any, **rest: Any) -> Any:
            counted[0] += len(batch.layouts[next(iter(batch.layouts))].samples)
            return forward(self, batch, **rest)

    vlm.__class__ = Counting
    looked(vlm, [sample], **FEW)
    said = passes(vlm, options, sample, comparison=False)
    assert 0.5 * said < counted[0] < 2.5 * said


def test_a_model_that_compares_choices() -> None:
    vlm = ClipChecks().load()
    sample = Sample("a", "What?", (picture(32, 32, seed=1),), choices=("a cat", "a dog"))
    found = looked(vlm, [sample], **FEW)
    assert [key for one in found.findings for key in ("answer", "needed", "survives")
            if key in one.values].count("answer") == 1  # fmt: skip
    assert len(found.findings) == 3
    with pytest.raises(MissingAnnotation, match="only compares choices"):
        looked(vlm, [replace(sample, choices=())])


# ---------------------------------------------------------------------- Python and the program


def test_from_python_and_in_a_notebook(in_tmp: Path, scenes: list[Sample]) -> None:
    sample = scenes[COLOR]
    covers = [(0, 0, 0.1, 0.1)]
    picture, asked = str(sample.images[0]), sample.prompt
    look = vlmlens.look(picture, asked, covers=covers, grid=3, out="look", device="cpu")
    assert look.answer == sample.label
    assert len(look.findings) == 5
    assert look.page == Path("look/report.html")
    assert "drawn scenes" in str(look.run.info["notes"])
    assert "A part of the picture is covered (0,0,0.1,0.1)" in look.page.read_text("utf-8")
    html = look._repr_html_()
    assert html is not None
    assert look.findings[0].text.split('"')[0] in html
    assert sample.label in repr(look)
