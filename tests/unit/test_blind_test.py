"""The blind test: scoring against plain forward passes, planted answers, verdicts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from vlmlens.abc import AnalysisContext, Options
from vlmlens.compose.applicability import suitable
from vlmlens.errors import MissingAnnotation
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.registry import Registry
from vlmlens.report.files import to_json
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.testing._rounding import ROUNDING
from vlmlens_plugins.analysis import _scoring as scoring_module
from vlmlens_plugins.analysis._blank_images import blanked
from vlmlens_plugins.analysis._scoring import AnswerScorer
from vlmlens_plugins.analysis.blind_test import BlindOptions, BlindTest
from vlmlens_plugins.analysis.blind_test.question_forms import normalized
from vlmlens_plugins.storage.memory import MemoryStore

OPTIONS = BlindOptions(draws=2000, resamples=500)


def run(vlm: Any, samples: list[Sample], **options: Any) -> tuple[Result, list[str]]:
    warnings: list[str] = []
    done: list[tuple[int, int]] = []
    analysis = BlindTest(BlindOptions(draws=1000, resamples=200, **options))
    with MemoryStore.open("blind-test", mode="a", options=Options()) as store:
        context = AnalysisContext(
            samples,
            store,
            lambda: vlm,
            batch_size=7,
            progress=lambda *steps: done.append(steps),
            warn=warnings.append,
        )
        result = analysis.run(context)
    assert done[-1][0] == done[-1][1] > 0
    assert done == sorted(done)
    return result, warnings


SCORES = ROUNDING * 26
"""How far the log-probability of a token may be off: as far as a logit, and these reach 26."""


def plain_score(vlm: Any, sample: Sample, answer: str) -> float:
    """Log-probability of an answer, one sample, token by token, from all logits."""
    ids = vlm.answer_ids(answer)
    inputs = dict(vlm.encode([sample]).inputs)
    total = 0.0
    for token in ids:
        with torch.inference_mode():
            logits = vlm.module(**inputs).logits[0, -1].double().log_softmax(-1)
        total += float(logits[token])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[token]])], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return total


def test_choices_of_one_token_are_scored_right(vlm: Any, scenes: list[Sample]) -> None:
    found = AnswerScorer(vlm).choices(scenes[:5])
    for sample, scores in zip(scenes[:5], found, strict=True):
        expected = [plain_score(vlm, sample, choice) for choice in sample.choices]
        np.testing.assert_allclose(scores, expected, atol=SCORES)


def test_choices_of_several_tokens_are_scored_right(vlm: Any, scenes: list[Sample]) -> None:
    choices = ("red cube", "a blue sphere", "no")
    samples = [replace(scenes[i], choices=choices) for i in (0, 3, 4)]
    assert max(len(vlm.answer_ids(choice)) for choice in choices) > 1
    mixed = [*samples, scenes[1]]
    found = AnswerScorer(vlm).choices(mixed)
    for sample, scores in zip(mixed, found, strict=True):
        expected = [plain_score(vlm, sample, choice) for choice in sample.choices]
        np.testing.assert_allclose(scores, expected, atol=3 * SCORES)


def test_a_small_budget_for_logits_does_not_change_the_scores(
    vlm: Any, scenes: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [replace(scenes[i], choices=("red cube", "a blue sphere")) for i in (0, 3, 4)]
    whole = AnswerScorer(vlm).choices(samples)
    monkeypatch.setattr(scoring_module, "_ROWS", 1)
    np.testing.assert_allclose(AnswerScorer(vlm).choices(samples), whole, atol=3 * SCORES)


@pytest.mark.parametrize("blank", ["gray", "noise", "none"])
def test_answers_on_the_demo_model_equal_plain_passes(
    blank: Any, vlm: Any, scenes: list[Sample]
) -> None:
    result, warnings = run(vlm, scenes, blank=blank)
    assert not warnings
    rows = result.table("blind-answers").rows()
    names = list(result.table("blind-answers").columns)
    by_id = {row[0]: dict(zip(names, row, strict=True)) for row in rows}
    for sample in scenes[:6]:
        p, q = (
            np.array([plain_score(vlm, s, c) for c in sample.choices])
            for s in (sample, blanked(sample, blank, 0))
        )
        p, q = (np.exp(v) / np.exp(v).sum() for v in (p, q))
        row = by_id[sample.id]
        assert row["answer_image"] == sample.choices[p.argmax()]
        assert row["probability_blank"] == pytest.approx(q.max(), abs=SCORES)
        assert row["total_variation"] == pytest.approx(np.abs(p - q).sum() / 2, abs=SCORES)
        assert row["flipped"] == (p.argmax() != q.argmax())


def plain_loop(vlm: Any, samples: list[Sample], size: int) -> dict[str, list[np.ndarray]]:
    """By sample id: probabilities with the image and with gray, as a loop over batches has them."""
    scorer, found, known = AnswerScorer(vlm), {}, {}
    for task in dict.fromkeys(sample.task for sample in samples):
        members = [sample for sample in samples if sample.task == task]
        for start in range(0, len(members), size):
            part = members[start : start + size]
            seen = scorer.choices(part)
            new = {s.prompt: blanked(s, "gray", 0) for s in part if s.prompt not in known}
            known |= dict(zip(new, scorer.choices([*new.values()]) if new else (), strict=True))
            for s, logs in zip(part, seen, strict=True):
                found[s.id] = [np.exp(normalized(normalized(x))) for x in (logs, known[s.prompt])]
    return found


def test_numbers_are_those_of_a_plain_loop_bit_for_bit(vlm: Any, scenes: list[Sample]) -> None:
    result, _ = run(vlm, scenes)
    expected = plain_loop(vlm, scenes, 7)
    rows = result.table("blind-answers").columns
    for i, name in enumerate(rows["sample"]):
        p, q = expected[name]
        assert rows["probability_image"][i] == p.max()
        assert rows["probability_blank"][i] == q.max()


def test_open_questions_are_compared_by_their_first_token(vlm: Any, scenes: list[Sample]) -> None:
    bare = [replace(sample, choices=()) for sample in scenes]
    result, _ = run(vlm, bare)
    tasks = result.table("blind-tasks")
    assert tasks.columns["chance"] == [None] * 5
    closed, _ = run(vlm, scenes)
    color = {r[0]: r for r in closed.table("blind-answers").rows() if r[1] == "color"}
    for row in result.table("blind-answers").rows():
        if row[1] == "color":
            assert str(row[3]).strip() == color[row[0]][3]
            assert row[4] is None
    assert to_json(Result.from_dict(json.loads(to_json(result)))) == to_json(result)


def test_labels_that_share_their_first_token_are_left_out_of_the_accuracy(
    vlm: Any, scenes: list[Sample]
) -> None:
    members = [replace(s, choices=()) for s in scenes if s.task == "color"]
    same = [replace(s, label=f"{s.label} square") for s in members]
    other = [replace(s, id=f"{s.id}-b", label=f"{s.label} circle") for s in members]
    result, warnings = run(vlm, [*same, *other])
    assert any("16 of 16 labels begin with the same token" in line for line in warnings)
    assert "right in" not in result.findings[0].text
    told, warnings = run(vlm, same)
    assert not warnings
    assert "right in" in told.findings[0].text


def test_labels_that_are_classes_are_not_taken_for_answers(vlm: Any, scenes: list[Sample]) -> None:
    """Folders of a photo set: no answer is ever "normal", which says nothing about the model."""
    members = [s for s in scenes if s.task == "color"]
    open_ones = [
        replace(s, choices=(), label=("normal", "defect")[i % 2]) for i, s in enumerate(members)
    ]
    result, warnings = run(vlm, open_ones)
    assert any("taken as classes" in line for line in warnings)
    assert "right in" not in result.findings[0].text
    right = [replace(s, choices=()) for s in members]
    result, warnings = run(vlm, right)
    assert not warnings
    assert "right in" in result.findings[0].text


def test_samples_without_an_image_are_left_out_and_labels_that_are_no_choice_named(
    vlm: Any, scenes: list[Sample]
) -> None:
    odd = replace(scenes[0], id="odd", label="turquoise")
    result, warnings = run(vlm, [*scenes[:4], odd, replace(scenes[1], id="bare", images=())])
    assert len(warnings) == 2
    assert "1 samples were left out: they have no image" in warnings[0]
    assert "'odd'" in warnings[1]
    assert "bare" not in result.table("blind-answers").columns["sample"]


def test_no_image_at_all_is_an_error_at_once() -> None:
    with pytest.raises(MissingAnnotation, match="needs images"):
        BlindTest(OPTIONS).check([Sample("a", "?")], [])


class Comparing:
    """Compares choices by a rule that looks at the image's first pixel; writes nothing."""

    active_edits: ClassVar[list[Any]] = []

    def choice_scores(self, samples: list[Sample]) -> list[list[float]]:
        rows = []
        for sample in samples:
            red = sample.open_images()[0].getpixel((0, 0))[0] > 128
            p = [0.9 if ("red" in choice) == red else 0.1 for choice in sample.choices]
            rows.append(np.log(np.array(p) / sum(p)).tolist())
        return rows


