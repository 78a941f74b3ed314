"""What benchmarks say of wrong input: what was given, what was expected, what to do."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tests._answered import CARD, answered, questions, row, score

from vlmlens.compose.estimate import Estimate, check_fits
from vlmlens.errors import (
    DataNotFound,
    DuplicateSample,
    MissingAnnotation,
    SpecError,
    StoreFull,
    did_you_mean,
)
from vlmlens.report.terminal import print_summary
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import Rule
from vlmlens_plugins.benchmarks.cdh import CdhBench
from vlmlens_plugins.benchmarks.counting import MeanCredit
from vlmlens_plugins.benchmarks.lmms_eval.log import log_files
from vlmlens_plugins.benchmarks.sources import ImageRoot, source_of


def test_a_question_that_is_there_twice_is_an_error_about_the_file() -> None:
    one = answered(["yes"], ["yes"])
    with pytest.raises(DuplicateSample) as caught:
        questions([*one, *one])
    assert caught.value.message.startswith("'memory': 1 sample id occurs more than once")
    assert "as the set's authors publish it" in caught.value.hint
    assert "id column" not in str(caught.value)


def test_an_archive_or_a_file_is_no_folder_of_images(tmp_path: Path) -> None:
    archive = tmp_path / "val2014.zip"
    archive.write_bytes(b"PK")
    with pytest.raises(DataNotFound, match=r"val2014\.zip' is no folder.*unpacked"):
        ImageRoot(str(archive), tmp_path)
    assert ImageRoot(str(tmp_path), Path("elsewhere")).folder == tmp_path


@pytest.mark.parametrize(
    ("style", "said"),
    [
        ("LLaVA-short", "Did you mean"),
        ("SHORT", "Did you mean short?"),
        ("Say yes or no.", """--set 'options.dataset.prompt=" Yes or no?"'"""),
        ("qwerty", "There are official, short and none."),
    ],
)
def test_a_style_of_prompts_that_is_none_says_what_to_write(style: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        CARD.prompt(style)
    assert said in caught.value.hint


def test_capitals_do_not_hide_the_name_that_was_meant() -> None:
    assert did_you_mean("LLaVA", ["opera", "llava", "none"]) == "Did you mean llava?"
    assert did_you_mean("pope", ["POPE", "mme"]) == "Did you mean POPE?"


def test_an_empty_folder_is_not_taken_for_a_name_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound) as caught:
        source_of(str(tmp_path))
    assert "login" not in caught.value.hint
    assert "folder with the data files" in caught.value.hint


def test_a_log_of_no_name_is_asked_for() -> None:
    with pytest.raises(DataNotFound, match="needs a source"):
        log_files("")


def test_answers_in_which_nothing_counts_are_not_said_to_be_all_the_same_word() -> None:
    card = replace(CARD, rules={"strict": Rule(lambda text, sample: "", credit=lambda *_: 0.0)})
    found = score(questions(answered(["yes", "no"] * 10, ["a", "b"] * 10), card)).warnings
    assert found[0] == "Small set: the parser finds nothing that counts in any of the answers."


def test_a_headline_that_is_not_defined_is_warned_of() -> None:
    samples = questions(answered(["no"] * 20, ["No", "no."] * 10))
    found = score(samples).warnings
    assert any("f1 is not defined for these questions" in each for each in found)
    card = replace(CARD, metrics=MeanCredit(), headline="accuracy")
    known = score(questions(answered(["no"] * 20, ["No", "no."] * 10), card)).warnings
    assert not any("not defined" in each for each in known)


def test_questions_without_an_answer_of_people_are_not_scored_as_wrong() -> None:
    def vqa(label: str | None, answers: str) -> Sample:
        about = {"benchmark": "vqav2", "answer": "yes", "answers": answers}
        return Sample(f"{label}", "Is it?", label=label, attributes=about)

    known, unknown = vqa("yes", json.dumps(["yes"] * 10)), vqa(None, "[]")
    found = score([known, unknown])
    assert row(found.table("benchmark-scores"), metric="accuracy")["value"] == 100
    with pytest.raises(MissingAnnotation, match="no question has its right answer"):
        score([unknown])
    about = {"benchmark": "chair", "objects": '["dog"]', "answer": "A dog."}
    caption = score([Sample("1", "Describe it.", attributes=about)])
    assert row(caption.table("benchmark-scores"), metric="chair_i")["value"] == 0


def test_a_pair_that_lacks_a_kind_of_question_is_told_of(tmp_path: Path) -> None:
    gold = {"commonsense_gt": "Yes", "counterfactual_gt": "No"}
    direct, options = {"question": "Five?", **gold}, ["A. 4", "B. 5"]
    choice = {"question": "Which?", "options": options, "commonsense_gt": "B",
              "counterfactual_gt": "A"}  # fmt: skip
    pairs = [
        {"pair_id": f"Pair {number}", "category": "Counting Anomalies", "subcategory": "Body",
         "direct_qa": one, "multiple_choice": choice}
        for number, one in enumerate((direct, None), 1)
    ]  # fmt: skip
    file = tmp_path / "benchmark.jsonl"

    def noted(rows: list[dict[str, object]]) -> list[str]:
        file.write_text("".join(json.dumps(each) + "\n" for each in rows))
        read = CdhBench(str(file), CdhBench.Options())
        read.samples(())
        return [note for note in read.notes if "one question only" in note]

    assert noted(pairs) == [
        "CDH-Bench: 1 pair of 2 (the first: 'Pair 2') with one question only, not with both kinds"
    ]
    assert noted(pairs[:1]) == []


def test_a_disk_without_room_is_not_blamed_on_columns_that_there_are_not() -> None:
    with pytest.raises(StoreFull) as caught:
        check_fits(Estimate(samples=3, columns={}, bytes=0, free_bytes=200 << 10))
    assert caught.value.message == (
        "The disk of the run has 200.0 KiB free; 64.0 MiB are kept for its files."
    )
    with pytest.raises(StoreFull, match=r"The columns take .*Choose fewer sites"):
        check_fits(Estimate(samples=3, columns={"a": 9 << 30}, bytes=9 << 30, free_bytes=1 << 30))
    check_fits(Estimate(samples=3, columns={}, bytes=0, free_bytes=1 << 30))


def test_the_same_warning_of_several_results_is_printed_once() -> None:
    results = [
        Result(name, name, warnings=["few groups", own])
        for name, own in [("a", "one"), ("b", "two")]
    ]
    file = io.StringIO()
    print_summary(results, Console(file=file, width=100))
    shown = [line for line in file.getvalue().splitlines() if line.startswith("!")]
    assert shown == ["! few groups", "! one", "! two"]
