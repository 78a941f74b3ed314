"""Hallucination from inside: numbers against other ways of computing them, and planted truths."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

from vlmlens.abc import AnalysisContext, ColumnStore, ModelAdapter, WorkUnit
from vlmlens.errors import CompositionError, DataError, MissingAnnotation, SpecError
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.testing import check_work
from vlmlens.testing.model import tiny_model
from vlmlens.testing.tiny import picture
from vlmlens.tokens import TokenKind
from vlmlens_plugins.analysis.hallucination import Hallucination, signals
from vlmlens_plugins.analysis.hallucination.asked import Case, usable
from vlmlens_plugins.analysis.hallucination.held_out import Folds, folds_of
from vlmlens_plugins.analysis.hallucination.measured import Measured, Scored, adds, measured
from vlmlens_plugins.analysis.hallucination.options import HallucinationOptions
from vlmlens_plugins.analysis.hallucination.work import Inside, InsideOptions
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions

SEEN = [
    Sample("a", "What is this?", (picture(32, 32, seed=1),)),
    Sample("b", "Name the colour of it, please:", (picture(32, 32, seed=2),)),
]
FEW = {"folds": 3, "C": (0.01,), "draws": 200}


# ------------------------------------------------------------- numbers, computed in another way


def case(i: int, *, bad: bool, rows: np.ndarray, thing: str, group: str, told: float) -> Case:
    """A question whose hidden state and confidence are given."""
    inside = {
        "entropy": 0.5,
        "answer": {"confidence": [told, told], "inside": None},
        "object": None,
        "chance": None,
        "looks": None,
        "image": [],
        "last": [rows.tolist()],
    }
    sample = Sample(f"s{i}", "?", label="yes", group=group)
    sure = -float(np.random.default_rng(i).random())
    return Case(sample, "yes", bad, sure, sure, thing, True, inside)


def asked_about(n: int = 240, *, by: str) -> list[Case]:
    """Questions that are wrong by their object, by their group, by what the state says, or not."""
    rng = np.random.default_rng(5)
    groups, objects = rng.permutation(np.arange(n) // 3), rng.permutation(np.arange(n) % 24)
    random = rng.random(n) < 0.4
    width = 96 if by in ("object", "group") else 16
    states = rng.normal(size=(n, width))
    of_object, of_group = rng.normal(size=(24, width)), rng.normal(size=(n // 3, width))
    told = rng.normal(size=n)
    if by == "object":
        random = np.isin(objects, rng.permutation(24)[:10])
        states = 3 * of_object[objects] + 0.1 * states
    if by == "group":
        random = np.isin(groups, rng.permutation(n // 3)[: n // 8])
        states = 3 * of_group[groups] + 0.1 * states
    if by == "state":
        states[:, 3] += 2.0 * random
    if by == "confidence":
        told -= 3.0 * random
    return [
        case(
            i, bad=bool(random[i]), rows=states[i], thing=f"thing {objects[i]}",
            group=f"g{groups[i]}", told=float(told[i]),
        )
        for i in range(n)
    ]  # fmt: skip


def found_in(cases: Sequence[Case], **options: Any) -> Measured:
    return measured("t", cases, HallucinationOptions.model_validate({**FEW, **options}), seed=0)


def of(found: Measured, name: str) -> Scored:
    return next(one for one in found.scored if one.signal.name == name)


def test_a_probe_that_reads_it_from_the_state_adds_to_the_answer() -> None:
    found = found_in(asked_about(by="state"))
    assert [one.signal.name for one in found.adding(0.02)] == ["probe-last"]
    assert of(found, "probe-last").auroc > 0.8
    assert of(found, "answer-probability").auroc == pytest.approx(0.5, abs=0.1)
    assert found.shuffled == pytest.approx(0.5, abs=0.12)


def test_where_the_object_says_it_nothing_is_left_with_objects_held_out() -> None:
    """A split that holds out only images, or nothing, claims what is not there."""
    cases = asked_about(by="object")
    fair = found_in(cases)
    assert not [one.signal.name for one in fair.scored if adds(one, 0.02)]
    assert max(of(fair, name).auroc for name in ("probe-last", "object-only")) < 0.65
    for naive in ("group", "nothing"):
        found = found_in(cases, hold_out=naive)
        assert of(found, "probe-last").auroc > 0.95
        assert adds(of(found, "object-only"), 0.02)
        assert not found.adding(0.02), "the object's words do as well as the probe"


def test_where_the_image_says_it_nothing_is_left_with_images_held_out() -> None:
    cases = asked_about(by="group")
    assert found_in(cases, hold_out="group").scored[-1].auroc < 0.65
    leaks = found_in(cases, hold_out="nothing")
    assert of(leaks, "probe-last").auroc > 0.8
    assert [one.signal.name for one in leaks.adding(0.02)] == ["probe-last"]


def test_few_objects_are_inconclusive() -> None:
    cases = [replace(one, object=str(i % 9)) for i, one in enumerate(asked_about(by="state"))]
    assert "samples are of 9 objects" in found_in(cases).why_not
    assert [one.signal.name for one in found_in(cases, hold_out="group").adding(0.02)] == [
        "probe-last"
    ]


def test_without_a_signal_none_is_claimed() -> None:
    found = found_in(asked_about(by="nothing"))
    assert not found.adding(0.0)
    assert all(abs(one.auroc - 0.5) < 0.15 for one in found.scored)


def test_low_confidence_stands_for_wrong_answers_and_a_flipped_sign_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cases = asked_about(by="confidence")

    def check() -> None:
        assert of(found_in(cases), "answer-confidence").auroc > 0.9

    check()
    right = signals._confidences

    def flipped(cases: Sequence[Case], text: str, norm: int) -> Any:
        values = right(cases, text, norm)
        return None if values is None else -values

    monkeypatch.setattr(signals, "_confidences", flipped)
    with pytest.raises(AssertionError):
        check()


def test_folds_that_leak_groups_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted truth catches folds that look at samples one by one."""
    name = "vlmlens_plugins.analysis.hallucination.measured.folds_of"

    def leaking(bad: Any, groups: Any, objects: Any, folds: int, seed: int) -> Folds:
        del groups
        return folds_of(bad, [str(i) for i in range(len(bad))], objects, folds, seed)

    monkeypatch.setattr(name, leaking)
    with pytest.raises(AssertionError):
        test_where_the_image_says_it_nothing_is_left_with_images_held_out()


