"""The logit lens at several positions per sample: prompt tokens, patches, steps, words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc import AnalysisContext, ColumnBlock, Options, Values
from vlmlens.errors import CompositionError, ReadoutError, SpecError
from vlmlens.report.files import to_json
from vlmlens.results import Result, Table
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing._rounding import ROUNDING
from vlmlens.tokens import Selector, TokenKind
from vlmlens_adapter_blip2.checks import FlanT5Checks
from vlmlens_plugins.analysis.logit_lens import LensOptions, LogitLens
from vlmlens_plugins.analysis.logit_lens.words import spellings, token_text
from vlmlens_plugins.storage.memory import MemoryStore, forget

BLOCKS = range(6)
SITES = [f"llm.block.{i}" for i in BLOCKS]


class Stored:
    """Columns of a few samples, as a run with `--generate` would store them."""

    def __init__(self, vlm: Any, samples: list[Sample]) -> None:
        self.vlm = vlm
        made = vlm.generate(vlm.encode(samples), max_new_tokens=2)
        self.written = [one.token_ids for one in made]
        self.batch = vlm.encode(samples, answers=self.written)
        self.trace = vlm.trace(self.batch, SITES, logits="all")
        self.samples = samples

    def column(self, name: str) -> list[np.ndarray[Any, Any]]:
        rows = self.trace.select(name)
        if isinstance(rows, torch.Tensor):
            return [row[None].numpy() for row in rows]
        return [each.numpy() for each in rows]

    def logits(self, sample: int, selector: str) -> np.ndarray[Any, Any]:
        """The model's own, float64."""
        rows = Selector.parse(selector).rows(self.batch.layouts[Axis.LLM].samples[sample])
        assert self.trace.logits is not None
        flat: np.ndarray[Any, Any] = self.trace.logits.flatten(0, 1)[rows].double().numpy()
        return flat


@pytest.fixture(scope="module")
def stored(vlm: Any, scenes: list[Sample]) -> Stored:
    return Stored(vlm, scenes[:10])


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    forget("lens-positions")
    with MemoryStore.open("lens-positions", mode="a", options=Options()) as opened:
        yield opened


def write(store: Any, stored: Stored, columns: dict[str, list[np.ndarray[Any, Any]]]) -> None:
    ids = tuple(sample.id for sample in stored.samples)
    values = {}
    for name, parts in columns.items():
        ragged = Selector.parse(name.partition("/")[2]).ragged
        lengths = tuple(len(part) for part in parts) if ragged else None
        values[name] = Values(np.concatenate(parts), "float32", lengths)
    store.write(ColumnBlock(ids, values))


def run(vlm: Any, store: Any, stored: Stored, selector: str, **options: Any) -> Result:
    columns = {f"{site}/{selector}": stored.column(f"{site}/{selector}") for site in SITES}
    write(store, stored, columns)
    return analyse(vlm, store, stored, selector, **options)


def analyse(vlm: Any, store: Any, stored: Stored, selector: str, **options: Any) -> Result:
    analysis = LogitLens(LensOptions(columns=[f"llm.block.*/{selector}"], **options))
    return analysis.run(AnalysisContext(stored.samples, store, lambda: vlm))


def rows_of(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows()]


OFF = ROUNDING * 32
"""How far a probability may be off, as a part of itself: as far as its logit is. The demo model's
logits reach 32 over its blocks; a divergence is off by two of them."""


def softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("selector", ["all", "text", "image", "steps", "text[-3:]"])
def test_the_last_layer_reads_as_the_model_at_every_position(
    selector: str, vlm: Any, store: Any, stored: Stored
) -> None:
    ids = [sample.id for sample in stored.samples[:3]]
    result = run(vlm, store, stored, selector, samples=ids, k=3)
    sheets = {sheet.sample: sheet for sheet in result.figures[0].sheets}
    # Over patches, questions on one picture share a map.
    expected = ids[:1] if selector == "image" else ids
    assert sorted(sheets) == sorted(expected)
    for n, name in enumerate(expected):
        p = softmax(stored.logits(n, selector))
        np.testing.assert_allclose(np.array(sheets[name].cells)[-1], p.max(-1), rtol=OFF)
        said = [token_text(vlm, int(token)) for token in p.argmax(-1)]
        assert list(sheets[name].texts[-1]) == said
    stem = f"lens-{selector}".replace("[-3:]", "-3")
    last = [row for row in rows_of(result.table(f"{stem}-layers")) if "block.5" in row["column"]]
    assert all(row["agreement"] == 1 for row in last)
    assert all(row["divergence"] < 2 * OFF for row in last)
    assert to_json(Result.from_dict(json.loads(to_json(result)))) == to_json(result)


