"""Bottlenecks: which questions are asked under which conditions, and what is read of answers."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from pydantic import ValidationError

from vlmlens.abc import AnalysisContext, WorkUnit
from vlmlens.errors import CompositionError, MissingAnnotation, SpecError
from vlmlens.samples import Sample
from vlmlens.testing import check_work
from vlmlens.testing.model import tiny_model
from vlmlens.testing.tiny import picture
from vlmlens_plugins.analysis._grading import Grader
from vlmlens_plugins.analysis.bottleneck import Bottleneck
from vlmlens_plugins.analysis.bottleneck.asked import Case, asked, conditions
from vlmlens_plugins.analysis.bottleneck.options import BottleneckOptions
from vlmlens_plugins.analysis.bottleneck.reading import fact_of, is_derived
from vlmlens_plugins.analysis.bottleneck.usable import usable
from vlmlens_plugins.analysis.bottleneck.work import STAGES, Stages

OPTIONS = BottleneckOptions(draws=200)
CHOICES = ("a", "b")


def test_texts_are_put_before_the_question() -> None:
    sample = Sample(
        "s", "Highest?", label="A", attributes={"table": "A | 3", "ocr": " ", "description": "A."}
    )
    found = conditions(sample, OPTIONS)
    assert {name: one.prompt for name, one in found.items()} == {
        "image": "Highest?",
        "image+ocr": "A | 3\nHighest?",
        "text": "A.\nHighest?",
        "blind": "Highest?",
    }
    own = BottleneckOptions(template="{question} Note: {text}", description=("table",))
    assert conditions(sample, own)["text"].prompt == "Highest? Note: A | 3"
    for wrong in ("{text}", "{text} {question} {other}", "{question", "{text}{text}{question}"):
        with pytest.raises(ValidationError):
            BottleneckOptions(template=wrong)


def test_written_answers_are_read_by_the_labels_of_the_task() -> None:
    samples = [Sample("1", "?", label="three"), Sample("2", "?", label="red")]
    grader = Grader(samples, "strict")
    assert grader.written("It is 3.", samples[0]).right
    assert not grader.written("red", samples[0]).right
    assert grader.written("", samples[0]).said == ""
    with pytest.raises(SpecError, match="no-such-set"):
        Grader([Sample("1", "?", label="a", attributes={"benchmark": "no-such-set"})], "strict")


def test_what_cannot_be_used_is_left_out_or_refused() -> None:
    seen = Sample("1", "?", (picture(8, 8, seed=0),), label="a", choices=CHOICES)
    samples = [
        seen,
        Sample("2", "?", label="a"),
        Sample("3", "?", seen.images, label="z", choices=CHOICES),
        Sample("4", "?", seen.images, label="open"),
    ]
    kept, said = usable(samples, OPTIONS, closed=True)
    assert [sample.id for sample in kept] == ["1"]
    assert len(said) == 3
    with pytest.raises(MissingAnnotation, match="image and a label"):
        Bottleneck(OPTIONS).check(samples[1:3], [])
    with pytest.raises(MissingAnnotation, match="'ocrr'"):
        Bottleneck(BottleneckOptions(ocr=("ocrr",))).check(samples, [])
    with pytest.raises(MissingAnnotation, match="'shown'"):
        Bottleneck(BottleneckOptions(fact="shown")).check(samples, [])
    with pytest.raises(SpecError, match="rule=strictt"):
        Bottleneck(BottleneckOptions(rule="strictt")).check(samples, [])
    assert Bottleneck(OPTIONS).uses(samples) == {"model"}
    assert Bottleneck(BottleneckOptions(blank="none")).needs() == {"text-only"}
    assert Bottleneck(OPTIONS).cost(tiny_model(), [seen]) == "about 3 passes of the model"


def test_numbers_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Sample("1", "?", (picture(32, 32, seed=0),), label="a", choices=CHOICES)
    monkeypatch.setattr(Case, "finite", False)
    with pytest.raises(CompositionError, match="no finite numbers"):
        Bottleneck(OPTIONS).run(AnalysisContext([seen], None, tiny_model))  # type: ignore[arg-type]


# -------------------------------------------------------------------------------- model work


def test_states_are_those_of_a_trace() -> None:
    vlm = tiny_model()
    samples = [
        Sample("1", "What is it?", (picture(32, 32, seed=1),)),
        Sample("2", "And what is the colour of that?", (picture(32, 32, seed=2),)),
    ]
    units = [WorkUnit(sample) for sample in samples]
    found = Stages().run(vlm, units)
    trace = vlm.trace(vlm.encode(samples), ["vision.block.*", "projector", "llm.block.*"])
    selectors = dict(zip(STAGES, ("image.mean", "image.mean", "image.mean", "last"), strict=True))
    for stage, selector in selectors.items():
        for site in found[0][stage]:
            rows = trace.select(f"{site}/{selector}")
            for i in range(2):
                assert found[i][stage][site] == pytest.approx(
                    np.asarray(rows[i]).reshape(-1).tolist(), rel=1e-3, abs=1e-4
                )
    check_work(vlm, Stages(), units)


def test_texts_that_the_model_cannot_be_given_are_left_out_and_counted() -> None:
    texts = ["short", "long " * 3000, "an <image> that is not there", ""]
    samples = [
        Sample(
            str(i), "Which?", (picture(32, 32, seed=i),), label="a", choices=CHOICES,
            attributes={"description": text},
        )
        for i, text in enumerate(texts)
    ]  # fmt: skip
    said: list[str] = []
    context = AnalysisContext(samples, None, functools.cache(tiny_model), warn=said.append)  # type: ignore[arg-type]
    cases = asked(context, samples, BottleneckOptions(template="{text} <image> {question}"))
    assert ["text" in case.answers for case in cases] == [True, False, False, False]
    assert len(said) == 1
    assert said[0].startswith("2 of 3 texts are left out: ")
    assert {"image", "blind"} <= set(cases[1].answers)


def test_equal_blind_questions_are_asked_once() -> None:
    """And descriptions are given on the same blank, so that they differ in the text only."""
    samples = [
        Sample(
            str(i), "Which?", (picture(32, 32, seed=i),), label="a", choices=CHOICES,
            attributes={"description": "It is a."},
        )
        for i in range(4)
    ]  # fmt: skip
    cases = asked(AnalysisContext(samples, None, functools.cache(tiny_model)), samples, OPTIONS)  # type: ignore[arg-type]
    for name in ("blind", "text"):
        assert all((case.scores[name] == cases[0].scores[name]).all() for case in cases)
    assert not (cases[0].scores["blind"] == cases[0].scores["text"]).all()
    assert not (cases[0].scores["image"] == cases[1].scores["image"]).all()


def test_an_empty_cell_is_no_fact() -> None:
    for value, expected in ((None, "a"), (float("nan"), "a"), (3, "3"), ("red", "red")):
        sample = Sample("1", "?", label="a", attributes={"fact": value})
        assert fact_of(sample, "fact") == expected
        assert is_derived(sample, "fact") == (expected != "a")
