"""VQAv2: its forms, its accuracy, and what large files cost."""

from __future__ import annotations

import io
import itertools
import json
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlmlens.errors import DataError, DataNotFound
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import answered, intervals, scored
from vlmlens_plugins.benchmarks.json_items import first_key, json_items, json_values
from vlmlens_plugins.benchmarks.vqav2 import VqaV2, VqaV2Options
from vlmlens_plugins.benchmarks.vqav2.card import CARD
from vlmlens_plugins.benchmarks.vqav2.rules import vqa_accuracy
from vlmlens_plugins.benchmarks.vqav2.words import alike

QUESTIONS = "v2_OpenEnded_mscoco_val2014_questions.json"
ANNOTATIONS = "v2_mscoco_val2014_annotations.json"
PAIRS = "v2_mscoco_val2014_complementary_pairs.json"
MIXED = ("net", "net", "net", "a net", "Net.", "nets", "bag", "bag", "racket", "none")


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    with patch("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf"):
        yield


def annotation(question: int, answers: Sequence[str], kind: str = "other") -> dict[str, Any]:
    people = [
        {"answer": answer, "answer_confidence": "yes", "answer_id": i}
        for i, answer in enumerate(answers, start=1)
    ]
    return {
        "question_type": "what is",
        "multiple_choice_answer": answers[0],
        "answers": people,
        "image_id": question // 1000,
        "answer_type": kind,
        "question_id": question,
    }


KNOWN = (
    annotation(42000, MIXED),
    annotation(42001, ["yes"] * 10, "yes/no"),
    annotation(73000, ["no"] * 9 + ["yes"], "yes/no"),
)


def official(
    folder: Path, known: Sequence[Mapping[str, Any]] = KNOWN, *, pairs: bool = True
) -> Path:
    """The three files of a split; the annotations in another order than the questions."""
    folder.mkdir(exist_ok=True)
    asked = [
        {"image_id": each["image_id"], "question": f"What {i}?", "question_id": each["question_id"]}
        for i, each in enumerate(known)
    ]
    head = {"info": {"version": "2.0"}, "license": {}, "data_subtype": "val2014"}
    (folder / QUESTIONS).write_text(json.dumps({**head, "questions": asked}))
    (folder / ANNOTATIONS).write_text(json.dumps({**head, "annotations": [*known][::-1]}))
    if pairs:
        (folder / PAIRS).write_text(json.dumps([[42001, 73000]]))
    return folder


def read(source: Path | str, **options: Any) -> tuple[list[Sample], str]:
    data = VqaV2(str(source), VqaV2Options(**options))
    return list(data.samples([])), "\n".join(data.notes)


# ------------------------------------------------------------------------------- forms


@pytest.mark.parametrize("whole", [True, False])
def test_official_files(tmp_path: Path, whole: bool) -> None:
    folder = official(tmp_path / "vqa")
    samples, notes = read(folder if whole else folder / QUESTIONS)
    assert [s.id for s in samples] == ["42000", "42001", "73000"]
    assert [s.label for s in samples] == ["net", "yes", "no"]
    assert [s.task for s in samples] == ["other", "yes/no", "yes/no"]
    assert [s.group for s in samples] == ["42", "42", "73"]
    assert samples[0].images == (str(folder / "COCO_val2014_000000000042.jpg"),)
    assert json.loads(str(samples[0].attributes["answers"])) == list(MIXED)
    assert samples[1].attributes["complement"] == "73000"
    assert "v2.0 val2014, 3 questions on 2 images" in notes
    assert "official files" in notes


def test_pictures_are_found_by_either_name_and_beside_or_below(tmp_path: Path) -> None:
    folder = official(tmp_path / "vqa")
    pictures = tmp_path / "coco"
    (pictures / "val2014").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(pictures / "val2014" / "COCO_val2014_000000000042.jpg")
    samples, _ = read(folder, images=str(pictures))
    assert Path(str(samples[0].images[0])).is_file()
    for path in (pictures / "val2014").iterdir():
        path.rename(pictures / "000000000042.jpg")
    samples, _ = read(folder, images=str(pictures))
    assert samples[0].images == (str(pictures / "000000000042.jpg"),)