def test_steps_are_named_by_what_was_written(vlm: Any, store: Any, stored: Stored) -> None:
    result = run(vlm, store, stored, "steps", samples=[s.id for s in stored.samples])
    (figure,) = [f for f in result.figures if f.sheets]
    for sheet, tokens in zip(figure.sheets, stored.written, strict=True):
        assert len(sheet.x) == len(tokens)
        assert [name.partition(" ")[0] for name in sheet.x] == [
            str(i + 1) for i in range(len(tokens))
        ]
        assert sheet.x[0] == f"1 {vlm.decode([tokens[0]])}".replace("  ", " \u2423")


def test_patches_lie_where_the_layout_says(vlm: Any, store: Any, stored: Stored) -> None:
    sample = stored.samples[0]
    result = run(vlm, store, stored, "image", samples=[sample.id], words=["red", "cube"])
    grid = vlm.encode([sample]).layout(0).patches
    top, words = result.figures
    assert (top.kind, words.kind) == ("patches", "patches")
    np.testing.assert_allclose(np.array(top.sheets[0].boxes), grid.box, atol=1e-3)
    assert top.sheets[0].x[9] == "row 2, column 2"
    assert [sheet.facets["word"] for sheet in words.sheets] == ["the label", "red", "cube"]
    by_word = {sheet.facets["word"]: np.array(sheet.cells) for sheet in words.sheets}
    (red,) = spellings(vlm, ["red"], 425)
    for layer in BLOCKS:
        x = torch.from_numpy(stored.column(f"llm.block.{layer}/image")[0])
        p = softmax(vlm.readout()(x).detach().double().numpy())
        np.testing.assert_allclose(by_word["red"][layer], p[:, red].sum(-1), rtol=OFF)
    rows = rows_of(result.table("lens-image-confidence"))
    (row,) = [r for r in rows if r["sample"] == sample.id and r["word"] == "red"]
    assert row["confidence"] == pytest.approx(by_word["red"].max(), rel=OFF)
    layer, place = np.unravel_index(by_word["red"].argmax(), by_word["red"].shape)
    assert (row["column"], row["position"]) == (f"llm.block.{layer}/image", place)


def test_the_demo_model_names_what_a_patch_shows(vlm: Any, store: Any, stored: Stored) -> None:
    """A fact of this model: the label's colour is far likelier over the image it is in."""
    result = run(vlm, store, stored, "image", words=["red", "blue", "green", "yellow"])
    values = {f.subject: f.values for f in result.findings}
    contrasts = [v for v in values.values() if "confidence_label" in v]
    assert contrasts
    assert all(v["confidence_label"] > v["confidence_other"] for v in contrasts)