class Deaf(Comparing):
    """Prefers the first choice, whatever the image shows."""

    def choice_scores(self, samples: list[Sample]) -> list[list[float]]:
        return [
            [0.0, *[-1.0] * (len(sample.choices) - 1)] if sample.choices else []
            for sample in samples
        ]


def painted(i: int, **more: Any) -> Sample:
    color = (220, 0, 0) if i % 2 else (0, 0, 220)
    image = Image.new("RGB", (8, 8), color)
    label = ("blue", "red")[i % 2]
    return Sample(f"s{i}", "a photo of", (image,), label=label, group=f"{i}", **more)


def test_a_model_that_compares_choices_is_asked_by_similarity() -> None:
    samples = [painted(i, choices=("blue", "red", "reddish")) for i in range(24)]
    result, warnings = run(Comparing(), samples)
    assert not warnings
    assert result.findings[0].verdict is Verdict.USES_IMAGE
    assert any("writes nothing" in note for note in result.notes)
    row = next(iter(result.table("blind-answers").rows()))
    assert row[3] == "blue"
    assert row[4] == pytest.approx(0.9 / 1.1)


def test_the_overview_says_in_a_word_whether_the_image_is_used() -> None:
    samples = [painted(i, choices=("blue", "red"), task="color") for i in range(60)]
    (cell,) = run(Comparing(), samples)[0].overview
    assert (cell.subject, cell.question, cell.text) == ("color", "uses the image", "yes")
    assert (cell.value, cell.beside) == (1.0, "blind 0.50")
    three = ("blue", "red", "green")
    result, _ = run(Deaf(), [painted(i, choices=three) for i in range(90)])
    (cell,) = result.overview
    assert (cell.text, cell.verdict) == ("no", Verdict.IGNORES_IMAGE)
    assert cell.beside == "blind 0.50"
    assert result.findings[0].notable


