"""Evidence on the demo model, of which it is known what its answers rest on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from vlmlens.abc import AnalysisContext, ColumnStore, ModelAdapter
from vlmlens.errors import CompositionError, DataError, MissingAnnotation, SpecError, VlmlensError
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens_adapter_clip.checks import ClipChecks
from vlmlens_plugins.analysis._altered import Canvas
from vlmlens_plugins.analysis.evidence import Evidence, EvidenceOptions
from vlmlens_plugins.analysis.evidence.cases import Known, cases_of
from vlmlens_plugins.analysis.evidence.conditions import (
    BACKGROUND,
    HIDDEN,
    NONE,
    asked,
)
from vlmlens_plugins.analysis.occlusion import Occlusion
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions
from vlmlens_plugins.demo.questions import presence_prompt
from vlmlens_plugins.demo.scenes import Scene, draw, make_scene

SCENES = 8
QUICK: dict[str, Any] = {"draws": 200, "random_regions": 3, "pictures": 1}


def context(vlm: ModelAdapter, samples: Sequence[Sample], **more: Any) -> AnalysisContext:
    store: ColumnStore = None  # type: ignore[assignment]  # evidence reads no columns
    return AnalysisContext(samples, store, cache(lambda: vlm), **more)


def analyse(vlm: ModelAdapter, samples: Sequence[Sample], **options: Any) -> Result:
    analysis = Evidence(EvidenceOptions.model_validate({**QUICK, **options}))
    analysis.check(samples, ())
    analysis.check_model(vlm, samples, ())
    return analysis.run(context(vlm, samples))


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    made = DemoDataset("scenes", DemoOptions(scenes=SCENES)).samples([])
    return [sample for sample in made if sample.task in ("color", "surface")] + _presence()


def _presence() -> list[Sample]:
    """One question about scenes with and without what it asks for."""
    scenes = [make_scene(i) for i in range(120)]
    having = [scene for scene in scenes if scene.contains("blue", "cube")][: SCENES // 2]
    others = [scene for scene in scenes if not scene.contains("blue", "cube")][: SCENES // 2]
    return [_asking(scene, "yes") for scene in having] + [_asking(scene, "no") for scene in others]


def _asking(scene: Scene, label: str) -> Sample:
    boxes = [
        [item.x, item.y, item.x + item.size, item.bottom]
        for item in scene.objects
        if (item.color, item.shape) == ("blue", "cube")
    ]
    about = {"region": "asked", "regions": json.dumps({"asked": boxes})} if boxes else {}
    prompt, choices = presence_prompt("blue", "cube"), ("yes", "no")
    return Sample(
        f"{scene.id}/cube", prompt, (draw(scene),), label, choices, scene.id, "presence", about
    )


@pytest.fixture(scope="module")
def result(vlm: ModelAdapter, samples: Sequence[Sample]) -> Result:
    return analyse(vlm, samples, max_flips=0.4)


def of_task(result: Result, task: str) -> dict[str, Any]:
    table = result.table("evidence")
    return dict(zip(table.columns, table.rows()[table.columns["task"].index(task)], strict=True))


def test_color_rests_on_the_main_object(result: Result) -> None:
    found = of_task(result, "color")
    assert found["verdict"] == Verdict.RESTS_ON_REGION
    assert found["need"] >= 0.9 * found["effect"]
    assert abs(found["background"]) <= 0.05 * found["effect"]
    assert found["specificity"] >= 0.8 * found["effect"]
    assert 0.9 <= found["enough_share"] <= 1.1
    assert found["follows"] == found["keeps"] == 1
    assert found["to_background"] == 0


def test_surface_rests_on_the_text(result: Result) -> None:
    found = of_task(result, "surface")
    assert found["verdict"] == Verdict.RESTS_ON_TEXT
    assert found["flips"] == found["follows"] == 0
    assert abs(found["effect"]) < 0.1
    assert found["need_share"] is None


def test_presence_follows_the_exchanged_image(result: Result) -> None:
    found = of_task(result, "presence")
    assert found["follows"] >= 0.9
    assert found["with_region"] == SCENES // 2
    assert found["exchanged"] == SCENES
    assert found["need"] >= 0.9 * found["effect"]
    assert found["verdict"] == Verdict.RESTS_ON_REGION or found["p"] > 0.05


def test_what_is_left_is_of_the_samples_that_have_the_condition(result: Result) -> None:
    figure = next(one for one in result.figures if one.name == "evidence")
    assert figure.cells is not None
    left = figure.cells[figure.y.index("presence")][list(figure.x).index(HIDDEN)]
    assert left == pytest.approx(1 - of_task(result, "presence")["need_share"])


def test_the_answer_comes_first(result: Result) -> None:
    assert [finding.subject for finding in result.findings[:3]] == ["color", "surface", "presence"]
    assert result.findings[0].text.startswith("color: the answer rests on the key region: hiding")
    assert {glance.subject: glance.text for glance in result.overview} == {
        "color": "the region",
        "surface": "the text",
        "presence": result.overview[2].text,
    }
    assert {figure.kind for figure in result.figures} == {"heatmap", "patches"}


def test_scores_are_those_of_a_pass_with_these_pixels(
    vlm: ModelAdapter, samples: Sequence[Sample], result: Result
) -> None:
    table = result.table("evidence-samples")
    row = dict(zip(table.columns, table.rows()[0], strict=True))
    sample = samples[0]
    label, rival = (vlm.answer_ids(row[name])[0] for name in ("label", "rival"))
    left, top, right, bottom = json.loads(str(sample.attributes["regions"]))["main"]
    whole = np.asarray(sample.open_images()[0])

    def score(pixels: np.ndarray[Any, Any] | None) -> float:
        images = () if pixels is None else (Image.fromarray(pixels),)
        batch = vlm.encode([Sample("s", sample.prompt, images)])
        logits: Any = vlm.forward(batch, logits="last").logits
        return float(logits[0, label] - logits[0, rival])

    hidden, kept = [], []
    for fill in (whole.mean((0, 1)).round(), 128):
        one, other = whole.copy(), np.broadcast_to(fill, whole.shape).astype(np.uint8)
        one[top:bottom, left:right] = fill
        other[top:bottom, left:right] = whole[top:bottom, left:right]
        hidden.append(score(one))
        kept.append(score(other))
    full, none = score(whole), score(None)
    assert row["full"] == pytest.approx(full, abs=1e-4)
    assert row["prior"] == pytest.approx(none, abs=1e-4)
    assert row["need"] == pytest.approx(full - np.mean(hidden), abs=1e-4)
    assert row["enough"] == pytest.approx(np.mean(kept) - none, abs=1e-4)


def _with(regions: dict[str, Any] | None, task: str = "t", **attributes: Any) -> Sample:
    about = {} if regions is None else {"regions": json.dumps(regions)}
    return Sample("s", "?", ("x.png",), "a", task=task, attributes={**about, **attributes})


BOTH = {"cup": [0, 0, 4, 4], "cat+dog": [4, 4, 8, 8]}


@pytest.mark.parametrize(
    ("samples", "options", "error", "message"),
    [
        ([_with(None)], {}, MissingAnnotation, "no sample has one"),
        ([replace(_with(BOTH), images=())], {}, MissingAnnotation, "hides parts of images"),
        ([_with(BOTH, region="hat")], {}, DataError, "its key region is 'hat'"),
        ([_with(BOTH)], {"region": "hat"}, SpecError, "has a region 'hat'"),
        ([_with(BOTH)], {"region": {"color": "cup"}}, SpecError, "There is no task 'color'"),
        ([_with(BOTH)], {"max_questions": 20}, SpecError, "up to 22 questions"),
    ],
)
def test_what_cannot_be_asked_is_said_before_the_model_is_loaded(
    samples: list[Sample],
    options: dict[str, Any],
    error: type[VlmlensError],
    message: str,
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "x.png")
    Image.new("RGB", (8, 8)).save(path)
    shown = [replace(s, images=(path,) if s.images else ()) for s in samples]
    with pytest.raises(error, match=message):
        Evidence(EvidenceOptions.model_validate(options)).check(shown, ())


def test_a_region_outside_of_the_image_is_said_before_the_model_is_loaded() -> None:
    sample = replace(_with({"cup": [0, 0, 9, 9]}), images=(Image.new("RGB", (8, 8)),))
    with pytest.raises(DataError, match="outside its 8 x 8 image"):
        Evidence(EvidenceOptions()).check([sample], ())


def test_masks_without_a_pixel_and_strange_labels_are_said_before_the_model_is_loaded(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "mask.png")
    Image.new("L", (8, 8)).save(path)
    seen = (Image.new("RGB", (8, 8)),)
    sample = replace(_with({"cup": {"mask": path}}), images=seen)  # type: ignore[dict-item]
    for analysis in (Evidence(EvidenceOptions()), Occlusion(Occlusion.Options())):
        with pytest.raises(DataError, match="its region 'cup' holds no pixel"):
            analysis.check([sample], ())
    strange = replace(_with({"cup": [0, 0, 4, 4]}), images=seen, choices=("a", "b"), label="A")
    with pytest.raises(MissingAnnotation, match="has an answer that can be followed"):
        Evidence(EvidenceOptions()).check([strange], ())


@pytest.mark.parametrize(
    "options", [{"fills": ["gray", "gray"]}, {"hint": "It is {answer}."}, {"fills": []}]
)
def test_options_without_a_meaning_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fill is named twice|hold|at least 1"):
        EvidenceOptions.model_validate(options)


def test_another_background_comes_without_its_own_object() -> None:
    red, blue = (np.full((16, 16, 3), value, np.uint8) for value in ((200, 0, 0), (0, 0, 200)))
    blue[8:, 8:] = (0, 255, 0)
    known = [
        Known(
            Sample(
                name, "?", (Image.fromarray(pixels),), label, ("a", "b"), name, "t",
                {"regions": json.dumps({"key": box})},
            ),
            label,
            ("key",),
        )
        for name, pixels, label, box in (
            ("one", red, "a", [0, 0, 4, 4]), ("two", blue, "b", [8, 8, 16, 16]),
        )
    ]  # fmt: skip
    case, _ = cases_of(known, known, count=1, seed=0)
    (question,) = [q for name, q in asked(case, EvidenceOptions()) if name == BACKGROUND]
    assert question.other is not None
    seen = Canvas(question.sample).altered(question.alteration, question.other.images)
    pixels = np.asarray(seen.images[0])
    assert (pixels[:4, :4] == (200, 0, 0)).all()
    assert (pixels[8:, 8:] == blue.mean((0, 1)).round()).all()
    assert (pixels[4:8] == (0, 0, 200)).all()


def test_questions_without_an_image_are_the_same_for_all_unless_edits_need_regions() -> None:
    known = [
        Known(replace(_with(BOTH), id=name, choices=("a", "b"), images=(f"{name}.png",)), "a", ())
        for name in "st"
    ]
    cases = cases_of(known, known, count=1, seed=0)

    def units(*, edited: bool) -> list[str]:
        every = [asked(case, EvidenceOptions(), edited=edited) for case in cases]
        blind = [put.unit() for questions in every for name, put in questions if name == NONE]
        return [unit.sample.fingerprint() + unit.text() for unit in blind]

    assert len(set(units(edited=False))) == 1
    (one, _) = cases
    kept = [put for name, put in asked(one, EvidenceOptions(), edited=True) if name == NONE]
    assert "regions" in kept[0].sample.attributes


def test_photographs_with_regions_by_hand(vlm: ModelAdapter) -> None:
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    boxes = [[0, 150, 640, 427], [150, 100, 450, 400]]
    samples = [
        Sample(
            f"p{i}", "Color of the main object:", (image,), choices=("red", "yellow", "orange"),
            task="color", attributes={"regions": json.dumps({"thing": box})},
        )
        for i, (image, box) in enumerate(zip(photographs, boxes, strict=True))
    ]  # fmt: skip
    result = analyse(vlm, samples, random_regions=2)
    table = result.table("evidence-samples")
    assert table.columns["label"] == table.columns["answer"]
    assert np.isfinite(np.array(table.columns["specificity"], float)).all()
    assert np.isfinite(np.array(table.columns["background"], float)).all()
    assert "No sample has a label; the model's own answers are followed." in result.warnings
    assert [finding.verdict for finding in result.findings][:1] == [Verdict.INCONCLUSIVE]


def test_a_mask_is_as_good_as_a_box(
    vlm: ModelAdapter, samples: Sequence[Sample], tmp_path: Path
) -> None:
    colors = [sample for sample in samples if sample.task == "color"][:2]
    masked = []
    for sample in colors:
        path = str(tmp_path / f"{sample.group}.png")
        left, top, right, bottom = json.loads(str(sample.attributes["regions"]))["main"]
        mask = np.zeros((128, 128), np.uint8)
        mask[top:bottom, left:right] = 255
        Image.fromarray(mask).save(path)
        regions = json.dumps({"main": {"image": 0, "mask": path}})
        masked.append(replace(sample, attributes={"regions": regions, "region": "main"}))
    by_box, by_mask = (analyse(vlm, each, random_regions=2) for each in (colors, masked))
    for name in ("need", "enough", "random", "background"):
        one, other = (r.table("evidence-samples").columns[name] for r in (by_box, by_mask))
        assert one == pytest.approx(other, abs=1e-4)


def test_open_questions_and_a_gray_image(vlm: ModelAdapter, samples: Sequence[Sample]) -> None:
    colors = [replace(s, choices=()) for s in islice(samples, 0, 8) if s.task == "color"]
    result = analyse(vlm, colors, blind="gray", random_regions=1)
    row = dict(zip(result.table("evidence-samples").columns,
                   result.table("evidence-samples").rows()[0], strict=True))  # fmt: skip
    batch = vlm.encode([colors[0]])
    logits: Any = vlm.forward(batch, logits="last").logits
    token = vlm.answer_ids(str(colors[0].label))[0]
    assert row["rival"] is None
    assert row["full"] == pytest.approx(float(logits[0].log_softmax(-1)[token]), abs=1e-4)
    assert Evidence(EvidenceOptions(blind="gray")).needs() == frozenset()
    assert Evidence(EvidenceOptions()).needs() == {"text-only"}


def test_edits_of_image_rows_need_an_image(vlm: ModelAdapter, samples: Sequence[Sample]) -> None:
    colors = [sample for sample in samples if sample.task == "color"][:2]
    with vlm.edited(["llm.block.2/image = zero"]):
        with pytest.raises(CompositionError, match="without its image") as raised:
            analyse(vlm, colors, random_regions=1)
        assert "blind=gray" in str(raised.value.hint)
        analyse(vlm, colors, random_regions=1, blind="gray", pictures=0)


def test_a_model_that_writes_nothing_needs_labels_or_choices(samples: Sequence[Sample]) -> None:
    clip = ClipChecks().load()
    analysis = Evidence(EvidenceOptions(blind="gray"))
    bare = [replace(sample, label=None, choices=()) for sample in samples]
    with pytest.raises(MissingAnnotation, match="neither labels nor choices"):
        analysis.check_model(clip, bare, ())
    analysis.check_model(clip, samples, ())