def test_samples_stream_a_few_at_a_time(
    vlm: Any, store: Any, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(vlm, store, stored, "all", samples=1)
    most = []
    real = store.read

    def read(column: str, ids: Any = None) -> Values:
        assert ids is not None
        most.append(len(ids))
        found: Values = real(column, ids)
        return found

    monkeypatch.setattr(store, "read", read)
    parts = analyse(vlm, store, stored, "all", samples=1, chunk=1)
    assert set(most) <= {1, 4}  # four are read once, for the check
    for name in ("agreement", "entropy", "divergence"):
        np.testing.assert_allclose(
            whole.table("lens-all-layers").columns[name],
            parts.table("lens-all-layers").columns[name],
            rtol=OFF,
            atol=2 * OFF,
        )


@pytest.mark.parametrize("mistake", ["rows", "layer", "count"])
def test_stored_positions_of_another_pass_are_caught(
    mistake: str, vlm: Any, store: Any, stored: Stored
) -> None:
    columns = {f"{site}/image": stored.column(f"{site}/image") for site in SITES}
    last = columns["llm.block.5/image"]
    columns["llm.block.5/image"] = {
        "rows": [np.roll(part, 1, 0) for part in last],
        "layer": columns["llm.block.4/image"],
        "count": [part[:-1] for part in last],
    }[mistake]
    write(store, stored, columns)
    with pytest.raises(ReadoutError, match="does not give the model's own logits"):
        analyse(vlm, store, stored, "image")


def test_layers_with_other_positions_are_caught(vlm: Any, store: Any, stored: Stored) -> None:
    columns = {f"{site}/text": stored.column(f"{site}/text") for site in SITES}
    columns["llm.block.1/text"] = [part[1:] for part in columns["llm.block.1/text"]]
    write(store, stored, columns)
    with pytest.raises(CompositionError, match="hold different positions"):
        analyse(vlm, store, stored, "text")


@pytest.mark.parametrize("selector", ["image.mean", "answer", "mean"])
def test_what_holds_no_position_is_refused(selector: str, stored: Stored) -> None:
    lens = LogitLens(LensOptions(columns=["llm.block.*"]))
    with pytest.raises(CompositionError, match="cannot read"):
        lens.check(stored.samples, [f"llm.block.0/{selector}"])


def test_several_positions_in_one_run(vlm: Any, store: Any, stored: Stored) -> None:
    for selector in ("image", "last"):
        names = [f"{site}/{selector}" for site in SITES]
        write(store, stored, {name: stored.column(name) for name in names})
    lens = LogitLens(LensOptions(columns=["llm.block.*/image", "llm.block.*/last"]))
    result = lens.run(AnalysisContext(stored.samples, store, lambda: vlm))
    names = [table.name for table in result.tables]
    assert names[0] == "lens-layers"
    assert "lens-image-layers" in names
    assert len(set(names)) == len(names)
    subjects = [finding.subject for finding in result.findings]
    assert subjects[:5] == ["color", "shape", "number", "presence", "surface"]
    assert "image positions" in subjects


class Speller:
    """Decodes a vocabulary with several spellings of a word."""

    TOKENS = ("red", " red", "Red", "\u2581RED", "\u0120red", "reddish", "", "blue", "re")

    def decode(self, tokens: list[int]) -> str:
        return self.TOKENS[tokens[0]]


def test_all_single_token_spellings_are_merged() -> None:
    red, blue = spellings(Speller(), ["red", "Blue"], 9)  # type: ignore[arg-type]
    assert red.tolist() == [0, 1, 2, 3, 4]
    assert blue.tolist() == [7]
    # a vocabulary padded beyond what the tokenizer knows
    assert spellings(Speller(), ["red"], 30)[0].tolist() == red.tolist()  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="spells the word 'mauve'"):
        spellings(Speller(), ["red", "mauve"], 9)  # type: ignore[arg-type]


