"""CDH-Bench: its file in full size, pictures of 512 x 512, the authors' rule, the five metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from vlmlens.compose.sample_reading import read_samples
from vlmlens.errors import DataError, SpecError
from vlmlens.registry import Registry
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec
from vlmlens_plugins.benchmarks import answered, intervals, scored
from vlmlens_plugins.benchmarks.cdh import CARD, CdhBench, CdhOptions
from vlmlens_plugins.benchmarks.cdh.checks import pair, written
from vlmlens_plugins.benchmarks.cdh.parsing import official, strict
from vlmlens_plugins.data.checks import paint

CATEGORIES = {
    "Counting Anomalies": ("Body Parts", "Animal Parts", "Everyday Objects", "Plants"),
    "Relational Anomalies": ("Causality", "Spatial", "Function", "Size", "Animal Behavior"),
    "Attribute Anomalies": ("Color", "Material", "Temperature", "State", "Luminescence/Glow"),
}
TURNED = (296, 300)
"""Pairs whose direct question is right with no on the common picture."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


def rows() -> list[dict[str, Any]]:
    """300 pairs by rule: 100 in each category, letters that go around, two pairs turned."""
    made = []
    for number in range(1, 301):
        category = list(CATEGORIES)[(number - 1) // 100]
        known = CATEGORIES[category]
        yes, no = ("no", "yes") if number in TURNED else ("yes", "no")
        answers = {
            "commonsense_gt": "ABCD"[number % 4],
            "counterfactual_gt": "ABCD"[number // 4 % 4],
        }
        if answers["commonsense_gt"] == answers["counterfactual_gt"]:
            answers["counterfactual_gt"] = "ABCD"[(number + 1) % 4]
        choice = pair(number)["multiple_choice"] | answers
        direct = {"question": "Are there 2?", "commonsense_gt": yes, "counterfactual_gt": no}
        about = {"category": category, "subcategory": known[number % len(known)]}
        made.append(pair(number, direct_qa=direct, multiple_choice=choice, **about))
    return made


def dataset(source: Path | str, **options: Any) -> CdhBench:
    return CdhBench(str(source), CdhOptions(**options))


def read(source: Path | str, **options: Any) -> list[Sample]:
    return list(dataset(source, **options).samples(()))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return read(written(tmp_path_factory.mktemp("cdh"), rows()))


def score(
    samples: Sequence[Sample], texts: str | list[str], rule: str = "official"
) -> dict[str, float]:
    chosen = CARD.rule(rule)
    said = [texts] * len(samples) if isinstance(texts, str) else texts
    return scored(chosen.metrics or CARD.metrics, samples, answered(said, samples, chosen))


def test_the_file(full: list[Sample]) -> None:
    assert len(full) == 1200
    assert len({sample.group for sample in full}) == 300
    tasks = {
        f"{name}/{kind}"
        for name in ("counting", "relational", "attribute")
        for kind in ("qa", "choice")
    }
    assert {task: sum(s.task == task for s in full) for task in tasks} == dict.fromkeys(tasks, 200)
    assert [sample.id for sample in full[:4]] == [
        "Pair_1/commonsense/qa",
        "Pair_1/counterfactual/qa",
        "Pair_1/commonsense/choice",
        "Pair_1/counterfactual/choice",
    ]
    first = full[2]
    assert first.choices == ("A", "B", "C", "D")
    assert (first.attributes["pair"], first.attributes["side"]) == ("Pair 1", "commonsense")
    glow = next(s for s in full if s.attributes["subcategory"] == "Luminescence/Glow")
    assert "/Luminescence_Glow/Pair_" in str(glow.images[0])


def test_constant_answers(full: list[Sample]) -> None:
    """Yes is right for the common picture but in the two turned pairs; no the other way round."""
    yes, no = score(full, "yes"), score(full, "No.")
    assert yes["qa_cs_acc"] == no["qa_cf_acc"] == pytest.approx(100 * 298 / 300)
    assert yes["qa_cf_acc"] == no["qa_cs_acc"] == pytest.approx(100 * 2 / 300)
    assert yes["qa_cfad"] == pytest.approx(100 * 296 / 300)
    assert yes["qa_rpd"] == pytest.approx(296 / 298)
    assert no["qa_rpd"] == pytest.approx(-296 / 2)
    assert yes["qa_ccr"] == no["qa_ccr"] == 1.0, "always, if every answer is read"
    assert yes["both"] == yes["qa_both"] == no["choice_both"] == 0.0
    assert score(full, "perhaps")["qa_ccr"] == 0.0
    assert math.isnan(score(full, "perhaps")["qa_rpd"])
    for letter in "ABCD":
        found = score(full, letter)
        for side, name in (("commonsense", "cs"), ("counterfactual", "cf")):
            own = [
                s
                for s in full
                if s.task and s.task.endswith("choice") and s.attributes["side"] == side
            ]
            hits = [s for s in own if s.label == letter]
            assert found[f"choice_{name}_acc"] == pytest.approx(100 * len(hits) / 300)
        wrong = [s for s in own if s.label != letter]
        common = [s for s in wrong if s.attributes["commonsense"] == letter]
        assert found["choice_ccr"] == pytest.approx(len(common) / len(wrong))


def test_published_figures_follow_from_the_formula() -> None:
    """RPD = (CS - CF) / CS, of the figures that the README gives."""
    given = {each.metric: each.value for each in CARD.references}
    for kind in ("qa", "choice"):
        common, odd = given[f"{kind}_cs_acc"], given[f"{kind}_cf_acc"]
        assert (common - odd) / common == pytest.approx(given[f"{kind}_rpd"], abs=6e-4)


def test_planted_counts_reach_the_published_figures(full: list[Sample]) -> None:
    """Of 300: 278 right on common pictures, 138 on odd ones, 137 of the 162 errors common."""
    texts, seen = [], {"commonsense": 0, "counterfactual": 0}
    for sample in full:
        side = str(sample.attributes["side"])
        if not str(sample.task).endswith("choice"):
            texts.append("yes")
            continue
        seen[side] += 1
        rest = [
            each for each in "ABCD" if each not in (sample.label, sample.attributes["commonsense"])
        ]
        right = seen[side] <= {"commonsense": 278, "counterfactual": 138}[side]
        fallen = side == "counterfactual" and seen[side] <= 138 + 137
        texts.append(
            str(sample.label if right else sample.attributes["commonsense"] if fallen else rest[0])
        )
    found = score(full, texts)
    assert round(found["choice_cs_acc"], 2) == 92.67
    assert round(found["choice_cf_acc"], 2) == 46.0
    assert round(found["choice_ccr"], 3) == 0.846
    assert round(found["choice_rpd"], 3) == 0.504
    assert found["choice_both"] == 46.0, "both are right where the odd picture is"
    assert found["both"] == 23.0
    assert score(full, texts, "strict") == found
    drawn = intervals(CARD.metrics, full, answered(texts, full, CARD.rule("official")), draws=100,
                      rng=np.random.default_rng(0))  # fmt: skip
    low, high = drawn["choice_ccr"]
    assert low < 0.846 < high


def test_metrics_by_task(full: list[Sample]) -> None:
    assert CARD.task_metrics is not None
    own = [sample for sample in full if sample.task == "attribute/qa"]
    found = scored(CARD.task_metrics, own, answered(["yes"] * 200, own, CARD.rule("official")))
    assert found == pytest.approx(
        {"both": 0.0, "cs_acc": 98.0, "cf_acc": 2.0, "cfad": 96.0, "ccr": 1.0, "rpd": 96 / 98}
    )


def test_the_strict_rule_rereads_wrong_answers_of_a_task_strictly(full: list[Sample]) -> None:
    """ "It is yes" is the common answer for the authors, and nothing strictly."""
    own = [s for s in full if s.task == "attribute/qa" and s.attributes["pair"] == "Pair 201"]
    found = {}
    for name in ("official", "strict"):
        rule = CARD.rules[name]
        metrics = rule.task_metrics or CARD.task_metrics
        assert metrics is not None
        found[name] = scored(metrics, own, answered(["It is yes"] * 2, own, rule))["ccr"]
    assert found == {"official": 1.0, "strict": 0.0}


def asked(label: str, kind: str = "qa", letters: str = "ABCD") -> Sample:
    choices = tuple(letters) if kind == "choice" else ("yes", "no")
    return Sample("1", "?", label=label, choices=choices, task=f"counting/{kind}")


@pytest.mark.parametrize(
    ("text", "by_authors", "strictly"),
    [
        ("Yes.", "yes", "yes"),
        ("NO", "no", "no"),
        ("No\n", "no", "no"),
        ("There isn't a dog.", None, None),
        ("Yes, there is no other cat.", "yes", "yes"),
        ("I don't know.", None, None),
        ("", None, None),
        ("Not sure", None, None),
        ("y", "yes", None),
        ("FALSE", "no", None),
        ("Well, no and yes", "yes", None),
        ("It is no cat", "no", None),
        ("<think>Yes? no</think>\nNo", "no", None),
        ("<think>no</think> a </think> true", "yes", None),
        ("不是", "no", None),
        ("不是的", "yes", None),
        ("不对", "yes", None),
        ("不", "no", None),
    ],
)
def test_yes_and_no(text: str, by_authors: str | None, strictly: str | None) -> None:
    assert official(text, asked("no")) == by_authors
    assert strict(text, asked("no")) == strictly


@pytest.mark.parametrize(
    ("text", "by_authors", "strictly"),
    [
        ("B", "B", "B"),
        ("b.", "B", "B"),
        ("C) 3 hands", "C", "C"),
        ("D 1 hand", "D", None),
        ("(B)", "B", "B"),
        ("B: 3 hands", "B", "B"),
        ("Answer C", "C", None),
        ("The answer is C.", "C", None),
        ("The answer depends", "D", None),
        ("A dog", "A", None),
        ("It has B) 3", "B", None),
        ("Both", None, None),
        ("E", None, None),
        ("答案是C", "C", None),
        ("<think>A</think> D", "D", None),
        ("", None, None),
    ],
)
def test_letters(text: str, by_authors: str | None, strictly: str | None) -> None:
    assert official(text, asked("B", "choice")) == by_authors
    assert strict(text, asked("B", "choice")) == strictly


@pytest.mark.parametrize(
    ("label", "text", "by_authors", "strictly"),
    [
        ("3", "There are 3 hands", 1, 0),
        ("3", "3.", 1, 1),
        ("3", "2 or 3", 0, 0),
        ("3", "13", 0, 0),
        ("red", "A red one", 1, 0),
        ("red", "Red.", 1, 1),
        ("red", "redder", 1, 0),
        ("red", "blue", 0, 0),
    ],
)
def test_numbers_and_free_words(label: str, text: str, by_authors: int, strictly: int) -> None:
    for rule, credit in (("official", by_authors), ("strict", strictly)):
        (answer,) = answered([text], [asked(label)], CARD.rule(rule))
        assert answer.credit == credit


def test_defects_of_options(tmp_path: Path) -> None:
    """Options cut at a comma: letters go by prefix, and all lines are shown; two may be equal."""
    cut = ["A. a cold", " dark room", "B. a warm", " lit room", "C. none", "D. both"]
    choice = pair(290)["multiple_choice"] | {"options": cut, "commonsense_gt": "C"}
    (_, _, common, odd) = read(written(tmp_path, [pair(290, multiple_choice=choice)]))
    assert common.choices == ("A", "B", "C", "D")
    assert (common.label, odd.label) == ("C", "B")
    assert common.prompt.startswith("How many hands are there?\nA. a cold\n dark room\nB. a warm")
    equal = pair(9)["multiple_choice"] | {"options": ["A. 1", "B. 2", "C. 3", "D. 3"]}
    assert read(written(tmp_path, [pair(9, multiple_choice=equal)]))[2].choices == tuple("ABCD")


def test_prompts(full: list[Sample], tmp_path: Path) -> None:
    direct, choice = full[0].prompt, full[2].prompt
    assert direct == "Are there 2?\nAnswer with yes or no."
    assert choice.endswith("\nD. 1 hand\nAnswer with a single letter (A, B, C, or D).")
    bare = read(written(tmp_path, rows()), prompt="none")
    assert bare[0].prompt == "Are there 2?"
    assert bare[2].prompt.endswith("\nD. 1 hand")


def test_pictures_are_resized_as_the_authors_do(tmp_path: Path) -> None:
    names = [f"data/images/Body_Parts/Pair_1/{s}.png" for s in ("commonsense", "counterfactual")]
    paint(tmp_path, *names)
    written(tmp_path, [pair(1)], "data/benchmark.jsonl")
    samples = read(tmp_path)
    (shown,) = samples[0].open_images()
    with Image.open(tmp_path / names[0]) as image:
        expected = image.convert("RGB").resize((512, 512), Image.Resampling.LANCZOS)
    assert shown.size == (512, 512)
    assert shown.tobytes() == expected.tobytes()
    (plain,) = read(tmp_path, resize="none")[0].open_images()
    assert plain.size == (6, 4)
    assert CdhOptions(resize=512).resize == "512"


def test_rules_of_a_run_do_not_undo_the_size(tmp_path: Path) -> None:
    paint(
        tmp_path, *(f"images/Body_Parts/Pair_1/{s}.png" for s in ("commonsense", "counterfactual"))
    )
    path = written(tmp_path, [pair(1)])
    module = tmp_path / "mine.py"
    module.write_text("from vlmlens_plugins.benchmarks.cdh import CdhBench\n")
    spec = make_spec({"data": f"{module}:CdhBench:{path}", "background": "black"})
    _, samples, _ = read_samples(spec, Registry.default())
    assert samples[0].rules.size == (512, 512)
    assert samples[0].rules.background == "black"


def test_the_hubs_rows_need_the_folder_of_pictures(tmp_path: Path) -> None:
    datasets.Dataset.from_list(rows()[:2]).save_to_disk(tmp_path / "saved")
    paint(tmp_path / "pictures", "Body_Parts/Pair_1/commonsense.png")
    samples = read(tmp_path / "saved", images=str(tmp_path / "pictures"))
    assert len(samples) == 8
    only = read(tmp_path / "saved", images=str(tmp_path / "pictures"), questions="qa")
    assert [s.task for s in only] == ["counting/qa"] * 4


def test_wrong_sources_give_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"pair_id": "Pair 1", "category": "Counting"}\n')
    with pytest.raises(DataError, match="it has pair_id, category") as caught:
        read(tmp_path / "other.jsonl")
    assert "benchmark.jsonl with pair_id" in caught.value.hint
    outside = written(tmp_path, [pair(1, subcategory="..")])
    with pytest.raises(DataError, match="outside the folder"):
        read(outside)
    with pytest.raises(SpecError, match="no parser"):
        CARD.rule("lmms-eval")