def test_an_answer_that_tells_it_is_no_gain_of_what_reads_the_answer() -> None:
    """All wrong answers say yes, so a probe that reads the answer tells them; it adds nothing."""
    cases = []
    for i, one in enumerate(asked_about(by="nothing")):
        states = np.array(one.inside["last"][0])
        states[0] += 4.0 * one.bad
        answer = "yes" if one.bad else "no"
        inside = {**one.inside, "last": [states.tolist()]}
        sample = replace(one.sample, label="no", id=str(i))
        cases.append(replace(one, answer=answer, inside=inside, sample=sample))
    found = found_in(cases)
    assert of(found, "probe-last").auroc > 0.95
    assert found.answer > 0.99
    assert not found.adding(0.0)


@pytest.mark.parametrize(
    ("wrong", "labels", "expected"),
    [
        (10, "same", "10 of 240 samples are wrong; 20 are needed"),
        (100, "apart", "only 0 of the 100 wrong answers have a sample with the same label"),
    ],
)
def test_too_few_of_one_class_are_inconclusive(wrong: int, labels: str, expected: str) -> None:
    cases = [
        replace(
            one,
            bad=i < wrong,
            sample=replace(one.sample, label=str(i < wrong) if labels == "apart" else "x"),
        )
        for i, one in enumerate(asked_about(by="nothing"))
    ]
    found = found_in(cases)
    assert expected in found.why_not
    assert not found.scored


# ------------------------------------------------------------- what is read inside