def test_samples_without_a_grid_still_have_maps(
    vlm: Any, store: Any, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = vlm.encode

    def encode(samples: Any, **kwargs: Any) -> Any:
        batch = real(samples, **kwargs)
        axis = batch.layouts[Axis.LLM]
        bare = tuple(replace(layout, patches=None) for layout in axis.samples)
        return replace(batch, layouts={**batch.layouts, Axis.LLM: replace(axis, samples=bare)})

    monkeypatch.setattr(vlm, "encode", encode)
    result = run(vlm, store, stored, "image", samples=1)
    sheet = result.figures[0].sheets[0]
    assert set(sheet.boxes) == {None}
    assert len(sheet.boxes) == int(
        (real(stored.samples[:1]).layout(0).kinds == TokenKind.IMAGE).sum()
    )


def test_by_default_last_and_image_positions_are_read_and_others_are_named(
    vlm: Any, store: MemoryStore, stored: Stored
) -> None:
    names = [f"{site}/{kind}" for site in SITES for kind in ("last", "image", "text")]
    write(store, stored, {name: stored.column(name) for name in names})
    lens = LogitLens(LensOptions())
    lens.check_model(vlm, stored.samples, names)
    result = lens.run(AnalysisContext(stored.samples, store, lambda: vlm))
    assert [figure.kind for figure in result.figures].count("patches") == 2
    assert not [table for table in result.tables if "text" in table.name]
    assert "columns=[llm.block.*/text]" in result.notes[-1]
    some = [name for name in names if name != "llm.block.5/image"]
    lens.check_model(vlm, stored.samples, some)  # without the last block they cannot be read


def test_positions_that_are_not_stored_are_shown_from_passes_of_their_own(
    vlm: Any, store: MemoryStore, stored: Stored
) -> None:
    names = [f"{site}/last" for site in SITES]
    write(store, stored, {name: stored.column(name) for name in names})
    options = LensOptions(positions=["image", "text"], samples=2, words=["red"])
    fresh = LogitLens(options).run(AnalysisContext(stored.samples, store, lambda: vlm))
    top, words, text = fresh.figures[:3]
    assert [sheet.facets for sheet in words.sheets] == [{"word": "red"}] * 2
    stored_image = run(vlm, store, stored, "image", samples=2, words=["red"]).figures
    stored_text = run(vlm, store, stored, "text", samples=2).figures
    for made, wanted in ((top, stored_image[0]), (text, stored_text[0])):
        assert [sheet.sample for sheet in made.sheets] == [sheet.sample for sheet in wanted.sheets]
        for sheet, other in zip(made.sheets, wanted.sheets, strict=True):
            assert (sheet.x, sheet.boxes) == (other.x, other.boxes)
            same = np.array(sheet.texts) == np.array(other.texts)
            assert same.mean() > 0.95  # two tokens may be equally probable but for rounding
            np.testing.assert_allclose(
                np.array(sheet.cells, float), np.array(other.cells, float), atol=2e-3
            )
    plain = LogitLens(LensOptions(samples=2, words=["red"], columns=["llm.block.*/last"]))
    without = plain.run(AnalysisContext(stored.samples, store, lambda: vlm))
    assert fresh.findings == without.findings
    assert to_json(replace(fresh, options={}, figures=[], notes=[])) == to_json(
        replace(without, options={}, figures=[], notes=[])
    )


def test_samples_without_an_image_have_no_map(vlm: Any, store: MemoryStore, stored: Stored) -> None:
    bare = Stored(vlm, [Sample(f"t{i}", "Color of the main object:") for i in range(4)])
    write(store, bare, {f"{site}/last": bare.column(f"{site}/last") for site in SITES})
    lens = LogitLens(LensOptions(positions=["image"]))
    result = lens.run(AnalysisContext(bare.samples, store, lambda: vlm))
    assert "patches" not in [figure.kind for figure in result.figures]


def test_positions_that_the_family_lacks_are_said_and_left_out(
    store: MemoryStore, stored: Stored
) -> None:
    decoder: Any = FlanT5Checks().vlm  # its image is in the encoder
    names = [f"llm.block.{i}" for i in range(2)]
    some = [replace(one, attributes={}) for one in stored.samples[:3]]
    trace = decoder.trace(decoder.encode(some), names)
    ids = tuple(one.id for one in some)
    rows = {f"{n}/last": Values(trace.select(f"{n}/last").numpy(), "float32") for n in names}
    store.write(ColumnBlock(ids, rows))
    lens = LogitLens(LensOptions(positions=["image", "all"], samples=2))
    cost = lens.cost(decoder, some)
    assert cost.startswith("the image positions are not shown where there are none:")
    told: list[str] = []
    result = lens.run(AnalysisContext(some, store, lambda: decoder, warn=told.append))
    assert [each for each in told if each.startswith("the image positions")]
    assert not [each for each in told if each.startswith("the all positions")]
    assert "patches" not in [figure.kind for figure in result.figures]
    assert not lens.cost(stored.vlm, stored.samples)


def test_where_the_last_position_is_not_stored_others_are_read(
    vlm: Any, store: MemoryStore, stored: Stored
) -> None:
    write(store, stored, {f"{site}/image": stored.column(f"{site}/image") for site in SITES})
    lens = LogitLens(LensOptions())
    lens.check(stored.samples, [info.name for info in store.columns()])
    result = lens.run(AnalysisContext(stored.samples, store, lambda: vlm))
    asked = analyse(vlm, store, stored, "image")
    assert [table.name for table in result.tables] == [table.name for table in asked.tables]
    assert to_json(replace(result, options={})) == to_json(replace(asked, options={}))


def test_nothing_to_read_names_what_is_wanted() -> None:
    with pytest.raises(CompositionError, match=r"llm\.block\.\*/last"):
        LogitLens(LensOptions()).check([], ["llm.block.0/mean", "vision.block.0/all"])