def test_the_overview_tells_chance_and_what_changes_without_labels() -> None:
    samples = [painted(i, choices=("blue", "red")) for i in range(60)]
    (cell,) = run(Deaf(), samples)[0].overview
    assert (cell.subject, cell.beside) == ("all samples", "blind 0.50, chance 0.50")
    bare = [replace(sample, label=None) for sample in samples]
    (cell,) = run(Comparing(), bare)[0].overview
    assert (cell.value, cell.beside) == (None, "50% change")


def test_labels_stand_in_where_such_a_model_has_no_choices() -> None:
    samples = [painted(i) for i in range(24)]
    result, warnings = run(Comparing(), samples)
    assert "24 samples have no choices" in warnings[0]
    assert result.findings[0].verdict is Verdict.USES_IMAGE
    assert result.table("blind-tasks").columns["chance"] == [0.5]


def test_one_label_alone_is_nothing_to_choose_from() -> None:
    with pytest.raises(MissingAnnotation, match="neither choices nor"):
        run(Comparing(), [painted(2 * i) for i in range(4)])


@pytest.mark.parametrize(
    ("offers", "sample", "suits"),
    [
        ({"choice-scores"}, painted(0), True),
        ({"choice-scores"}, replace(painted(0), label=None), False),
        ({"choice-scores"}, replace(painted(0), label=None, choices=("a", "b")), True),
        ({"choice-scores", "generate"}, replace(painted(0), label=None), True),
        (set(), replace(painted(0), label=None), True),
    ],
)
def test_open_questions_need_a_model_that_writes(
    offers: set[str], sample: Sample, suits: bool
) -> None:
    adapter = Manifest(PluginKind.ADAPTER, "it", "it:It", "", offers=frozenset(offers))
    made, left_out = suitable(
        Registry.default(), {"blind-test": {}}, adapter=adapter, samples=[sample], columns=(),
        strict=False,
    )  # fmt: skip
    assert bool(made) is suits
    assert suits or "only compares choices" in left_out["blind-test"]


def test_answers_of_several_tokens_are_cut_into_batches_that_fit(vlm, scenes, monkeypatch):
    """No batch is larger than what fits, and each question is encoded about once."""
    asked = [replace(one, choices=("red or green", "blue or gray")) for one in scenes[:12]]
    whole = AnswerScorer(vlm).choices(asked)
    encoded: list[int] = []
    encode = type(vlm).encode

    def noted(self, samples, **given):
        batch = encode(self, samples, **given)
        encoded.append(len(samples))
        return batch

    monkeypatch.setattr(type(vlm), "encode", noted)
    monkeypatch.setattr(scoring_module, "_ROWS", 400)
    scorer = AnswerScorer(vlm)
    for start in (0, 6):
        parts = scorer.choices(asked[start : start + 6])
        for found, right in zip(parts, whole[start : start + 6], strict=True):
            np.testing.assert_allclose(found, right, atol=1e-4)
    assert max(encoded[1:]) * 80 <= 400
    assert sum(encoded) <= 24 + 6