def test_what_is_inside_is_what_transformers_gives() -> None:
    eager = tiny_model("eager")
    units = [
        WorkUnit(one, {"prefix": [], "answer": [[70, 71]], "object": [[80], [90]], "region": []})
        for one in SEEN
    ]
    found = Inside(InsideOptions(depths=(0.5, 1.0))).run(tiny_model(), units)
    for one, sample in zip(found, SEEN, strict=True):
        batch = eager.encode([sample])
        layout = batch.layout(0)
        image = layout.rows[layout.kinds == TokenKind.IMAGE]
        with torch.inference_mode():
            out = eager.module(**batch.inputs, output_attentions=True, output_hidden_states=True)
            trace = eager.trace(batch, ["llm.block.*"])
        first = out.hidden_states[1][0].double()
        last = trace.activations["llm.block.1"].flatten(0, -2).double()
        assert one["image"][0] == pytest.approx(first[image[-1]].tolist(), rel=1e-3, abs=1e-5)
        assert one["last"][1] == pytest.approx(last[-1].tolist(), rel=1e-3, abs=1e-5)
        shares = [float(each[0].mean(0)[-1, image].sum()) for each in out.attentions]
        assert one["looks"] == pytest.approx(shares, abs=1e-5)
        p = out.logits[0, -1].double().softmax(-1)
        assert one["entropy"] == pytest.approx(float(-(p * p.log()).sum()), abs=1e-5)
        head: Any = eager.module.get_output_embeddings()  # type: ignore[operator]
        norm = eager.module.get_submodule("model.language_model.norm")
        for k, normed in enumerate((False, True)):
            rows = torch.cat([first[image], last[image]])
            rows = norm(rows.float()).double() if normed else rows
            logs = (rows @ head.weight.double().T).log_softmax(-1).detach()
            expected = float(logs[:, [70, 71]].max())
            assert one["answer"]["confidence"][k] == pytest.approx(expected, abs=1e-5)
            both = float(torch.minimum(logs[:, 80], logs[:, 90]).max())
            assert one["object"]["confidence"][k] == pytest.approx(both, abs=1e-5)


def test_results_depend_on_their_unit_alone(vlm: ModelAdapter, scenes: list[Sample]) -> None:
    told = {"prefix": [], "answer": [[70]], "object": [], "region": ["main"]}
    units = [WorkUnit(one, told) for one in scenes[:3]]
    check_work(vlm, Inside(InsideOptions(coordinates=16)), units)
    (one,) = Inside(InsideOptions(coordinates=16)).run(vlm, units[:1])
    assert len(one["last"][0]) == 16
    assert one["object"] is None


def test_the_place_of_the_peak_is_held_to_the_region(
    vlm: ModelAdapter, scenes: list[Sample]
) -> None:
    """The whole picture as region: always inside, and the chance is 1; a corner: its share."""
    told = {"prefix": [], "answer": [[70]], "object": [], "region": ["it"]}
    width = scenes[0].open_images()[0].width
    for box, chance in (((0, 0, width, width), 1.0), ((0, 0, 16, 16), 1 / 64)):
        sample = replace(scenes[0], attributes={"regions": json.dumps({"it": box})})
        (one,) = Inside().run(vlm, [WorkUnit(sample, told)])
        assert one["chance"] == chance
        assert one["answer"]["inside"] == [1.0, 1.0] if chance == 1 else True
    (one,) = Inside().run(vlm, [WorkUnit(sample, {**told, "region": ["other"]})])
    assert one["chance"] is one["answer"]["inside"] is None


# ------------------------------------------------------------- the analysis, on the demo model


def analysed(
    vlm: ModelAdapter, asked: Sequence[Sample], told: list[str] | None = None, **options: Any
) -> Result:
    store: ColumnStore = None  # type: ignore[assignment]  # it reads no columns
    warn = (lambda message: None) if told is None else told.append
    analysis = Hallucination(HallucinationOptions.model_validate({**FEW, **options}))
    analysis.check(asked, ())
    analysis.check_model(vlm, asked, ())
    return analysis.run(AnalysisContext(asked, store, cache(lambda: vlm), warn=warn))


def asked_of_scenes(count: int, task: str) -> list[Sample]:
    found = DemoDataset("scenes", DemoOptions(scenes=count)).samples([])
    return [sample for sample in found if sample.task == task]


def spoiled(sample: Sample) -> Sample:
    """With much noise in the picture, as much as chance will have it."""
    digest = hashlib.sha256(base64.b64encode(sample.id.encode())).digest()
    rng = np.random.default_rng(list(digest))
    share = 0.2 + 0.7 * rng.random()
    pixels = np.asarray(sample.open_images()[0], np.float64)
    noise = rng.integers(0, 256, pixels.shape)
    mixed = ((1 - share) * pixels + share * noise).astype(np.uint8)
    return replace(sample, images=(Image.fromarray(mixed),))


