"""How answers to MMMU are read and scored."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import answered, intervals, scored
from vlmlens_plugins.benchmarks.mmmu.card import CARD
from vlmlens_plugins.benchmarks.mmmu.open_answers import numbers_in, open_credit, said_in
from vlmlens_plugins.benchmarks.mmmu.subjects import DISCIPLINE_OF, SUBJECTS

PER_SUBJECT = 30
LETTERS = {"A": 242, "B": 230, "C": 198, "D": 149, "E": 25, "F": 2, "I": 1}
"""How often each letter is right in validation."""
LETTERED, REST = (
    ("A", "A", "B", "C"),
    ("1.06", "trans-1", "MgS", "7243000", "embryonic", "1/64", "-9"),
)
OPEN = (*LETTERED, *REST * 7)
"""The right answers of the open questions: four are letters, as in validation."""
OPTIONS = ["a red fox", "two dogs", "three", "none of them", "five", "six", "7", "8", "nine"]


def closed(label: str | None = "B", options: Sequence[str] = OPTIONS[:4], **known: str) -> Sample:
    letters = tuple("ABCDEFGHI"[: len(options)])
    attributes = {"options": json.dumps(options), **known}
    return Sample("q", "Which?", (), label, letters, attributes=attributes)


def free(*right: str) -> Sample:
    known = {"answers": json.dumps(right)} if len(right) > 1 else {}
    return Sample("q", "How many?", (), right[0], attributes=known)


@pytest.fixture(scope="module")
def validation() -> list[Sample]:
    """The 900 questions of validation by counts: 847 with options, 53 open; 30 per subject."""
    right = [letter for letter, count in LETTERS.items() for _ in range(count)]
    assert (len(right), len(OPEN)) == (847, 53)
    asked = [closed(each, OPTIONS) for each in right] + [free(each) for each in OPEN]
    made = []
    for number, sample in enumerate(asked):
        subject = SUBJECTS[number % len(SUBJECTS)]
        name = f"validation_{subject}_{number // len(SUBJECTS) + 1}"
        known = dict(sample.attributes) | {"subject": subject}
        known["discipline"] = DISCIPLINE_OF[subject]
        made.append(
            Sample(name, "?", (), sample.label, sample.choices, name, subject, attributes=known)
        )
    return made


# ----------------------------------------------------------------------------- letters


@pytest.mark.parametrize(
    ("text", "official", "lmms_eval", "vlmevalkit", "strict"),
    [
        ("B", "B", "B", "B", "B"),
        ("(B)", "B", "B", "B", "B"),
        ("B.", "B", "B", "B", "B"),
        ("B. two dogs", None, "B", "B", "B"),
        ("The answer is B.", "B", "B", "B", None),
        ("The answer is **B**", None, None, "B", None),
        ("(A) or (B)", "B", "B", None, "A"),
        ("A B", "B", "B", None, None),
        ("DNA is it", None, "A", None, None),
        ("I see two dogs in it, surely, yes", "B", "B", "B", None),
        ("two dogs", None, None, "B", None),
        ("none of them", None, None, "D", None),
        ("Sorry, I can't help with images of people yet.", None, None, None, None),
        ("I don't know", None, None, None, None),
        ("", None, None, None, None),
        ("b", None, None, None, "B"),
        ("E", None, None, None, None),
    ],
)
def test_letters(
    text: str,
    official: str | None,
    lmms_eval: str | None,
    vlmevalkit: str | None,
    strict: str | None,
) -> None:
    wanted = {
        "official": official,
        "lmms-eval": lmms_eval,
        "vlmevalkit": vlmevalkit,
        "strict": strict,
    }
    sample = closed()
    assert {name: CARD.rules[name].read(text, sample) for name in wanted} == wanted


def test_the_last_of_several_is_taken_and_order_does_not_matter() -> None:
    """Unlike upstream, nothing is drawn: reading twice, in any order, gives the same."""
    read = CARD.rules["official"].read
    texts = ["nothing here", "(A) not (C)", "", "It is B or rather D "]
    once = [read(text, closed()) for text in texts]
    assert once == [None, "C", None, "D"]
    assert [read(text, closed()) for text in reversed(texts)] == once[::-1]


def test_vlmevalkit_wants_the_letter_among_the_last_four_words() -> None:
    read = CARD.rules["vlmevalkit"].read
    assert read("B it is said", closed()) == "B"
    assert read("B it is said today", closed()) is None


# ------------------------------------------------------------------------ open answers


@pytest.mark.parametrize(
    ("text", "right", "official", "strict"),
    [
        ("Cardioid", ["Cardioid"], 1, 1),
        ("It is a cardioid.", ["Cardioid"], 1, 0),
        ("The answer is 3.434", ["24/7", "3.429"], 1, 0),
        ("3.429", ["24/7", "3.429"], 1, 1),
        ("1,234.5", ["1234.50"], 1, 1),
        ("so 7 is wrong, final 8", ["8"], 1, 0),
        ("so 7 is wrong, final 8", ["7"], 0, 0),
        ("x = 42", ["42"], 1, 0),
        ("C", ["C"], 1, 1),
        ("cat", ["C"], 0, 0),
        ("Vitamin C", ["C"], 1, 0),
        ("0.29", ["0.286"], 1, 0),
        ("nan", ["5"], 0, 0),
        ("", ["5"], 0, 0),
    ],
)
def test_open_answers(text: str, right: list[str], official: int, strict: int) -> None:
    sample = free(*right)
    for name, wanted in (("official", official), ("strict", strict), ("lmms-eval", 0)):
        (answer,) = answered([text], [sample], CARD.rules[name])
        assert answer.credit == wanted, name
    assert open_credit(text, right) == official


def test_an_empty_rest_is_replaced_by_a_longer_one() -> None:
    """As upstream: the empty rest behind "thus" gives way to the longer one behind "result"."""
    assert said_in("result is thus \n12") == ["is thus"]
    assert said_in("it is thus \n12") == ["it is thus \n12", 12.0]


def test_a_right_answer_of_one_letter_is_found_in_other_words() -> None:
    """As upstream: a blank beside the letter is enough."""
    assert open_credit("no idea at all", ["A"]) == 1
    assert open_credit("no idea", ["A"]) == 0


@given(st.text("0123456789.,-eE+ a", max_size=14))
def test_numbers_are_those_of_patterns_that_start_anywhere(text: str) -> None:
    """Starting at the first digit of a run only is quick, and changes nothing."""
    anywhere = (
        r"-?\b\d{1,3}(?:,\d{3})+\b",
        r"-?\d+(?:\.\d+)?[eE][+-]?\d+",
        r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",
    )
    wanted = [number for pattern in anywhere for number in re.findall(pattern, text)]
    assert numbers_in(text) == wanted


def test_vlmevalkit_makes_choices_of_open_questions() -> None:
    rule = CARD.rules["vlmevalkit"]
    texts = ["Cardioid", "Other Answers", "A", "heart"]
    said = answered(texts, [free("Cardioid")] * 4, rule)
    assert [a.said for a in said] == ["Cardioid", "Other Answers", "Cardioid", None]
    assert [a.credit for a in said] == [1, 0, 1, 0]
    # Where the right answer is the letter B, upstream takes option B, "Other Answers", for right.
    assert [a.credit for a in answered(["b", "Other Answers"], [free("B")] * 2, rule)] == [0, 1]


# ----------------------------------------------------------------------------- metrics


@pytest.mark.parametrize(
    ("letter", "open_hits"), [("A", 2), ("B", 1), ("C", 1), ("D", 0), ("E", 0)]
)
def test_a_constant_letter(validation: list[Sample], letter: str, open_hits: int) -> None:
    texts = [letter] * 900
    wanted = {"official": LETTERS[letter] + open_hits, "lmms-eval": LETTERS[letter]}
    wanted["strict"] = LETTERS[letter] + open_hits
    for name, right in wanted.items():
        answers = answered(texts, validation, CARD.rules[name])
        found = scored(CARD.metrics, validation, answers)
        assert found["micro"] == pytest.approx(100 * right / 900, abs=1e-9), name
        assert found["macro"] == pytest.approx(found["micro"]), "30 questions per subject"


def test_macro_differs_where_subjects_differ_in_size(validation: list[Sample]) -> None:
    part = [s for s in validation if s.task in ("Art", "Math")][:-21]
    texts = [str(s.label) if s.task == "Art" else "-" for s in part]
    answers = answered(texts, part, CARD.rules["official"])
    found = scored(CARD.metrics, part, answers)
    art = sum(s.task == "Art" for s in part)
    assert art * 2 != len(part)
    assert found["micro"] == pytest.approx(100 * art / len(part))
    assert found["macro"] == pytest.approx(50)
    assert (found["art_and_design"], found["science"]) == (100, 0)
    assert np.isnan(found["business"])


def test_intervals_hold_the_score(validation: list[Sample]) -> None:
    texts = [str(s.label) if i % 3 else "?" for i, s in enumerate(validation)]
    answers = answered(texts, validation, CARD.rules["official"])
    ends = intervals(CARD.metrics, validation, answers, draws=200, rng=np.random.default_rng(0))
    found = scored(CARD.metrics, validation, answers)
    assert set(ends) == set(found)
    assert all(low <= found[name] <= high for name, (low, high) in ends.items())
    assert ends["micro"][0] < 200 / 3 < ends["micro"][1]
    wide = ends["business"][1] - ends["business"][0]
    assert wide > ends["micro"][1] - ends["micro"][0]


def test_a_rule_that_guesses_would_be_seen(validation: list[Sample]) -> None:
    """Unparsed answers are worth nothing, and are counted as unparsed."""
    answers = answered(["no idea"] * 900, validation, CARD.rules["official"])
    assert sum(a.said is None for a in answers) == 847
    assert sum(a.credit for a in answers) == 0
