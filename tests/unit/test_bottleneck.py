"""Bottlenecks: causes, probes, calibration and priors, on made-up answers and states."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

from vlmlens.results import Verdict
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._grading import Answer
from vlmlens_plugins.analysis.bottleneck.asked import Case
from vlmlens_plugins.analysis.bottleneck.calibration import Source, understanding
from vlmlens_plugins.analysis.bottleneck.causes import Attributed, Cause, attributed, lost_at
from vlmlens_plugins.analysis.bottleneck.measured import measured
from vlmlens_plugins.analysis.bottleneck.options import BLIND, IMAGE, TEXT, BottleneckOptions
from vlmlens_plugins.analysis.bottleneck.prior import _moved, outweighed
from vlmlens_plugins.analysis.bottleneck.reading import Status, read_questions
from vlmlens_plugins.analysis.bottleneck.report import report
from vlmlens_plugins.analysis.bottleneck.work import STAGES

OPTIONS = BottleneckOptions(draws=200)
CHOICES = ("a", "b")


def case(
    i: int,
    *,
    label: str = "a",
    right: Sequence[str] = (),
    among: Sequence[str] = (IMAGE, BLIND),
    task: str = "t",
    group: str | None = None,
    states: Any = None,
    scores: Any = None,
    prompt: str = "Which?",
    **attributes: Any,
) -> Case:
    """A question that is answered right under some conditions."""
    other = CHOICES[label == CHOICES[0]]
    answers = {}
    for name in among:
        text = label if name in right else other
        answers[name] = Answer(text, text, name in right)
    sample = Sample(
        f"{task}{i}", prompt, label=label, choices=CHOICES, group=group or f"g{i}", task=task,
        attributes=attributes,
    )  # fmt: skip
    return Case(sample, answers, scores or {}, states or {})


# ------------------------------------------------------------------------ where a fact is lost

WORLDS = {
    (0, 0, 0, 0): "eye",
    (1, 0, 0, 0): "alignment",
    (1, 1, 0, 0): "language",
    (1, 1, 1, 0): "language",
    (1, 1, 1, 1): "language",
}
"""What is there at each stage, in all the worlds in which nothing comes from nowhere."""


def test_the_cause_is_what_all_worlds_have_that_fit() -> None:
    """Every combination of there, not there and not known, against a list of worlds."""
    for known in itertools.product((True, False, None), repeat=4):
        later = [any(known[k + 1 :]) for k in range(4)]
        sure = [True if after else there for there, after in zip(known, later, strict=True)]
        fitting = {
            cause
            for world, cause in WORLDS.items()
            if all(there is None or bool(w) is there for there, w in zip(sure, world, strict=True))
        }
        found = lost_at(dict(zip(STAGES, known, strict=True)))
        if len(fitting) == 1:
            assert found.cause.value == fitting.pop(), known
        else:
            assert found.cause is Cause.UNTOLD, known
            assert set(found.detail.split(" or ")) == fitting, known


def test_language_says_how_far_the_fact_comes() -> None:
    told = [lost_at(dict(zip(STAGES, row, strict=True))).detail for row in (
        (True, True, True, True), (True, True, True, False), (True, True, False, False),
        (True, True, None, None),
    )]  # fmt: skip
    assert told == ["readable in the last row", *["not readable in the last row"] * 2, ""]


def test_stages_that_a_model_lacks_are_passed_over() -> None:
    tower, projector, image, last = STAGES
    assert lost_at({tower: True, image: False, last: False}).cause is Cause.ALIGNMENT
    assert lost_at({tower: True, projector: True, last: False}).cause is Cause.LANGUAGE
    assert lost_at({tower: False}).cause is Cause.EYE
    assert lost_at({tower: True}).detail == "alignment or language"
    assert lost_at({}).detail == "eye or alignment or language"


def test_prior_goes_before_reasoning_and_both_before_the_place() -> None:
    lost, said = Attributed(Cause.EYE), Attributed(Cause.LANGUAGE, "readable in the last row")
    assert attributed(lost, prior=True, reasoning=True, derived=False).cause is Cause.PRIOR
    assert attributed(lost, prior=False, reasoning=True, derived=False).cause is Cause.REASONING
    assert attributed(lost, prior=None, reasoning=None, derived=False) == lost
    assert attributed(said, prior=None, reasoning=None, derived=False) == said
    open_end = attributed(said, prior=None, reasoning=None, derived=True)
    assert open_end == Attributed(Cause.UNTOLD, "language or reasoning")
    assert attributed(said, prior=None, reasoning=False, derived=True) == said
    assert attributed(lost, prior=None, reasoning=None, derived=True) == lost


# ------------------------------------------------------------------------------------ probes


def with_states(
    n: int, *, told: float, groups: int | None = None, leak: bool = False, seed: int = 0
) -> list[Case]:
    """Cases of whose label the states of all stages tell so much, or only the group."""
    rng = np.random.default_rng(seed)
    groups = groups or n
    of_group = rng.random(groups) < 0.5
    marks = rng.normal(size=(groups, 12))
    cases = []
    for i in range(n):
        high = bool(of_group[i % groups]) if leak else bool(rng.random() < 0.5)
        row = rng.normal(size=12) + (2 * high - 1) * told * np.eye(12)[3]
        row = marks[i % groups] + 0.05 * row if leak else row
        states = {stage: {"block": row.tolist()} for stage in STAGES}
        cases.append(case(i, label=CHOICES[high], group=f"g{i % groups}", states=states))
    return cases


def test_probes_agree_with_another_library() -> None:
    cases = with_states(150, told=0.8)
    (question,) = read_questions(cases, OPTIONS.model_copy(update={"C": (1.0,)}), 0)
    assert question.stages is not None
    read = question.stages[STAGES[0]]
    x = StandardScaler().fit_transform([c.states[STAGES[0]]["block"] for c in cases])
    y = [c.sample.label for c in cases]
    groups = [c.sample.split_group for c in cases]
    other = cross_val_predict(LogisticRegression(C=1.0), x, y, groups=groups, cv=GroupKFold(5))
    accuracy = np.mean(other == np.array(y))
    assert read.accuracy.value == pytest.approx(accuracy, abs=0.06)
    assert read.accuracy.value == read.hits.mean()
    assert read.skill.value == pytest.approx((read.hits.mean() - read.base) / (1 - read.base))
    assert read.status is Status.READ
    assert read.p == pytest.approx(1 / 21)


def statuses(cases: Sequence[Case], **options: Any) -> set[Status]:
    found = read_questions(cases, OPTIONS.model_copy(update=options), 0)
    return {read.status for question in found for read in (question.stages or {}).values()}


def test_noise_is_not_readable_and_few_samples_decide_nothing() -> None:
    assert statuses(with_states(200, told=0.0)) == {Status.LOST}
    few = with_states(90, told=0.0)
    assert statuses(few) == {Status.OPEN}
    assert statuses(few, min_lost=2) == {Status.LOST}


def test_the_best_of_many_probes_is_held_against_the_best_of_as_many() -> None:
    """Of twelve sets of noise at ten sites each, about one in twenty looks readable."""
    options, low = OPTIONS.model_copy(update={"C": (1.0,)}), 0
    for seed in range(12):
        rng = np.random.default_rng([7, seed])
        states = rng.normal(size=(60, 10, 6))
        cases = [
            case(
                i,
                label=CHOICES[i % 2],
                states={STAGES[0]: {f"s{k}": row.tolist() for k, row in enumerate(states[i])}},
            )
            for i in range(60)
        ]
        (question,) = read_questions(cases, options, seed)
        assert question.stages is not None
        low += question.stages[STAGES[0]].p <= 0.1
    assert low <= 3


def test_what_only_the_group_tells_is_not_readable() -> None:
    """And a split that parts groups would call it readable."""
    leaky = with_states(180, told=0.0, groups=20, leak=True)
    (question,) = read_questions(leaky, OPTIONS, 0)
    assert Status.READ not in {read.status for read in (question.stages or {}).values()}
    apart = [
        replace(each, sample=replace(each.sample, group=f"own{i}")) for i, each in enumerate(leaky)
    ]
    (question,) = read_questions(apart, OPTIONS, 0)
    assert {read.status for read in (question.stages or {}).values()} == {Status.READ}


def random_labels(n: int, said: str) -> list[Case]:
    """States that tell nothing of the labels; answers that are right, or tell nothing either."""
    rng = np.random.default_rng(4)
    made = []
    for i in range(n):
        right = said == "right" or bool(rng.integers(2))
        states = {stage: {"s": rng.normal(size=6).astype(np.float32)} for stage in STAGES}
        right = right and i % 10 != 0
        label = CHOICES[int(rng.integers(2))]
        made.append(case(i, label=label, right=(IMAGE,) if right else (), states=states))
    return made


def test_a_fact_that_the_model_says_is_not_called_lost() -> None:
    """What a probe misses and the model answers is in the picture: the probe is at fault."""
    assert statuses(random_labels(120, "right")) == {Status.OPEN}
    assert statuses(random_labels(120, "anything")) == {Status.LOST}


def test_wrong_labels_are_no_weak_eye() -> None:
    cases = random_labels(120, "anything")
    headline = report([measured({"t": cases}, "t", OPTIONS, 0)], {}, None, OPTIONS, []).findings[0]
    assert "put down to: eye 100 %" in headline.text
    assert "also so where images do not show it or labels are wrong" in headline.text


def test_few_errors_have_no_main_cause() -> None:
    cases = with_states(60, told=2.0)
    right = answers(1, (IMAGE,))[0].answers
    for errors, sure in ((3, False), (40, True)):
        own = [replace(each, answers=right) for each in cases[errors:]]
        found = measured({"t": [*cases[:errors], *own]}, "t", OPTIONS, 0)
        assert (found.errors, found.main, found.sure) == (errors, Cause.LANGUAGE, sure)
        result = report([found], {}, None, OPTIONS, [])
        expected = Verdict.INFO if sure else Verdict.INCONCLUSIVE
        assert result.findings[0].verdict is result.overview[0].verdict is expected
        assert ("is not sure" in result.findings[0].text) is not sure


def test_different_questions_are_probed_apart() -> None:
    """One label means another thing in each, so together nothing could be read."""
    cases = with_states(240, told=3.0)
    turned = [
        case(
            i, label=CHOICES[(c.sample.label == "b") ^ (i % 2)], states=c.states,
            prompt=f"Question {i % 2}?",
        )
        for i, c in enumerate(cases)
    ]  # fmt: skip
    found = read_questions(turned, OPTIONS, 0)
    assert [len(question.rows) for question in found] == [120, 120]
    for question in found:
        assert {read.status for read in (question.stages or {}).values()} == {Status.READ}


def test_what_is_not_probed_says_why_and_is_not_told_apart() -> None:
    rare = [case(i, label="a" if i else "b", states={}) for i in range(30)]
    (question,) = read_questions(rare, OPTIONS, 0)
    assert "fewer than two answers" in question.why_not
    one_group = [case(i, label=CHOICES[i % 2], group=f"g{i % 2}") for i in range(40)]
    (question,) = read_questions(one_group, OPTIONS, 0)
    assert "too few groups" in question.why_not
    found = measured({"t": rare}, "t", OPTIONS, 0)
    assert found.shares[Cause.UNTOLD].value == 1.0
    assert found.details == {(Cause.UNTOLD, "eye or alignment or language"): 30}
    (said, *_) = report([found], {}, None, OPTIONS, []).findings
    assert "since fewer than two answers have 10 samples" in said.text


def test_an_attribute_says_what_has_to_be_seen() -> None:
    cases = with_states(120, told=3.0)
    derived = [
        case(i, label=CHOICES[i % 2], states=c.states, seen=c.sample.label)
        for i, c in enumerate(cases)
    ]
    (question,) = read_questions(derived, OPTIONS.model_copy(update={"fact": "seen"}), 0)
    assert {read.status for read in (question.stages or {}).values()} == {Status.READ}
    (question,) = read_questions(derived, OPTIONS, 0)
    assert {read.status for read in (question.stages or {}).values()} == {Status.LOST}
    found = measured({"t": derived}, "t", OPTIONS.model_copy(update={"fact": "seen"}), 0)
    most = max(found.details, key=lambda each: found.details[each])
    assert most == (Cause.UNTOLD, "language or reasoning")


# ------------------------------------------------------------------ whether texts are understood

ALL = (IMAGE, TEXT, BLIND)


def answers(n: int, right: Sequence[str], task: str = "t") -> list[Case]:
    """Questions that are answered right under some conditions."""
    return [case(i, right=right, among=ALL, task=task) for i in range(n)]


def test_descriptions_are_held_against_what_is_answered_from_the_image() -> None:
    seeing = answers(30, (IMAGE, TEXT))
    own = understanding({"t": seeing}, "t", OPTIONS, 0)
    assert (own.understood, own.source, own.samples) == (True, Source.OWN, 30)
    some = [*seeing[:12], *(case(i, among=ALL) for i in range(12, 30))]
    able = understanding({"t": some}, "t", OPTIONS, 0)
    assert (able.understood, able.samples) == (True, 12)
    deaf = answers(30, (IMAGE,))
    assert understanding({"t": deaf}, "t", OPTIONS, 0).understood is False
    failing = answers(30, (), task="sum")
    for known, expected in ((seeing, True), (deaf, False)):
        found = understanding({"t": known, "sum": failing}, "sum", OPTIONS, 0)
        assert (found.understood, found.source) == (expected, Source.OTHERS)


def test_without_any_task_that_is_answered_all_questions_count() -> None:
    reading = answers(30, (TEXT,))
    found = understanding({"t": reading}, "t", OPTIONS, 0)
    assert (found.understood, found.source) == (True, Source.ALL)
    assert found.use.value == 1.0
    nothing = understanding({"t": answers(30, ())}, "t", OPTIONS, 0)
    assert nothing.understood is False
    few = understanding({"t": answers(4, (TEXT,))}, "t", OPTIONS, 0)
    assert few.understood is None
    without = [case(i, right=(IMAGE,)) for i in range(30)]
    assert "no sample has a description" in understanding({"t": without}, "t", OPTIONS, 0).why_not


def test_reasoning_is_wrong_from_the_description_too() -> None:
    seeing = answers(30, (IMAGE, TEXT), task="see")
    summed = [case(i, right=(TEXT,) if i < 10 else (), among=ALL, task="sum") for i in range(40)]
    found = measured({"see": seeing, "sum": summed}, "sum", OPTIONS, 0)
    assert found.shares[Cause.REASONING].value == 30 / 40
    assert found.shares[Cause.UNTOLD].value == 10 / 40
    assert found.always_wrong == 30
    assert found.always_right == 0
    low, high = found.shares[Cause.REASONING].low, found.shares[Cause.REASONING].high
    assert low == pytest.approx(0.75 - 1.96 * np.sqrt(0.75 * 0.25 / 40), abs=0.05)
    assert high == pytest.approx(0.75 + 1.96 * np.sqrt(0.75 * 0.25 / 40), abs=0.05)


# -------------------------------------------------------------------------------------- prior


def scored(
    n: int, *, follows: float, strong: float, noise: float = 0.0, odd: float = 0.0
) -> list[Case]:
    """Log-odds of the second choice: the prior is against it, the image moves it by `follows`."""
    rng = np.random.default_rng(0)
    cases = []
    for i in range(n):
        label = CHOICES[i % 2]
        odds = -strong + follows * (label == "b") + noise * rng.normal() + odd
        scores = {IMAGE: np.array([0.0, odds]), BLIND: np.array([0.0, -strong])}
        said = {name: CHOICES[int(logs[1] > logs[0])] for name, logs in scores.items()}
        made = case(i, label=label, scores=scores)
        given = {name: Answer(text, text, text == label) for name, text in said.items()}
        cases.append(Case(made.sample, given, scores, {}))
    return cases


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ({"follows": 2.0, "strong": 3.0}, 1.0),
        ({"follows": 0.4, "strong": 3.0}, 0.0),
        ({"follows": 0.0, "strong": 1.4, "noise": 0.01}, 0.0),
        ({"follows": 0.0, "strong": 3.0, "noise": 1.5}, 0.0),
        ({"follows": 0.4, "strong": 3.0, "odd": 2.0}, 0.0),
    ],
    ids=["outweighed", "too little", "flat", "noise", "a blank that is strange by itself"],
)
def test_a_prior_outweighs_what_the_image_says(kind: dict[str, float], share: float) -> None:
    cases = scored(60, **kind)
    errors = [bool(p) for c, p in zip(cases, outweighed(cases, OPTIONS, 0), strict=True) if c.wrong]
    assert len(errors) >= 20
    assert np.mean(errors) == share


def test_a_prior_needs_other_images_with_other_labels() -> None:
    """Where all images of the other label stand in the error's own group, nothing is shown."""
    other, error = scored(2, follows=3.0, strong=8.0)
    assert error.wrong
    assert _moved(error, [other, error], OPTIONS)
    near = replace(other, sample=replace(other.sample, group=error.sample.group))
    assert not _moved(error, [near, error], OPTIONS)


def test_right_answers_and_single_questions_have_no_prior() -> None:
    cases = scored(60, follows=2.0, strong=3.0)
    found = outweighed(cases, OPTIONS, 0)
    assert not any(found[i] for i, c in enumerate(cases) if not c.wrong)
    apart = [
        replace(each, sample=replace(each.sample, prompt=f"Q{i}?")) for i, each in enumerate(cases)
    ]
    assert outweighed(apart, OPTIONS, 0) == [None] * 60