def test_in_spoiled_pictures_the_answers_probability_tells_and_nothing_adds(
    vlm: ModelAdapter,
) -> None:
    samples = [spoiled(sample) for sample in asked_of_scenes(56, "color")]
    told: list[str] = []
    result = analysed(vlm, samples, told, depths=(1.0,), min_class=10)
    rows = result.table("hallucination-signals").columns
    areas = dict(zip(rows["signal"], rows["auroc"], strict=True))
    assert areas["answer-probability"] > 0.9  # type: ignore[operator]
    assert areas["entropy"] > 0.9  # type: ignore[operator]
    head = result.findings[0]
    assert head.verdict in (Verdict.NO_DIFFERENCE, Verdict.INCONCLUSIVE)
    assert "no internal signal is shown to add to it" in head.text
    assert any("all samples have one object" in message for message in told)
    table = result.table("hallucination-samples").columns
    wrong = [a != b for a, b in zip(table["label"], table["answer"], strict=True)]
    assert table["bad"] == wrong
    expected = average_precision_score(wrong, -np.array(table["sure"], np.float64))
    assert rows["average_precision"][0] == pytest.approx(expected)


def test_absent_objects_are_told_by_the_answer(vlm: ModelAdapter) -> None:
    samples = asked_of_scenes(38, "presence")
    result = analysed(vlm, samples, target="absent", depths=(1.0,), min_class=8)
    rows = result.table("hallucination-signals").columns
    areas = dict(zip(rows["signal"], rows["auroc"], strict=True))
    assert areas["answer-probability"] > 0.97  # type: ignore[operator]
    assert {"object-confidence", "svar", "probe-image"} <= set(areas)
    tasks = result.table("hallucination-tasks").columns
    assert tasks["objects"][0] > 3  # type: ignore[operator]
    places = result.table("hallucination-places").columns
    assert places["word"] == ["object", "object"]
    assert places["norm"] == ["without", "with"]


def test_open_questions_are_answered_in_words(vlm: ModelAdapter, scenes: list[Sample]) -> None:
    samples = [replace(one, choices=()) for one in scenes if one.task == "color"]
    told: list[str] = []
    result = analysed(vlm, samples, told, samples=6)
    rows = result.table("hallucination-samples").columns
    assert [str(text).strip() for text in rows["answer"]] == [one.label for one in samples[:6]]
    assert rows["bad"] == [False] * 6
    assert result.findings[0].verdict is Verdict.INCONCLUSIVE
    assert any("only the first 6 of 8 samples are used" in message for message in told)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({"label": None}, {}, MissingAnnotation, "samples with an image and a label"),
        ({"label": "x", "choices": ("X",)}, {}, MissingAnnotation, "one of the choices"),
        ({}, {"object": "objekt"}, MissingAnnotation, "attribute 'objekt'"),
        ({}, {"region": "mian"}, SpecError, "has a region 'mian'"),
        ({"label": "red"}, {"target": "absent"}, MissingAnnotation, "say that an object is absent"),
        ({"attributes": {"regions": "{"}}, {}, DataError, "regions"),
        ({"attributes": {"regions": '{"a": [0, 0, 999, 9]}'}}, {}, DataError, "outside its"),
    ],
)
def test_what_cannot_work_is_said_before(
    scenes: list[Sample], change: Any, options: Any, error: type[Exception], message: str
) -> None:
    samples = [replace(one, **change) for one in scenes]
    analysis = Hallucination(HallucinationOptions.model_validate(options))
    with pytest.raises(error, match=message):
        analysis.check(samples, ())


def test_a_label_that_is_no_choice_makes_no_answer_wrong(scenes: list[Sample]) -> None:
    strange = replace(scenes[0], label="Red", choices=("red", "blue"))
    known, said = usable([scenes[0], strange], HallucinationOptions())
    assert known == [scenes[0]]
    assert "1 of 2 samples are left out: their label is not among" in said[0]
    options = HallucinationOptions(target="absent", blank="none")
    assert len(usable([strange], options)[0]) == 1
    assert Hallucination(options).needs() == {"text-only"}


def test_a_model_that_compares_choices_is_refused(scenes: list[Sample]) -> None:
    class Compares:
        """Stands for a family that writes nothing."""

        def choice_scores(self, samples: Sequence[Sample]) -> list[list[float]]:
            return []

    with pytest.raises(CompositionError, match="only compares choices"):
        Hallucination(HallucinationOptions()).check_model(Compares(), scenes, ())  # type: ignore[arg-type]
