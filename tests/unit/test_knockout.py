"""Knockout on the demo model, of which it is known where the image is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from vlmlens.abc import AnalysisContext, ColumnStore, LoadRequest, ModelAdapter
from vlmlens.errors import (
    CompositionError,
    EditError,
    MissingAnnotation,
    SelectorError,
    SpecError,
    VlmlensError,
)
from vlmlens.passes.edits import WrittenEdit
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.model import TinyLlava, request
from vlmlens.tokens import Selector, TokenLayout
from vlmlens_adapter_blip2.checks import FlanT5Checks
from vlmlens_adapter_clip.checks import ClipChecks
from vlmlens_plugins.analysis._sweeps import Cell, Change, Item, SweepOptions, Swept, sweep
from vlmlens_plugins.analysis._sweeps.rows import cut_of
from vlmlens_plugins.analysis.knockout import Knockout, KnockoutOptions
from vlmlens_plugins.analysis.knockout.routes import Route, control_of
from vlmlens_plugins.demo.dataset import DemoDataset

ALL = "all layers"


@pytest.fixture(scope="module")
def samples() -> Sequence[Sample]:
    options = DemoDataset.Options.model_validate({"pairs": 6})
    return DemoDataset("pairs", options).samples([])


def context(vlm: ModelAdapter, samples: Sequence[Sample], **more: Any) -> AnalysisContext:
    store: ColumnStore = None  # type: ignore[assignment]  # knockout reads no columns
    return AnalysisContext(samples, store, cache(lambda: vlm), **more)


@pytest.fixture(scope="module")
def run(vlm: ModelAdapter, samples: Sequence[Sample]) -> Callable[..., Result]:
    def analyse(given: Any = samples, told: list[str] | None = None, **options: Any) -> Result:
        small = {"draws": 200, "controls": 1, **options}
        analysis = Knockout(KnockoutOptions.model_validate(small))
        analysis.check(given, ())
        analysis.check_model(vlm, given, ())
        warn = (lambda message: None) if told is None else told.append
        return analysis.run(context(vlm, given, warn=warn))

    return analyse


@pytest.fixture(scope="module")
def default(run: Callable[..., Result]) -> Result:
    return run()


@pytest.fixture(scope="module")
def swept(vlm: ModelAdapter, samples: Sequence[Sample]) -> Callable[..., Swept]:
    def one(*edits: str, answers: tuple[str, ...] = ("red", "blue")) -> Swept:
        items = [Item(sample, answers) for sample in samples[:4]]
        cells = [Cell((Change(edit),)) for edit in edits]
        return sweep(context(vlm, samples), items, cells, SweepOptions())

    return one


def changes(result: Result, route: str) -> dict[str, float]:
    columns = result.table("knockout").columns
    rows = zip(columns["route"], columns["center"], columns["change"], strict=True)
    return {str(center): float(change or 0) for name, center, change in rows if name == route}


def layout(vlm: ModelAdapter, sample: Sample) -> TokenLayout:
    return vlm.encode([sample]).layouts[Axis.LLM].samples[0]


def test_the_last_row_reads_the_image_in_the_middle_blocks(default: Result) -> None:
    found = changes(default, "image -> last")
    assert found.pop(ALL) < -85
    assert min(found, key=lambda center: found[center]) == "llm.block.2"
    assert found["llm.block.2"] < -75
    assert found["llm.block.0"] > -3
    assert found["llm.block.5"] > -1


def test_the_question_is_read_early_and_reads_nothing_of_the_image(default: Result) -> None:
    found = changes(default, "question -> last")
    assert found["llm.block.0"] < -99
    assert found["llm.block.3"] > -1
    assert min(changes(default, "image -> question").values()) > -1


def test_changes_are_those_of_an_edited_pass(
    vlm: ModelAdapter, samples: Sequence[Sample], default: Result
) -> None:
    clean = [sample for sample in samples if sample.attributes["role"] == "clean"]
    batch = vlm.encode(clean)
    tokens = [vlm.answer_ids(str(sample.label))[0] for sample in clean]

    def probability() -> Any:
        logits: Any = vlm.forward(batch, logits="last").logits
        return logits.double().softmax(-1)[range(len(clean)), tokens].numpy()

    base = probability()
    with vlm.edited(["llm.block.1-3.attn / last <- image = cut"]):
        cut = probability()
    expected = 100 * (cut.mean() - base.mean()) / base.mean()
    assert changes(default, "image -> last")["llm.block.2"] == pytest.approx(expected, abs=1e-3)


def test_without_any_way_the_answer_does_not_depend_on_the_image(swept: Any) -> None:
    logits = swept("llm.block.*.attn / later <- image = cut").difference()[0]
    assert logits[0] == logits[1]  # the clean and the corrupted sample of a pair
    assert logits[2] == logits[3]
    assert swept().difference("base").size == 0


def test_a_cut_that_nothing_reads_any_more_does_nothing(swept: Any) -> None:
    found = swept("llm.block.5.attn / text[:-1] <- image = cut")
    assert not found.divergence("base").any()
    assert found.unchanged().all()


def test_a_row_keeps_reading_itself(swept: Any) -> None:
    one, other = swept(
        "llm.block.1.attn / last <- text = cut", "llm.block.1.attn / last <- text[:-1] = cut"
    ).difference()
    assert (one == other).all()


def test_what_answers_begin_with_is_part_of_the_prompt(swept: Any) -> None:
    found = swept("llm.block.5/last = zero", answers=("red red", "red blue"))
    assert found.difference("base").all()
    assert (found.difference() == found.difference()[0, 0]).all()  # the head of a row of zeros


def test_controls_are_other_rows_that_can_be_read_or_can_read(
    vlm: ModelAdapter, samples: Sequence[Sample]
) -> None:
    rows = layout(vlm, samples[0])
    image, question = (Selector.parse(name).positions(rows) for name in ("image", "question"))
    cut = cut_of(WrittenEdit.parse("llm.block.0.attn / last <- question = cut"), seed=3)
    keys = cut.keys.positions(rows)
    assert len(keys) == len(question) == len(set(keys) - set(question))
    assert keys.max() < len(rows) - 1
    assert (keys == cut.keys.positions(rows)).all()
    written = WrittenEdit.parse("llm.block.0.attn / last <- image = cut")
    (reader,) = cut_of(written, seed=3, drawn="readers").queries.positions(rows)
    assert image.max() < reader < len(rows) - 1
    routes = ["question -> last", "image -> last", "image -> later"]
    assert [control_of(Route.parse(each), [rows]) for each in routes] == ["keys", "readers", None]


def test_findings_say_it_in_words(run: Callable[..., Result]) -> None:
    options = DemoDataset.Options.model_validate({"pairs": 10})
    given = DemoDataset("pairs", options).samples([])
    result = run(given, routes=["image -> last", "image -> question"], window=6, controls=0)
    first, *others = result.findings
    assert first.text == (
        "color: what the answer takes from the image passes through image -> last (most in "
        "llm.block.0-5), does not pass through image -> question."
    )
    assert [each.verdict for each in others] == [Verdict.DIFFERS, Verdict.NO_DIFFERENCE]
    assert others[0].text.startswith(
        "color: with image -> last cut in all layers, the answer's probability changes by -8"
    )
    (glance,) = result.overview
    assert glance.text.startswith("image -> last, llm.block.")
    assert len(glance.curve) == 6


def test_too_few_groups_are_said(default: Result) -> None:
    assert default.warnings == [
        "color: 6 groups of samples are too few for any of 28 effects to be significant; 11 are "
        "needed."
    ]
    assert {each.verdict for each in default.findings[1:]} == {Verdict.INCONCLUSIVE}


def test_tables_hold_every_route_layer_and_sample(default: Result) -> None:
    assert len(default.table("knockout")) == 4 * (6 + 1)
    assert len(default.table("knockout-routes")) == 4
    names = default.table("knockout-samples").columns
    assert len(names["sample"]) == 6 * 4
    at = names["route"].index("image -> last")
    assert names["probability"][at] > 0.99 > names["all_layers"][at]
    (figure,) = default.figures
    assert figure.x[-1] == ALL
    assert np.shape(figure.cells) == (4, 7)


def test_what_the_model_answers_wrongly_is_left_out(
    run: Callable[..., Result], samples: Sequence[Sample]
) -> None:
    given = [replace(sample, attributes={}, group=str(i)) for i, sample in enumerate(samples)]
    given[0] = replace(given[0], label="gray")
    options: dict[str, Any] = {"routes": "image -> last", "controls": 0, "window": 6}
    told: list[str] = []
    result = run(given, told, **options)
    assert told == result.warnings
    assert "1 of 12 samples are left out, since the model answers them wrongly" in told[0]
    assert result.table("knockout").columns["samples"][0] == 11
    kept = run(given, only_right=False, **options)
    assert kept.table("knockout").columns["samples"][0] == 12
    wrong = [replace(given[0], id=str(i)) for i in range(3)]
    with pytest.raises(MissingAnnotation, match="No sample is left"):
        run(wrong, **options)


@pytest.mark.parametrize(
    ("routes", "error", "message"),
    [
        ("image", SpecError, "is no route"),
        ("image -> nowhere", SelectorError, "'nowhere' is not a selector"),
        ("image.mean -> last", EditError, "pools rows"),
        ("image -> answer", CompositionError, "cannot be cut in every sample"),
        ("last -> last", CompositionError, "also rows of last"),
    ],
)
def test_wrong_routes_are_refused_before_the_model_runs(
    vlm: ModelAdapter, samples: Sequence[Sample], routes: str, error: Any, message: str
) -> None:
    analysis = Knockout(KnockoutOptions.model_validate({"routes": routes}))
    with pytest.raises(error, match=message):
        checked(analysis, vlm, samples)


def test_samples_without_labels_or_images_are_refused(samples: Sequence[Sample]) -> None:
    analysis = Knockout(KnockoutOptions())
    for what, nothing in (("label", {"label": None}), ("image", {"images": ()})):
        given = [replace(sample, attributes={}, **nothing) for sample in samples]
        with pytest.raises(MissingAnnotation, match=what):
            analysis.check(given, ())


def test_models_whose_attention_cannot_be_cut_are_refused(samples: Sequence[Sample]) -> None:
    analysis = Knockout(KnockoutOptions())
    clip: Any = ClipChecks().vlm
    with pytest.raises(CompositionError, match="only compares choices"):
        analysis.check_model(clip, samples, ())
    decoder: Any = FlanT5Checks().vlm  # its image is in the encoder
    with pytest.raises(CompositionError, match="'image -> last' cannot be cut"):
        analysis.check_model(decoder, [replace(each, attributes={}) for each in samples], ())
    asked: LoadRequest = request(attention="flash_attention_2")
    with pytest.raises(VlmlensError, match="flash"):
        analysis.check_model(TinyLlava.skeleton(asked), samples, ())


def test_too_many_passes_are_refused_before_the_model_runs(
    vlm: ModelAdapter, samples: Sequence[Sample]
) -> None:
    analysis = Knockout(KnockoutOptions(max_passes=27))
    with pytest.raises(SpecError, match="28 cells"):
        analysis.check_model(vlm, samples, ())


def checked(analysis: Knockout, vlm: ModelAdapter, samples: Sequence[Sample]) -> None:
    """What is checked before the model runs."""
    analysis.check(samples, ())
    analysis.check_model(vlm, samples, ())