def test_without_annotations_there_are_no_labels_and_it_is_said(tmp_path: Path) -> None:
    folder = official(tmp_path / "vqa", pairs=False)
    (folder / ANNOTATIONS).rename(tmp_path / "elsewhere.json")
    samples, notes = read(folder)
    assert {s.label for s in samples} == {None}
    assert "3 questions without answers" in notes
    assert "the metric `pairs` is left out" in notes
    samples, _ = read(folder, annotations=str(tmp_path / "elsewhere.json"))
    assert samples[0].label == "net"


def test_annotations_are_joined_by_id_and_a_gap_is_an_error(tmp_path: Path) -> None:
    folder = official(tmp_path / "vqa")
    asked = json.loads((folder / QUESTIONS).read_text())
    more = {"image_id": 42, "question": "?", "question_id": 42007}
    (folder / QUESTIONS).write_text(json.dumps({**asked, "questions": [*asked["questions"], more]}))
    with pytest.raises(DataError, match="question 4: the annotations have none for question 42007"):
        read(folder)
    (folder / QUESTIONS).write_text(json.dumps({**asked, "questions": asked["questions"][:1]}))
    _, notes = read(folder)
    assert "not used: 2 annotations of no question" in notes
    other = {**asked["questions"][0], "image_id": 7}
    (folder / QUESTIONS).write_text(json.dumps({**asked, "questions": [other]}))
    with pytest.raises(DataError, match="is about image 7, its annotation about 42"):
        read(folder)


def test_hub_columns(tmp_path: Path) -> None:
    target = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 0, 0)).save(target, "PNG")
    rows = [
        {**each, "question": "What?", "image": {"bytes": target.getvalue(), "path": None}}
        for each in KNOWN
    ]
    path = tmp_path / "validation-00000-of-00068.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    samples, notes = read(path)
    assert [s.id for s in samples] == ["42000", "42001", "73000"]
    assert json.loads(str(samples[0].attributes["answers"])) == list(MIXED)
    assert samples[0].open_images()[0].getpixel((0, 0)) == (9, 0, 0)
    assert "hub columns" in notes
    test = [{**each, "answers": None, "multiple_choice_answer": None} for each in rows]
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({**each, "image": "a.jpg"}) + "\n" for each in test)
    )
    samples, notes = read(tmp_path / "rows.jsonl")
    assert samples[0].images == (str(tmp_path / "a.jpg"),)
    assert "3 questions without answers" in notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "in none of the forms|not"),
        ('{"questions": [{"question_id": 1}]}', "question 1: expected question_id"),
        ('{"questions": [{"question_id": 1, "image_id": 1, "question": "a"}', "cut off"),
        ('{"questions": [1]}', "question 1"),
        ('{"questions": {"a": 1}}', "no list 'questions'"),
        ('{"annotations": []}', "holds annotations, not questions"),
        ('{"questions": []}', "has no questions"),
        ("[[[", "not"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "q_questions.json").write_text(text)
    with pytest.raises(DataError, match=said):
        read(tmp_path / "q_questions.json")


def test_a_folder_must_hold_one_split(tmp_path: Path) -> None:
    folder = official(tmp_path / "vqa")
    whole = (folder / QUESTIONS).read_text()
    (folder / QUESTIONS).write_text(whole.replace("questions", "asked", 1))
    with pytest.raises(DataError, match="neither questions nor annotations"):
        read(folder)
    (folder / QUESTIONS.replace("val", "train")).write_text("{}")
    with pytest.raises(DataNotFound, match="several files of questions"):
        read(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="in none of the forms of VQAv2: it has nothing"):
        read(tmp_path / "empty")


# ---------------------------------------------------------------------------- accuracy


def brute(said: str, answers: Sequence[str]) -> float:
    """Accuracy by its definition: every set of all answers but one."""
    rests = itertools.combinations(range(len(answers)), len(answers) - 1)
    found = [min(sum(answers[i] == said for i in rest) / 3, 1) for rest in rests]
    return float(np.mean(found))


@pytest.mark.parametrize("matches", range(11))
def test_accuracy_is_the_mean_over_sets_of_nine(matches: int) -> None:
    answers = ["net"] * matches + ["bag"] * (10 - matches)
    assert vqa_accuracy("net", answers) == pytest.approx(brute("net", answers), abs=1e-12)
    assert vqa_accuracy("dog", answers) == 0


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("The two dogs.", "2 dogs"),
        ("1,000", "1000"),
        ("3,5;x", "35x"),
        ("on/off", "on off"),
        ("on /off", "on off"),
        ("dont", "don't"),
        ("2.5", "2.5"),
        ("none", "0"),
        ("A man", "man"),
        ("shed've", "she'd've"),
        ("somebody'd", "somebodyd"),
        ("." * 40, "." * 8),
    ],
)
def test_answers_are_made_alike(text: str, same: str) -> None:
    assert alike(text) == same


