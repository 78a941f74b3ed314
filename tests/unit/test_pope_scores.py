"""POPE's answer rules and metrics: the table of the toolkits, constants, published figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.unit._pope_files import rows, write_official

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import Answer, answered, intervals, scored
from vlmlens_plugins.benchmarks.counting import YesNo
from vlmlens_plugins.benchmarks.pope import CARD, Pope, PopeOptions
from vlmlens_plugins.benchmarks.pope.editions import edition_of
from vlmlens_plugins.benchmarks.pope.metrics import LmmsEvalYesNo, VlmEvalKitYesNo
from vlmlens_plugins.benchmarks.pope.questions import Asked

YES, NO = Sample("y", "?", label="yes"), Sample("n", "?", label="no")
TABLE = [  # text, official, OPERA, VCD is right if the label is yes / no, lmms-eval, VLMEvalKit
    ("Yes.", "yes", "yes", True, False, None, "yes"),
    ("NO", "yes", "no", False, True, "no", "no"),
    ("No\n", "yes", "yes", False, True, "no", "no"),
    ("There isn't a dog.", "yes", "no", False, False, None, None),
    ("Yes, there is no other cat.", "no", "no", True, True, None, None),
    ("I don't know.", "yes", "no", False, True, None, None),
    ("", "yes", "yes", False, False, None, None),
    ("Not sure", "yes", "yes", False, True, None, None),
]


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Sample]:
    folder = write_official(tmp_path_factory.mktemp("pope") / "coco")
    return Pope(str(folder), PopeOptions()).samples([])


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Sample]:
    folder = write_official(tmp_path_factory.mktemp("pope") / "coco", first=True)
    return Pope(str(folder), PopeOptions()).samples([])


# ---------------------------------------------------------------------------------- editions


def test_editions_are_known_by_counts_and_by_the_misprint(
    current: Sequence[Sample], first: Sequence[Sample]
) -> None:
    said = str(current[0].attributes["edition"])
    assert said.startswith("coco, current edition (3,000 random, 3,000 popular, 3,000 adversarial)")
    said = str(first[0].attributes["edition"])
    assert said.startswith("coco, first edition of May 2023 (2,910 random, 3,000 popular,")
    assert "108 with 'imange'" in said
    assert (len(current), len(first)) == (9000, 8910)
    assert first[2910].attributes["object"] == current[3000].attributes["object"]


@pytest.mark.parametrize(
    ("counts", "misprints", "name"),
    [
        ({"popular": 3000}, 0, "current edition"),
        ({"popular": 3000}, 44, "first edition"),
        ({"random": 2910}, 0, "first edition"),
        ({"random": 3000, "popular": 3000}, 44, "no known edition"),  # of both
        ({"random": 2910, "popular": 3000}, 0, "no known edition"),
        ({"random": 2999}, 0, "no known edition"),
        ({"": 3000}, 0, "no known edition"),
    ],
)
def test_parts_of_editions_and_mixtures(counts: dict[str, int], misprints: int, name: str) -> None:
    asked = []
    for split, count in counts.items():
        for i in range(count):
            word = "imange" if i < misprints and split == "popular" else "image"
            text = f"Is there an apple in the {word}?"
            asked.append(Asked(str(i), "", "", text, "yes", split, "coco", "", {}))
    assert name in edition_of(asked)


# ------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize("row", TABLE, ids=lambda row: repr(row[0]))
def test_toolkits_read_the_same_text_differently(
    row: tuple[str, str, str, bool, bool, str | None, str | None],
) -> None:
    text, official, opera, yes, no, lmms, kit = row
    read = {name: [rule.read(text, one) for one in (YES, NO)] for name, rule in CARD.rules.items()}
    assert read["official"] == [official] * 2
    assert read["opera"] == [opera] * 2
    assert read["lmms-eval"] == [lmms] * 2
    assert read["vlmevalkit"] == [kit] * 2
    right = [answered([text], [one], CARD.rules["vcd"])[0].credit for one in (YES, NO)]
    assert right == [float(yes), float(no)]


@pytest.mark.parametrize(
    ("text", "said"),
    [("Yes, it is", "yes"), ("**No**", "no"), ("NO", "no"), ("Not sure", None), ("", None)],
)
def test_the_strict_rule_reads_the_first_word_and_never_guesses(
    text: str, said: str | None
) -> None:
    assert CARD.rules["strict"].read(text, YES) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("yes/no", None),  # both words
        ("Answer:yes", None),  # a colon parts no words
        ("(yes)", "yes"),
        ("yes,there", "yes"),
        ("yes.there", None),  # a dot goes, and joins what it parted
        ("no-one, yes", None),
        ("no, 1,000 of them", "no"),  # a number with a comma: all signs go
        ("well-no 1,000", None),
        ("a. " * 31 + "Yes.", "yes"),  # 32 dots go,
        ("a. " * 32 + "Yes.", None),  # and no more;
        ("1. " * 40 + "Yes.", "yes"),  # those behind a digit stay, and do not count
    ],
)
def test_signs_part_words_as_in_vlmevalkit(text: str, said: str | None) -> None:
    assert CARD.rules["vlmevalkit"].read(text, YES) == said


def test_official_negatives_are_whole_words_between_single_blanks() -> None:
    read = CARD.rules["official"].read
    assert read("It is not. Yes", YES) == "no"
    assert read("Yes. No.", YES) == "yes"
    assert read("None, nothing, north", YES) == "yes"
    assert read("a\nno", YES) == "yes"


# ----------------------------------------------------------------------------------- metrics


@pytest.mark.parametrize("rule", ["strict", "official"])
def test_a_constant_yes_and_a_constant_no(current: Sequence[Sample], rule: str) -> None:
    yes = scored(CARD.metrics, current, answered(["Yes"] * 9000, current, CARD.rules[rule]))
    assert yes == {"mean_accuracy": 50.0, "mean_f1": pytest.approx(200 / 3)}
    no = scored(CARD.metrics, current, answered(["No"] * 9000, current, CARD.rules[rule]))
    assert no == {"mean_accuracy": 50.0, "mean_f1": 0.0}


def test_constants_of_one_split(current: Sequence[Sample]) -> None:
    own = [sample for sample in current if sample.task == "popular"]
    assert CARD.task_metrics is not None
    found = scored(CARD.task_metrics, own, answered(["Yes"] * 3000, own, CARD.rules["strict"]))
    expected = {"accuracy": 50, "precision": 50, "recall": 100, "f1": 200 / 3, "yes_ratio": 100}
    assert found == pytest.approx(expected)


def test_the_first_edition_has_more_positives(first: Sequence[Sample]) -> None:
    found = scored(CARD.metrics, first, answered(["Yes"] * 8910, first, CARD.rules["strict"]))
    random = 1500 / 2910
    assert found["mean_accuracy"] == pytest.approx(100 * (random + 0.5 + 0.5) / 3)
    assert found["mean_f1"] == pytest.approx(100 * (2 * random / (random + 1) + 2 / 3 + 2 / 3) / 3)


def test_a_published_table_of_confusions_gives_its_figures(first: Sequence[Sample]) -> None:
    """LLaVA-1.5 on the random split: LLaVA, issue 626."""
    own = [sample for sample in first if sample.task == "random"]
    wrong = {"yes": 317, "no": 31}
    texts = []
    for sample in own:
        missed = wrong[str(sample.label)] > 0
        wrong[str(sample.label)] -= missed
        texts.append("Yes" if (sample.label == "yes") != missed else "No")
    found = scored(YesNo(), own, answered(texts, own, CARD.rules["official"]))
    published = {
        one.metric.removeprefix("random: "): one.value
        for one in CARD.references
        if one.source == "LLaVA, issue 626" and one.metric.startswith("random: ")
    }
    assert set(published) == {"accuracy", "precision", "recall", "f1"}
    for name, value in published.items():
        assert found[name] == pytest.approx(value, abs=0.005), name


def test_the_mean_of_f1_is_that_of_the_splits_and_not_of_the_pool(
    first: Sequence[Sample],
) -> None:
    rng = np.random.default_rng(3)
    texts = rng.choice(["yes", "no", "who knows"], len(first)).tolist()
    answers = answered(texts, first, CARD.rules["strict"])
    by_split = []
    for split in ("random", "popular", "adversarial"):
        own = [(s, t) for s, t in zip(first, texts, strict=True) if s.task == split]
        tp = sum(s.label == "yes" and t == "yes" for s, t in own)
        fp = sum(s.label == "no" and t == "yes" for s, t in own)
        fn = sum(s.label == "yes" and t != "yes" for s, t in own)
        by_split.append(100 * 2 * tp / (2 * tp + fp + fn))
    found = scored(CARD.metrics, first, answers)
    assert found["mean_f1"] == pytest.approx(np.mean(by_split))
    assert found["mean_f1"] != pytest.approx(scored(YesNo(), first, answers)["f1"], abs=1e-6)


def test_a_split_without_samples_does_not_count_and_one_without_f1_does() -> None:
    asked = [replace(YES, id=f"{i}", attributes={"split": "random"}) for i in range(4)]
    right = [Answer("yes", "yes", 1.0)] * 4
    assert scored(CARD.metrics, asked, right) == {"mean_accuracy": 100.0, "mean_f1": 100.0}
    more = [*asked, replace(NO, attributes={"split": "popular"})]
    found = scored(CARD.metrics, more, [*right, Answer("no", "no", 1.0)])
    assert found["mean_accuracy"] == 100.0
    assert np.isnan(found["mean_f1"])


def test_lmms_eval_leaves_other_answers_out_of_recall_and_counts_labels() -> None:
    asked = [replace(YES, id="1"), replace(YES, id="2"), replace(YES, id="3"), NO]
    answers = answered(["yes", "no", "Yes.", "yes"], asked, CARD.rules["lmms-eval"])
    found = scored(LmmsEvalYesNo(), asked, answers)
    half = 50.0
    assert found == {
        "accuracy": 25.0,
        "precision": half,
        "recall": half,  # one of the two that were read; YesNo has one of three
        "f1": pytest.approx(half),
        "yes_ratio": 75.0,  # of the labels; two of four answers are yes
    }
    assert scored(YesNo(), asked, answers)["recall"] == pytest.approx(100 / 3)
    assert scored(YesNo(), asked, answers)["yes_ratio"] == half


def test_toolkits_score_a_split_by_their_own_metrics() -> None:
    asked = [replace(YES, id="1"), replace(YES, id="2"), NO]
    for name, texts in (("lmms-eval", ["yes", "Yes.", "no"]), ("vlmevalkit", ["no", "no", "no"])):
        rule = CARD.rules[name]
        assert rule.task_metrics is not None
        found = scored(rule.task_metrics, asked, answered(texts, asked, rule))
        if name == "lmms-eval":
            assert found["recall"] == 100.0  # 50 by the set's own metrics
        else:
            assert found == {"accuracy": 100 / 3, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_the_yes_ratio_of_lmms_eval_is_always_one_half(current: Sequence[Sample]) -> None:
    rule = CARD.rules["lmms-eval"]
    assert rule.metrics is not None
    for text in ("yes", "no", "perhaps"):
        found = scored(rule.metrics, current, answered([text] * 9000, current, rule))
        assert found["yes_ratio"] == 50.0


def test_vlmevalkit_pools_and_gives_zero_where_nothing_is_defined() -> None:
    asked = [replace(YES, id="1"), NO]
    found = scored(
        VlmEvalKitYesNo(), asked, answered(["what", "no"], asked, CARD.rules["vlmevalkit"])
    )
    assert found == {"accuracy": 50.0, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_an_interval_is_over_images(current: Sequence[Sample]) -> None:
    """All six questions of an image are right or wrong: the interval is that of 40 images."""
    own = [sample for sample in current if sample.group < "COCO_val2014_000000000040"]
    good = {f"COCO_val2014_{i:012d}" for i in range(0, 40, 2)}
    texts = [
        str(s.label) if s.group in good else ("no" if s.label == "yes" else "yes") for s in own
    ]
    answers = answered(texts, own, CARD.rules["strict"])
    found = intervals(CARD.metrics, own, answers, draws=2000, rng=np.random.default_rng(0))[
        "mean_accuracy"
    ]
    spread = 1.96 * 50 / np.sqrt(40)
    assert found[1] - found[0] == pytest.approx(2 * spread, rel=0.15)


# ------------------------------------------------------------------------------------- prompts


def test_every_style_is_what_its_toolkit_adds() -> None:
    asked = Sample("1", "Is there a dog in the image?")
    suffixes = {
        "official": "",
        "opera": "",
        "vlmevalkit": "",
        "llava": "\nAnswer the question using a single word or phrase.",
        "lmms-eval": "\nAnswer the question using a single word or phrase.",
        "vcd": " Please answer this question with one word.",
        "qwen2-vl": " Please answer yes or no.",
        "plm": "\nYour response must be concise.",
    }
    assert {name: prompt.of(asked)[28:] for name, prompt in CARD.prompts.items()} == suffixes


def test_the_generated_files_are_those_of_the_real_layout(tmp_path: Path) -> None:
    """The files that the oracles stand on: 500 images, 6 questions each, shared positives."""
    made = {split: list(rows(split)) for split in ("random", "popular", "adversarial")}
    asked = {
        split: {(row["image"], row["text"]) for row in own if row["label"] == "yes"}
        for split, own in made.items()
    }
    assert {len(own) for own in made.values()} == {3000}
    assert asked["random"] == asked["popular"] == asked["adversarial"]
    assert len(asked["random"]) == 1500
    assert len(list(rows("random", first=True))) == 2910
