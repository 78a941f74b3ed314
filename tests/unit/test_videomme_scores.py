"""How answers to Video-MME are read and scored."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import answered, intervals, scored
from vlmlens_plugins.benchmarks.videomme.card import CARD
from vlmlens_plugins.benchmarks.videomme.vocabulary import DOMAINS, DURATIONS, TASK_TYPES

ASKED = Sample("q", "?", label="C", choices=("A", "B", "C", "D"))
SUBS = [(domain, sub) for domain, subs in DOMAINS.items() for sub in subs]


@pytest.fixture(scope="module")
def questions() -> list[Sample]:
    """900 videos with three questions each, 300 per duration; right letters by rule."""
    made = []
    for video in range(900):
        domain, sub = SUBS[video % len(SUBS)]
        for n in range(3):
            number = 3 * video + n
            known = {
                "duration": DURATIONS[video // 300],
                "domain": domain,
                "sub_category": sub,
                "task_type": TASK_TYPES[number % 12],
            }
            label = "ABCD"[number % 4 if number % 5 else 1]
            made.append(
                Sample(f"{video + 1:03d}-{n + 1}", "?", (), label, tuple("ABCD"), str(video),
                       known["duration"], known)
            )  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("text", "official", "lmms_eval", "vlmevalkit", "strict"),
    [
        ("C", "C", "C", "C", "C"),
        ("C. Green.", "C", "C", "C", "C"),
        ("(C) Green.", "C", "C", "C", "C"),
        ("The best answer is: C.", "C", "C", "C", None),
        ("The best answer is C, not A.", "C", "A", "C", None),
        ("Best answer: C", "B", "C", "B", None),
        ("Answer: C", "A", "C", "C", None),
        ("Option: C", "C", "C", "C", None),
        ("Best option: C", "B", "C", "B", None),
        ("A person says (C)", "A", "A", "A", None),
        ("Because of that, C is right", "B", "C", "B", None),
        ("it is green", None, None, None, None),
        ("c", None, None, None, "C"),
        ("!!!!", None, None, None, None),
        ("", None, None, None, None),
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
    assert {name: CARD.rules[name].read(text, ASKED) for name in wanted} == wanted


@pytest.mark.parametrize("letter", "ABCD")
def test_a_constant_letter(questions: list[Sample], letter: str) -> None:
    right = Counter(sample.label for sample in questions)
    for name in CARD.rules:
        rule = CARD.rules[name]
        answers = answered([letter] * 2700, questions, rule)
        found = scored(rule.metrics or CARD.metrics, questions, answers)
        assert found["overall"] == pytest.approx(100 * right[letter] / 2700), name


def test_every_part_is_the_mean_of_its_questions(questions: list[Sample]) -> None:
    texts = ["B" if i % 7 else "D" for i in range(2700)]
    answers = answered(texts, questions, CARD.rules["strict"])
    found = scored(CARD.metrics, questions, answers)
    parts = {"": "duration", "domain: ": "domain", "sub-category: ": "sub_category"}
    parts["task type: "] = "task_type"
    seen = {"overall"}
    for before, attribute in parts.items():
        for value in {str(sample.attributes[attribute]) for sample in questions}:
            here = [
                text == sample.label
                for text, sample in zip(texts, questions, strict=True)
                if sample.attributes[attribute] == value
            ]
            seen.add(before + value)
            assert found[before + value] == pytest.approx(100 * np.mean(here)), value
    assert seen == set(found)
    assert len(found) == 1 + 3 + 6 + 30 + 12


def test_the_authors_leave_out_unparsed_answers(questions: list[Sample]) -> None:
    texts = [str(s.label) if i % 2 else "nothing" for i, s in enumerate(questions)]
    official, strict = CARD.rules["official"], CARD.rules["strict"]
    assert official.metrics is not None
    read = answered(texts, questions, official)
    assert scored(official.metrics, questions, read)["overall"] == 100
    assert scored(CARD.metrics, questions, answered(texts, questions, strict))["overall"] == 50
    assert official.task_metrics is not None
    assert scored(official.task_metrics, questions[:900], read[:900])["accuracy"] == 100
    nothing = answered(["!!!!"] * 2700, questions, official)
    assert np.isnan(scored(official.metrics, questions, nothing)["overall"])


def test_intervals_are_over_videos(questions: list[Sample]) -> None:
    """If all three answers of a video are right or wrong together, the interval is wider."""
    together = [str(s.label) if int(str(s.group)) % 2 else "-" for s in questions]
    apart = [str(s.label) if i % 2 else "-" for i, s in enumerate(questions)]
    width = {}
    for name, texts in (("together", together), ("apart", apart)):
        answers = answered(texts, questions, CARD.rules["strict"])
        rng = np.random.default_rng(0)
        ends = intervals(CARD.metrics, questions, answers, draws=200, rng=rng)["overall"]
        assert ends[0] < 50 < ends[1]
        width[name] = ends[1] - ends[0]
    assert width["together"] > 2 * width["apart"]
