"""Numbers and verdicts of evidence, from made-up answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vlmlens.results import Verdict
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._estimates import Estimate
from vlmlens_plugins.analysis.evidence import EvidenceOptions
from vlmlens_plugins.analysis.evidence.cases import Case, Known, cases_of
from vlmlens_plugins.analysis.evidence.conditions import (
    BACKGROUND,
    CONDITIONS,
    DIFFERENT,
    FULL,
    HIDDEN,
    HINT,
    KEPT,
    NONE,
    RANDOM,
    RIGHT_HINT,
    SAME,
    WRONG_HINT,
    asked,
)
from vlmlens_plugins.analysis.evidence.measured import TaskNumbers, numbers, scores
from vlmlens_plugins.analysis.evidence.places import Places
from vlmlens_plugins.analysis.evidence.verdict import judge


def _made(seed: int, choices: int = 4, count: int = 9) -> tuple[list[Case], list[dict[str, Any]]]:
    """Cases with random answers under all conditions."""
    rng = np.random.default_rng(seed)
    names = tuple("abcdef"[:choices])
    known = [
        Known(Sample(f"s{i}", "?", ("x.png",), choices=names, group=f"g{i // 2}"), names[i % 3], ())
        for i in range(count)
    ]
    cases = [
        Case(
            one, names, None, known[(i + 1) % count], known[(i + 1) % count], (i + 1) % 3, Places()
        )
        for i, one in enumerate(known)
    ]
    several = {HIDDEN: 2, KEPT: 2, RANDOM: 5}
    logs = [
        {name: list(rng.normal(size=(several.get(name, 1), choices))) for name in CONDITIONS}
        for _ in cases
    ]
    return cases, logs


def _numbers(cases: Sequence[Case], logs: Sequence[dict[str, Any]]) -> TaskNumbers:
    every = [scores(*pair) for pair in zip(cases, logs, strict=True)]
    return numbers("t", range(len(cases)), cases, every, draws=300, seed=1)


def test_quantities_equal_their_formulas() -> None:
    cases, logs = _made(0)
    found = _numbers(cases, logs)
    expected: dict[str, list[float]] = {}
    for case, each in zip(cases, logs, strict=True):
        label = "abcd".index(case.known.label)
        other = "abcd".index(case.different.label)  # type: ignore[union-attr]
        full = each[FULL][0]
        rival = max((k for k in range(4) if k != label), key=lambda k: float(full[k]))
        s = {name: np.mean([x[label] - x[rival] for x in rows]) for name, rows in each.items()}
        says = {name: rows[0].argmax() for name, rows in each.items()}
        row = {
            "effect": s[FULL] - s[NONE],
            "need": s[FULL] - s[HIDDEN],
            "enough": s[KEPT] - s[NONE],
            "specificity": s[RANDOM] - s[HIDDEN],
            "background": s[FULL] - s[BACKGROUND],
            "flips": says[DIFFERENT] != says[FULL],
            "hint_alone": says[HINT] == other,
            "vision": ((says[WRONG_HINT] == label) + (says[RIGHT_HINT] == other + 0)) / 2,
            "text": ((says[WRONG_HINT] == other) + (says[RIGHT_HINT] == label)) / 2,
        }
        if says[FULL] == label:
            row["follows"] = says[DIFFERENT] == other
            row["keeps"] = says[SAME] == label
        if says[FULL] != other:
            row["pull"] = says[WRONG_HINT] == other
        for name, value in row.items():
            expected.setdefault(name, []).append(float(value))
    for name, values in expected.items():
        assert found.means[name].value == pytest.approx(np.mean(values)), name
    vision, text = np.mean(expected["vision"]), np.mean(expected["text"])
    assert found.preference == pytest.approx((vision - text) / (vision + text))
    assert found.means["neither"].value == pytest.approx(1 - vision - text)


def test_shares_are_ratios_of_means_and_their_intervals_resample_groups() -> None:
    cases, logs = _made(1)
    for case, each in zip(cases, logs, strict=True):
        each[NONE] = [each[NONE][0] * 0]
        each[FULL][0][case.label] += 8
    found = _numbers(cases, logs)
    need, effect = found.quantities.need, found.quantities.effect
    assert found.shares["need"].value == pytest.approx(need.sum() / effect.sum())
    groups = [[0, 1], [2, 3], [4, 5], [6, 7], [8]]
    rng = np.random.default_rng(7)
    drawn = []
    for _ in range(4000):
        rows = [i for k in rng.integers(0, 5, 5) for i in groups[k]]
        drawn.append(need[rows].sum() / effect[rows].sum())
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.shares["need"].low == pytest.approx(low, abs=0.05)
    assert found.shares["need"].high == pytest.approx(high, abs=0.05)


def test_open_questions_are_scored_by_the_log_probability_of_the_label() -> None:
    known = [
        Known(Sample(f"s{i}", "?", ("x.png",), group=f"g{i}"), a, ()) for i, a in enumerate("ab")
    ]
    (case, _) = cases_of(known, known, count=2, seed=0)
    assert case.answers == ("a", "b")
    found = scores(case, {FULL: [np.array([-1.0, -3.0])], DIFFERENT: [np.array([-5.0, -2.0])]})
    assert (found.of(FULL), found.of(DIFFERENT), found.rival) == (-1.0, -5.0, None)
    assert found.share(DIFFERENT, 1) == 1


def test_images_are_exchanged_between_groups_that_ask_the_same() -> None:
    def one(name: str, prompt: str, label: str, group: str) -> Known:
        choices = ("red", "blue", "green")
        return Known(Sample(name, prompt, (f"{name}.png",), label, choices, group, "t"), label, ())

    pool = [
        one("a", "p", "red", "1"),
        one("b", "p", "red", "1"),
        one("c", "p", "red", "2"),
        one("d", "p", "blue", "1"),
        one("e", "p", "green", "2"),
        one("f", "q", "blue", "3"),
    ]
    for seed in range(5):
        case, *_, last = cases_of(pool, pool, count=1, seed=seed)
        assert case.same is pool[2]
        assert case.different is pool[4]
        assert case.other == case.wrong == 2
        assert (last.same, last.different) == (None, None)
        assert last.background in pool[:5]
        assert last.wrong in (0, 2)
        conditions = {name for name, _ in asked(last, EvidenceOptions())}
        assert conditions == {FULL, NONE, WRONG_HINT, HINT}


def test_a_background_is_of_another_answer_where_there_is_one() -> None:
    pool = [
        Known(Sample(f"s{i}", f"q{i}", (f"{i}.png",), choices=("yes", "no")), label, ())
        for i, label in enumerate(["no", "no", "no", "yes"])
    ]
    for seed in range(3):
        cases = cases_of(pool[:3], pool, count=1, seed=seed)
        assert all(case.background is pool[3] and case.different is None for case in cases)


def test_the_only_answer_is_neither_right_nor_wrong() -> None:
    known = [Known(Sample(f"s{i}", "?", ("x.png",)), "a", ()) for i in range(2)]
    cases = cases_of(known, known, count=1, seed=0)
    found = _numbers(cases, [{FULL: [np.array([-1.0])], NONE: [np.array([-2.0])]}] * 2)
    assert np.isnan(found.means["right"].value)
    assert found.means["effect"].value == 1


def test_one_group_has_no_interval_and_few_decide_nothing() -> None:
    cases, logs = _made(0)
    for group, other in (("one", "one"), ("one", "two")):
        same = [replace(case, known=replace(case.known, sample=replace(
            case.known.sample, group=group if i else other))) for i, case in enumerate(cases)
        ]  # fmt: skip
        found = _numbers(same, logs)
        assert np.isfinite(found.means["need"].value)
        assert np.isfinite(found.means["need"].low) == (group != other)
        judged = judge(found, EvidenceOptions(min_following=0.01, max_background=0.01))
        assert (judged.follows, judged.moved, judged.verdict) == (None, None, "inconclusive")


def _task(**changes: tuple[float, float, float] | float) -> TaskNumbers:
    cases, logs = _made(0)
    made = _numbers(cases, logs)
    given: dict[str, Any] = {
        "follows": (0.9, 0.8, 1),
        "flips": (0.9, 0.8, 1),
        "specificity": (0.8, 0.7, 0.9),
        "background": (0, -0.1, 0.1),
        "corrected": 0.01,
        **changes,
    }
    found = {k: Estimate(*v, 20) for k, v in given.items() if isinstance(v, tuple)}
    rates = {name: found[name] for name in ("follows", "flips")}
    shares = {name: found[name] for name in ("specificity", "background")}
    return replace(made, means={**made.means, **rates}, shares=shares, corrected=given["corrected"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Verdict.RESTS_ON_REGION),
        ({"corrected": 0.2}, Verdict.INCONCLUSIVE),
        ({"specificity": (0.3, 0.1, 0.6)}, Verdict.RESTS_ON_REGION),
        ({"specificity": (0.2, 0.1, 0.6)}, Verdict.INCONCLUSIVE),
        ({"specificity": (0.1, 0.0, 0.2)}, Verdict.RESTS_ON_IMAGE),
        ({"background": (0.2, 0.1, 0.3)}, Verdict.INCONCLUSIVE),
        ({"background": (0.5, 0.3, 0.7)}, Verdict.RESTS_ON_IMAGE),
        ({"follows": (0.6, 0.4, 0.8)}, Verdict.INCONCLUSIVE),
        ({"follows": (0.1, 0.0, 0.2)}, Verdict.INCONCLUSIVE),
        ({"follows": (0.0, 0.0, 0.08), "flips": (0.0, 0.0, 0.08)}, Verdict.RESTS_ON_TEXT),
        ({"follows": (0.0, 0.0, 0.12), "flips": (0.0, 0.0, 0.12)}, Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts(changes: dict[str, Any], expected: Verdict) -> None:
    assert judge(_task(**changes), EvidenceOptions()).verdict is expected