def test_only_lmms_eval_takes_several_commas_for_one() -> None:
    assert (alike("3,,0"), alike("3,,0", commas=True)) == ("3 0", "30")


@pytest.mark.parametrize(
    ("text", "question", "worth"),
    [
        # Official and lmms-eval make alike where answers differ: net, a net, Net. are one answer.
        ("Net", 0, {"official": 1, "lmms-eval": 1, "strict": 0.9}),
        ("the bag!", 0, {"official": 0.6, "lmms-eval": 0.6, "strict": 0}),
        ("zero", 0, {"official": 0.3, "lmms-eval": 0.3, "strict": 0}),
        # Where all ten agree, the official evaluation compares letter by letter.
        ("Yes.", 1, {"official": 0, "lmms-eval": 1, "strict": 1}),
        ("yes", 1, {"official": 1, "lmms-eval": 1, "strict": 1}),
        ("yes, it is", 1, {"official": 0, "lmms-eval": 0, "strict": 0}),
        ("Yes.", 2, {"official": 0.3, "lmms-eval": 0.3, "strict": 0.3}),
        ("", 1, {"official": 0, "lmms-eval": 0, "strict": 0}),
    ],
)
def test_rules(tmp_path: Path, text: str, question: int, worth: dict[str, float]) -> None:
    samples, _ = read(official(tmp_path / "vqa"))
    for name, wanted in worth.items():
        (answer,) = answered([text], [samples[question]], CARD.rules[name])
        assert answer.credit == pytest.approx(wanted), name
        assert (answer.said is None) == (text == "")


def test_metrics_and_pairs(tmp_path: Path) -> None:
    samples, _ = read(official(tmp_path / "vqa"))
    answers = answered(["net", "yes", "yes"], samples, CARD.rules["official"])
    found = scored(CARD.metrics, samples, answers)
    assert found["accuracy"] == pytest.approx(100 * (1 + 1 + 0.3) / 3)
    assert (found["yes_no"], found["other"]) == pytest.approx((65, 100))
    assert np.isnan(found["number"])
    assert found["pairs"] == pytest.approx(30), "the lower of 1 and 0.3"
    ends = intervals(CARD.metrics, samples, answers, draws=50, rng=np.random.default_rng(0))
    assert ends["accuracy"][0] <= found["accuracy"] <= ends["accuracy"][1]


# ------------------------------------------------------------------------- large files


def test_large_files_are_not_held(tmp_path: Path) -> None:
    """Reading takes far less than the parsed annotations would, which are the control."""
    known = [annotation(i * 1000, MIXED) for i in range(1, 3_001)]
    folder = official(tmp_path / "vqa", known, pairs=False)
    tracemalloc.start()
    parsed = json.loads((folder / ANNOTATIONS).read_text())
    whole, _ = tracemalloc.get_traced_memory()
    del parsed, known
    tracemalloc.reset_peak()
    samples = VqaV2(str(folder), VqaV2Options()).samples([])
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(samples) == 3_000
    assert peak < 0.6 * whole, (peak, whole)
    assert held < 0.2 * whole, (held, whole)


def test_items_do_not_depend_on_where_blocks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {"a": {"questions": [0]}, "n": -12.5, "questions": [{"x": 'é"]}'}, 123, [1, [2]], None]}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(whole, ensure_ascii=False, indent=1), encoding="utf-8-sig")
    for block in (1, 2, 3, 7, 1 << 20):
        monkeypatch.setattr("vlmlens_plugins.benchmarks.json_items._BLOCK", block)
        assert list(json_items(path, "questions")) == whole["questions"]
        assert first_key(path, ("questions", "n")) == "n"
        assert json_values(path, "n", "missing") == {"n": -12.5}
    path.write_text("[1, 2]")
    assert list(json_items(path, "questions")) == [1, 2]
    path.write_bytes(b'{"questions": ["\xff"]}')
    with pytest.raises(DataError, match="not UTF-8"):
        list(json_items(path, "questions"))
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="nested too deeply"):
        list(json_items(path, "questions"))
