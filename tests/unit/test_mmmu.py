"""The forms of MMMU: what is read, and where images stand."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlmlens.errors import DataError, SpecError
from vlmlens.question_text import IMAGE_MARK
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.mmmu import Mmmu, MmmuOptions
from vlmlens_plugins.benchmarks.mmmu.subjects import SUBJECTS


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    with patch("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf"):
        yield


def png(red: int) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (6, 4), (red, 0, 0)).save(target, "PNG")
    return target.getvalue()


def b64(red: int) -> str:
    return base64.b64encode(png(red)).decode()


def row(number: int, subject: str = "Art_Theory", **cells: Any) -> dict[str, Any]:
    """A row of the hub with its first image named in the question."""
    images: dict[str, Any] = {f"image_{n}": None for n in range(1, 8)}
    images["image_1"] = {"bytes": png(number), "path": None}
    return {
        "id": f"validation_{subject}_{number}",
        "question": "Look at <image 1>. Which one?",
        "options": "['red', \"it's blue\"]",
        "explanation": "",
        **images,
        "img_type": "['Diagrams', 'Tables']",
        "answer": "B",
        "topic_difficulty": "Easy",
        "question_type": "multiple-choice",
        "subfield": "Aesthetics",
        **cells,
    }


ROWS = (
    row(1),
    row(2, question="How many?<image 1>", options="[]", answer="12.97", question_type="open"),
    row(
        3,
        question="From <image 1>, which?",
        options="['<image 2>', '<image 3>', '<image 2>', 'none']",
        answer="D",
        image_2={"bytes": png(32), "path": None},
        image_3={"bytes": png(33), "path": None},
        image_5={"bytes": png(35), "path": None},
    ),
    row(4, question="Nothing named", answer="A"),
    row(5, options="[]", answer="['$MgS$', 'MgS']", question_type="open"),
)


def parquet(path: Path, rows: Sequence[Mapping[str, Any]] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(each) for each in rows]), path)
    return path


def tsv(path: Path, *rows: Mapping[str, str]) -> Path:
    columns = list(dict.fromkeys(name for each in rows for name in each))
    lines = [columns, *([each.get(name, "") for name in columns] for each in rows)]
    path.write_text("\n".join("\t".join(line) for line in lines) + "\n", encoding="utf-8")
    return path


def read(source: Path | str, *prompts: str, **options: Any) -> list[Sample]:
    return told(source, *prompts, **options)[0]


def told(source: Path | str, *prompts: str, **options: Any) -> tuple[list[Sample], str]:
    data = Mmmu(str(source), MmmuOptions(**options))
    samples = list(data.samples(prompts))
    return samples, "\n".join(data.notes)


def reds(sample: Sample) -> list[int]:
    return [image.getpixel((0, 0))[0] for image in sample.open_images()]  # type: ignore[index]


# ------------------------------------------------------------------------------- forms


def test_hub_columns_in_a_parquet_file(tmp_path: Path) -> None:
    samples, notes = told(parquet(tmp_path / "val.parquet"))
    assert [s.id for s in samples] == [f"validation_Art_Theory_{n}" for n in range(1, 6)]
    assert [s.label for s in samples] == ["B", "12.97", "D", "A", "$MgS$"]
    assert [s.choices for s in samples[:3]] == [("A", "B"), (), ("A", "B", "C", "D")]
    assert {s.task for s in samples} == {"Art_Theory"}
    known = samples[0].attributes
    assert known["discipline"] == "art_and_design"
    assert known["difficulty"] == "Easy"
    assert known["image_type"] == "Diagrams, Tables"
    assert json.loads(str(known["options"])) == ["red", "it's blue"]
    assert json.loads(str(samples[4].attributes["answers"])) == ["$MgS$", "MgS"]
    assert known["benchmark"] == "mmmu"
    assert "validation 5: 5 questions of 1 subject, 3 with options" in notes
    assert "hub columns" in notes
    assert "sha256" in notes


def test_a_folder_with_a_configuration_per_subject(tmp_path: Path) -> None:
    folder = tmp_path / "MMMU"
    names = ("Art", "Math")
    for name in names:
        parquet(folder / name / "validation-00000-of-00001.parquet", [row(1, name), row(2, name)])
        parquet(folder / name / "dev-00000-of-00001.parquet", [row(9, name)])
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: dev\n    path: {name}/dev-*\n"
        f"  - split: validation\n    path: {name}/validation-*\n"
        for name in names
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    samples, notes = told(f"{folder}:validation")
    assert [s.id for s in samples] == [f"validation_{n}_{i}" for n in names for i in (1, 2)]
    assert "4 questions of 2 subjects" in notes
    only = read(f"{folder}:dev", subset="Math")
    assert [s.task for s in only] == ["Math"]
    with pytest.raises(DataError, match="several splits: dev, validation"):
        read(folder)


def test_a_folder_without_configurations_and_one_that_is_not_there(tmp_path: Path) -> None:
    for name in ("Art", "Math"):
        parquet(tmp_path / "all" / name / "validation-00000-of-00001.parquet", [row(1, name)])
    assert [s.task for s in read(tmp_path / "all")] == ["Art", "Math"]
    with pytest.raises(DataError, match="cannot be loaded"):
        read("no-such-owner/MMMU:validation")


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    plain = [{k: v for k, v in each.items() if not k.startswith("image_")} for each in ROWS[:1]]
    datasets.Dataset.from_list(plain).save_to_disk(tmp_path / "saved")
    (sample,), _ = told(tmp_path / "saved", "What?")
    assert (sample.images, sample.prompt, sample.label) == ((), "What?", "B")


def test_the_table_of_vlmevalkit(tmp_path: Path) -> None:
    base = {"category": "Art Theory", "l2-category": "Art & Design", "split": "validation"}
    asked = {"question": "Look at <image 1>. Which?", "A": "red", "B": "blue", "answer": "B"}
    two = f"['{b64(7)}', '{b64(8)}']"
    path = tsv(
        tmp_path / "MMMU_DEV_VAL.tsv",
        {"index": "1", "image": b64(5), **asked, **base},
        {"index": "2", "image": "1", **asked, **base, "split": "dev"},
        {"index": "3", "image": two, **asked, **base, "question": "<image 2> or <image 1>?"},
        {"index": "4", "image": b64(5), "question": "How many?", "answer": "4", **base},
        {"index": "5", "image": "3", **asked, **base, "question": "<image 2>?", "hint": "Think."},
    )
    samples, notes = told(path, prompt="vlmevalkit")
    assert [s.id for s in samples] == [
        f"{split}/{n}" for n, split in enumerate(["validation", "dev", *["validation"] * 3], 1)
    ]
    assert [reds(s) for s in samples] == [[5], [5], [8, 7], [5], [8]]
    assert {s.task for s in samples} == {"Art_Theory"}
    assert samples[3].choices == ()
    assert samples[4].prompt.startswith(
        f"Hint: Think.\nQuestion: {IMAGE_MARK}?\nOptions:\nA. red\n"
    )
    assert "VLMEvalKit's table" in notes
    assert "validation 4, dev 1" in notes


def test_the_authors_answers_are_joined_by_id(tmp_path: Path) -> None:
    path = parquet(tmp_path / "val.parquet", ROWS[:2])
    right = {
        "validation_Art_Theory_2": {"question_type": "short-answer", "ground_truth": ["7", "VII"]},
        "validation_Art_Theory_1": {"question_type": "multiple-choice", "ground_truth": "A"},
        "validation_Math_1": {"question_type": "multiple-choice", "ground_truth": "C"},
    }
    answers = tmp_path / "answer_dict_val.json"
    answers.write_text(json.dumps(right))
    samples, notes = told(path, answer_key=str(answers))
    assert [s.label for s in samples] == ["A", "7"]
    assert json.loads(str(samples[1].attributes["answers"])) == ["7", "VII"]
    assert "joined by id" in notes
    del right["validation_Art_Theory_1"]
    answers.write_text(json.dumps(right))
    with pytest.raises(DataError, match="none for 'validation_Art_Theory_1'"):
        read(path, answer_key=str(answers))
    answers.write_text("[1]")
    with pytest.raises(DataError, match="no file of MMMU's answers"):
        read(path, answer_key=str(answers))


def test_the_test_split_has_no_answers(tmp_path: Path) -> None:
    (sample,), notes = told(parquet(tmp_path / "t.parquet", [row(1, answer="?")]))
    assert sample.label is None
    assert "1 question without an answer" in notes


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"answer": "F"}, "one of the letters A, B"),
        ({"options": "['a'"}, "a list of options"),
        ({"options": "{'a': 1}"}, "a list of options"),
        ({"options": "[]"}, "a list of options"),
        ({"question": ""}, "question"),
        ({"question_type": None}, "one of multiple-choice, open"),
        ({"options": str(list(range(27)))}, "at most 26 options"),
        ({"id": None}, "id"),
        ({"question": "<image 4>?"}, "names <image 4>, but has 1 images"),
    ],
)
def test_malformed_rows_name_their_place(tmp_path: Path, cells: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(parquet(tmp_path / "bad.parquet", [row(1, **cells)]))


def test_other_tables_are_refused_with_both_forms(tmp_path: Path) -> None:
    path = tsv(
        tmp_path / "POPE.tsv", {"index": "1", "image": b64(1), "question": "?", "answer": "Yes"}
    )
    with pytest.raises(DataError, match="in none of the forms of MMMU") as error:
        read(path)
    assert "hub columns" in error.value.hint
    assert "VLMEvalKit's table" in error.value.hint
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"it has notes\.txt"):
        read(tmp_path / "empty")
    with pytest.raises(DataError):
        read(tmp_path / "missing.parquet")


# ----------------------------------------------------------------------------- prompts


def test_images_stand_where_they_are_named(tmp_path: Path) -> None:
    samples, notes = told(parquet(tmp_path / "val.parquet"))
    assert reds(samples[0]) == [1]
    assert samples[0].prompt.startswith(
        f"Look at {IMAGE_MARK}. Which one?\n(A) red\n(B) it's blue\n"
    )
    third = samples[2]
    assert reds(third) == [3, 32, 33, 32], "an image that is named twice stands twice"
    assert third.prompt.count(IMAGE_MARK) == 4
    assert f"(B) {IMAGE_MARK}\n" in third.prompt
    assert (reds(samples[3]), samples[3].prompt.count(IMAGE_MARK)) == ([4], 0)
    assert "in 4 prompts the images stand where" in notes
    assert "images_at=before" in notes
    assert "1 prompt without a place for images, for example" in notes
    assert "left out: 1 image that no prompt names" in notes


def test_images_before_the_prompt(tmp_path: Path) -> None:
    samples, notes = told(parquet(tmp_path / "val.parquet"), images_at="before")
    assert reds(samples[2]) == [3, 32, 33], "each once, by number"
    assert "(A) <image 2>\n" in samples[2].prompt
    assert not any(IMAGE_MARK in s.prompt for s in samples)
    assert "stays as text" in notes


def test_styles_of_prompts(tmp_path: Path) -> None:
    path = parquet(tmp_path / "val.parquet", ROWS[:2])
    look = f"Look at {IMAGE_MARK}. Which one?"
    many = f"How many?{IMAGE_MARK}"
    letter = "Answer with the option's letter from the given choices directly."
    short = "Answer the question using a single word or phrase."
    wanted = {
        "official": (f"{look}\n(A) red\n(B) it's blue\n\n{letter}", f"{many}\n{short}"),
        "lmms-eval": (f"{look}\nA. red\nB. it's blue\n\n{letter}", f"{many}\n\n{short}"),
        "lmms-eval-qwen": (
            f"Question: {look}\nOptions:\nA. red\nB. it's blue\n"
            "Answer with the option letter only.",
            f"Question: {many}\nOptions:\n\nPlease answer the question directly.",
        ),
        "vlmevalkit": (
            f"Question: {look}\nOptions:\nA. red\nB. it's blue\n"
            "Please select the correct answer from the options above. \n",
            f"Question: {many}\n",
        ),
        "none": (look, many),
        " Say it.": (f"{look} Say it.", f"{many} Say it."),
    }
    for style, prompts in wanted.items():
        assert tuple(s.prompt for s in read(path, prompt=style)) == prompts, style
    with pytest.raises(SpecError, match="no prompt style"):
        read(path, prompt="llama")


def test_prompts_of_the_users_keep_all_images(tmp_path: Path) -> None:
    path = parquet(tmp_path / "val.parquet", ROWS[2:3])
    (one,) = read(path, "What is this?")
    assert (one.prompt, reds(one)) == ("What is this?", [3, 32, 33, 35])
    two = read(path, "What?", "Which <image 5>?")
    assert [(s.id[-2:], reds(s)) for s in two] == [("#0", [3, 32, 33, 35]), ("#1", [35])]


def test_all_subjects_have_a_discipline() -> None:
    assert len(SUBJECTS) == len(set(SUBJECTS)) == 30
