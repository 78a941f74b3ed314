"""Scores of benchmarks: known tables of confusion, other ways of counting, what is warned of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
from tests._answered import CARD, answered, questions, row, score

from vlmlens.errors import MissingAnnotation, SpecError
from vlmlens.report.files import to_json
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.benchmark.guessing import by_object
from vlmlens_plugins.benchmarks import Card, Rule
from vlmlens_plugins.benchmarks.card import Answer, Floats
from vlmlens_plugins.benchmarks.counting import MeanCredit

TABLE = {("yes", "yes"): 1183, ("no", "yes"): 31, ("no", "no"): 1379, ("yes", "no"): 317}
"""By (label, answer): LLaVA-1.5 on the older edition of POPE, as a user of it reported."""


def confusion() -> tuple[list[str], list[str]]:
    pairs = [pair for pair, count in TABLE.items() for _ in range(count)]
    order = np.random.default_rng(0).permutation(len(pairs))
    return [pairs[i][0] for i in order], [pairs[i][1] for i in order]


def values(result: Result, task: str = "all samples") -> dict[str, Any]:
    table = result.table("benchmark-scores")
    names = table.columns["metric"]
    return {
        str(name): value
        for name, value, of in zip(
            names, table.columns["value"], table.columns["task"], strict=True
        )
        if of == task
    }


@pytest.fixture(scope="module")
def reported() -> Result:
    labels, said = confusion()
    groups = [f"image {i // 6}" for i in range(len(labels))]
    return score(questions(answered(labels, said, group=groups)))


# ---------------------------------------------------------------------- what is known


def test_a_reported_table_of_confusion_gives_the_reported_scores(reported: Result) -> None:
    found = values(reported)
    expected = {"accuracy": 88.04, "precision": 97.45, "recall": 78.87, "f1": 87.18}
    assert {name: round(found[name], 2) for name in expected} == expected
    one = row(reported.table("benchmark-scores"), metric="f1", task="all samples")
    assert one["best_constant"] == "yes"
    assert one["constant"] == pytest.approx(100 * 2 * 1500 / (2 * 1500 + 1410))
    assert one["gain"] == pytest.approx(found["f1"] - one["constant"])
    assert one["value_low"] < found["f1"] < one["value_high"]
    assert (one["groups"], one["questions"], one["unparsed"]) == (485, 2910, 0)
    assert reported.findings[0].verdict is Verdict.DIFFERS
    assert not reported.warnings


def test_sklearn_counts_the_same() -> None:
    rng = np.random.default_rng(1)
    labels = rng.choice(["yes", "no"], 300, p=[0.3, 0.7]).tolist()
    said = rng.choice(["yes", "no"], 300).tolist()
    found = values(score(questions(answered(labels, said))))
    kinds = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
    for name, of in kinds.items():
        assert found[name] == pytest.approx(100 * of(labels, said, pos_label="yes"))
    assert found["accuracy"] == pytest.approx(100 * accuracy_score(labels, said))
    assert found["yes_ratio"] == pytest.approx(100 * said.count("yes") / 300)


def test_intervals_are_those_of_whole_groups_drawn_again() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat(rng.choice(["yes", "no"], 40), 5)
    right = np.repeat(rng.random(40) < 0.7, 5)
    said = np.where(right, labels, np.where(labels == "yes", "no", "yes"))
    group = [f"g{i // 5}" for i in range(200)]
    card = replace(CARD, metrics=MeanCredit(), headline="accuracy", task_metrics=None)
    samples = questions(answered(labels.tolist(), said.tolist(), group=group), card)
    one = row(score(samples, draws=4000).table("benchmark-scores"), metric="accuracy")
    draws = [100 * right[::5][rng.integers(0, 40, 40)].mean() for _ in range(4000)]
    low, high = np.quantile(draws, [0.025, 0.975])
    assert one["value_low"] == pytest.approx(low, abs=1.5)
    assert one["value_high"] == pytest.approx(high, abs=1.5)
    alone = questions(answered(labels.tolist(), said.tolist()), card)
    narrow = row(score(alone).table("benchmark-scores"), metric="accuracy")
    assert narrow["value_high"] - narrow["value_low"] < 0.7 * (high - low)  # as if independent


def test_answers_shifted_by_one_line_are_another_score() -> None:
    labels, said = confusion()
    shifted = values(score(questions(answered(labels, said[1:] + said[:1]))))
    assert shifted["accuracy"] < 60  # so a score of 88 comes from the right answers


def test_tasks_have_scores_of_their_own() -> None:
    labels = ["yes", "no"] * 40
    said = ["yes", "no"] * 20 + ["no", "yes"] * 20
    tasks = ["seen"] * 40 + ["guessed"] * 40
    result = score(questions(answered(labels, said, task=tasks)))
    assert values(result, "seen")["f1"] == 100
    assert values(result, "guessed")["f1"] == 0
    assert values(result)["f1"] == 50
    shown = {cell.subject: (cell.value, cell.beside) for cell in result.overview}
    assert shown["Small set"] == (0.5, "always 'yes' 66.7 %")
    assert shown["seen"][0] == 1
    assert [finding.verdict for finding in result.findings if finding.subject == "seen"] == [
        Verdict.DIFFERS
    ]
    assert result.figures[0].x == ["Small set", "seen", "guessed"]


# ---------------------------------------------------------------------- guessing


def test_the_best_constant_answer_is_that_of_the_headline() -> None:
    labels = ["yes"] * 4 + ["no"] * 16
    by_f1 = row(score(questions(answered(labels, labels))).table("benchmark-scores"), metric="f1")
    assert (by_f1["best_constant"], by_f1["constant"]) == ("yes", pytest.approx(100 / 3))
    card = replace(CARD, headline="accuracy")
    result = score(questions(answered(labels, labels), card))
    by_accuracy = row(result.table("benchmark-scores"), metric="accuracy")
    assert (by_accuracy["best_constant"], by_accuracy["constant"]) == ("no", 80)


def test_where_less_is_better_the_best_is_the_least() -> None:
    class Errors(MeanCredit):
        def scores(self, sums: Any) -> dict[str, Floats]:
            return {"errors": 100 - super().scores(sums)[self.name]}

    card = replace(
        CARD,
        metrics=Errors(),
        task_metrics=None,
        headline="errors",
        lower_is_better=frozenset({"errors"}),
    )
    labels = ["yes"] * 15 + ["no"] * 45
    result = score(questions(answered(labels, labels), card))
    one = row(result.table("benchmark-scores"), metric="errors")
    assert (one["value"], one["best_constant"], one["constant"]) == (0, "no", 25)
    assert result.findings[0].verdict is Verdict.DIFFERS
    worse = score(questions(answered(labels, ["yes"] * 30 + ["no", "yes"] * 15), card))
    assert worse.findings[0].verdict is Verdict.INCONCLUSIVE


def test_the_object_says_what_most_other_groups_say() -> None:
    rng = np.random.default_rng(3)
    names = rng.choice(["dog", "cup", "car"], 60).tolist()
    labels = rng.choice(["yes", "no"], 60).tolist()
    groups = [f"g{i // 4}" for i in range(60)]
    samples = answered(
        labels, labels, group=groups, attributes=[{"object": name} for name in names]
    )
    expected = []
    for sample in samples:
        others = [s for s in samples if s.group != sample.group]
        about = [s for s in others if s.attributes["object"] == sample.attributes["object"]]
        count = {x: sum(s.label == x for s in about) for x in ("no", "yes")}
        whole = {x: sum(s.label == x for s in others) for x in ("no", "yes")}
        expected.append(max(("no", "yes"), key=lambda x: (count[x], whole[x])))
    assert by_object(samples) == expected
    one = row(score(questions(samples)).table("benchmark-scores"), metric="accuracy")
    right = np.mean([a == b for a, b in zip(expected, labels, strict=True)])
    assert one["by_object"] == pytest.approx(100 * right)
    without = [replace(samples[0], attributes={"answer": "yes"}), *samples[1:]]
    assert by_object(without) is None
    assert by_object([]) is None


# ---------------------------------------------------------------------- parsers


def test_all_parsers_are_computed_and_disagreements_shown() -> None:
    labels = ["yes"] * 10 + ["no"] * 10
    said = ["Yes."] * 8 + ["Perhaps"] * 2 + ["There is no dog."] * 5 + ["No"] * 5
    result = score(questions(answered(labels, said)))
    strict = row(result.table("benchmark-parsers"), parser="strict")
    official = row(result.table("benchmark-parsers"), parser="official")
    assert (strict["unparsed"], strict["differs"], strict["chosen"]) == (7, 0, True)
    assert (official["unparsed"], official["differs"], official["value"]) == (0, 7, 100)
    assert strict["value"] == pytest.approx(100 * 16 / 18)
    shown = result.table("benchmark-disagreements")
    assert (shown.columns["strict"][0], shown.columns["official"][0]) == (None, "yes")
    assert "disagree on 7 of 20 answers" in result.findings[1].text
    other = score(questions(answered(labels, said)), parser="official")
    assert values(other)["f1"] == 100
    assert values(result)["f1"] == pytest.approx(strict["value"])


def test_a_parser_may_bring_its_own_metrics() -> None:
    own = Rule(CARD.rules["strict"].read, metrics=MeanCredit("share_right"))
    card = replace(CARD, rules={**CARD.rules, "kit": own})
    samples = questions(answered(["yes", "no"] * 10, ["yes"] * 20), card)
    table = score(samples).table("benchmark-parser-scores")
    assert row(table, parser="kit")["metric"] == "share_right"
    assert values(score(samples, parser="kit")) == {"share_right": 50}


def test_an_unknown_parser_is_an_error_that_names_the_known_ones() -> None:
    samples = questions(answered(["yes"], ["yes"]))
    with pytest.raises(SpecError, match=r"no parser 'offical'.*official"):
        score(samples, parser="offical")


# ---------------------------------------------------------------------- what is warned of


def warned(texts: Sequence[str], labels: Sequence[str] | None = None, **about: Any) -> list[str]:
    known = labels or ["yes", "no"] * (len(texts) // 2)
    return list(score(questions(answered(known, texts, **about))).warnings)


def test_unparsed_answers_are_warned_of_above_two_percent() -> None:
    texts = ["yes", "no"] * 50
    assert not warned(["Perhaps", "Maybe", *texts[2:]])
    (found,) = warned(["Perhaps", "Maybe", "Perhaps", *texts[3:]])
    assert "3 of 100 answers (3.0%)" in found
    assert "for example 'Perhaps', 'Maybe'." in found


def test_a_constant_answer_is_warned_of() -> None:
    same, guessing = warned(["!!!!"] * 20)[0], warned(["!!!!"] * 20)[-1]
    assert same == "Small set: all 20 answers are the same text, '!!!!'."
    assert "not surely above the best constant answer" in guessing
    mixed = warned(["Yes", "yes."] * 10)
    assert mixed[0] == "Small set: every answer that can be read is 'yes'."
    tasks = ["a"] * 20 + ["b"] * 20
    by_task = warned(["yes"] * 20 + ["yes", "no"] * 10, task=tasks)
    assert by_task[0] == "Small set: one and the same answer to every question of a."
    assert "not surely above the best constant answer in a: f1 66.7 %" in by_task[1]


def test_a_part_of_the_set_and_few_groups_are_warned_of() -> None:
    samples = questions(answered(["yes", "no"] * 10, ["yes", "no"] * 10))
    subset, few = score(samples[:8]).warnings
    assert subset == "Small set: this is the score of 8 of its 20 questions, not of the set."
    assert few.startswith("Small set: 8 questions in 8 groups: too few")
    assert not score(samples).warnings
    own = questions([replace(s, images=()) for s in samples], prompts=["Is it?"])
    assert "--prompt replaces its questions" in score(own).warnings[0]


def test_one_sample_claims_nothing() -> None:
    result = score(questions(answered(["yes"], ["yes"])))
    assert result.findings[0].verdict is Verdict.INCONCLUSIVE
    assert "1 group: too few" in result.warnings[-1]


# ---------------------------------------------------------------------- what is missing


def test_samples_of_no_benchmark_are_an_error_or_left_out() -> None:
    plain = answered(["yes"] * 2, ["yes"] * 2, id=["x", "y"])
    with pytest.raises(MissingAnnotation, match=r"none has the attribute `benchmark`.*--data pope"):
        score(plain)
    with pytest.raises(MissingAnnotation):
        score([])
    mixed = [*plain, *questions(answered(["yes", "no"] * 10, ["yes", "no"] * 10))]
    assert score(mixed).warnings == ["2 of 22 samples are of no benchmark and not scored."]


def test_missing_answers_labels_and_choices_are_errors() -> None:
    some = answered(["yes", "no"], ["yes", "no"])
    lacking = [some[0], replace(some[1], attributes={})]
    with pytest.raises(MissingAnnotation, match=r"1 sample of 2 without an answer.*'q1'"):
        score(questions(lacking), answers="given")
    with pytest.raises(MissingAnnotation, match="no question has its right answer"):
        score(questions([replace(s, label=None) for s in some]))
    with pytest.raises(MissingAnnotation, match="open questions"):
        score(questions([replace(s, choices=()) for s in some]), answers="choose")
    with pytest.raises(MissingAnnotation, match="open questions"):
        score(questions(some, replace(CARD, free=True)), answers="choose")


def test_an_attribute_that_metrics_need_is_named() -> None:
    class ByFigure(MeanCredit):
        def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
            _ = [sample.attributes["figure"] for sample in samples]
            return super().counts(samples, answers)

    samples = questions(answered(["yes"], ["yes"]), replace(CARD, metrics=ByFigure()))
    with pytest.raises(MissingAnnotation, match="need 'figure', which samples lack"):
        score(samples)


def test_a_card_that_is_not_installed_is_an_error() -> None:
    samples = questions(answered(["yes"], ["yes"]))
    strange = [replace(s, attributes={**s.attributes, "benchmark": "./x.py:X"}) for s in samples]
    with pytest.raises(SpecError, match=r"'./x.py:X' installed.*analysis.benchmark.card"):
        score(strange)
    with pytest.raises(SpecError, match="'demo' has no card"):
        score(strange, card="demo")


# ---------------------------------------------------------------------- what is written


def test_every_score_stands_with_its_setting(reported: Result) -> None:
    setting = "the only one; memory; answers from elsewhere"
    assert setting in reported.findings[0].text
    assert "parser 'strict'" in reported.findings[0].text
    assert setting in reported.figures[0].title
    assert all(
        setting in str(text) for text in reported.table("benchmark-scores").columns["setting"]
    )
    one = row(reported.table("benchmark-references"), model="a model")
    assert (one["value"], round(one["here"], 2)) == (85.9, 87.18)
    assert "Some labels are wrong." in reported.notes


def test_what_is_not_defined_is_written_as_nothing() -> None:
    result = score(questions(answered(["no"] * 12, ["no"] * 12)))
    assert values(result)["recall"] is None
    assert json.loads(to_json(result))["overview"][0]["value"] is None
    assert "f1 undefined" in result.findings[0].text


def test_the_file_of_answers_can_be_given_back(tmp_path: Path) -> None:
    texts = ["Yes", 'no \u2028"\x1b[31m', "Perhaps\n", "", "no", "yes"] * 4
    samples = answered(["yes", "no"] * 12, texts)
    first = score(questions(samples), tmp_path)
    path = tmp_path / "benchmark.answers.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"id": "q0", "text": "Yes", "parsed": "yes", "right": 1.0}
    assert lines[2]["parsed"] is None
    bare = [replace(sample, attributes={}) for sample in samples]
    again = score(questions(bare, answers=str(path)))
    assert to_json(again) == to_json(first)
    score(questions(answered(["no"], ["no \ud800"])), tmp_path)
    assert json.loads(path.read_bytes())["text"] == "no ?"


def test_several_sets_are_scored_side_by_side() -> None:
    other = Card(**{**vars(CARD), "name": "other-set", "title": "Other set"})
    tasks = ["a"] * 10 + ["b"] * 10
    ids = [f"o{i}" for i in range(20)]
    right = answered(["yes", "no"] * 10, ["yes", "no"] * 10)
    wrong = answered(["yes", "no"] * 10, ["no", "yes"] * 10, id=ids, task=tasks)
    result = score([*questions(right), *questions(wrong, other)])
    table = result.table("benchmark-scores")
    assert row(table, benchmark="small-set", metric="f1")["value"] == 100
    assert row(table, benchmark="other-set", metric="f1", task="b")["value"] == 0
    subjects = [cell.subject for cell in result.overview]
    assert subjects == ["Small set", "Other set", "Other set, a", "Other set, b"]
    assert [figure.name for figure in result.figures] == [
        "benchmark-small-set",
        "benchmark-other-set",
    ]
