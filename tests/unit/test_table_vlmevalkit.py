"""VLMEvalKit's tables without a benchmark's name: what the dataset `table` makes of them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlmlens.errors import DataError, ManifestError
from vlmlens.samples import Sample
from vlmlens_plugins.data.table import Table, TableOptions


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path / "cache"))


def b64(red: int, kind: str = "PNG") -> str:
    target = io.BytesIO()
    Image.new("RGB", (6, 4), (red, 0, 0)).save(target, kind)
    return base64.b64encode(target.getvalue()).decode()


def tsv(path: Path, *rows: Mapping[str, str]) -> Path:
    columns = list(dict.fromkeys(name for each in rows for name in each))
    lines = [columns, *([each.get(name, "") for name in columns] for each in rows)]
    path.write_text("\n".join("\t".join(line) for line in lines) + "\n", encoding="utf-8")
    return path


def told(path: Path, *prompts: str, **options: Any) -> tuple[list[Sample], str]:
    table = Table(str(path), TableOptions(**options))
    samples = list(table.samples(prompts))
    return samples, "\n".join(table.notes)


def reds(sample: Sample) -> list[int]:
    return [image.getpixel((0, 0))[0] for image in sample.open_images()]  # type: ignore[index]


def choice(index: int, **cells: str) -> dict[str, str]:
    return {
        "index": str(index),
        "question": "Which color?",
        "hint": "",
        "A": "red",
        "B": "blue",
        "C": "green",
        "answer": "B",
        "category": "attribute",
        "l2-category": "fine",
        "image": b64(index),
        **cells,
    }


def test_hint_category_and_choices(tmp_path: Path) -> None:
    path = tsv(
        tmp_path / "MMBench_DEV_EN.tsv",
        choice(1),
        choice(2, hint="The cube is left.", category="relation", C=""),
        choice(3, image="1", answer="C"),
    )
    samples, notes = told(path)
    assert [s.id for s in samples] == ["1", "2", "3"]
    assert [s.prompt for s in samples] == [
        "Which color?",
        "Hint: The cube is left.\nWhich color?",
        "Which color?",
    ]
    three = ("red", "blue", "green")
    assert [s.choices for s in samples] == [three, three[:2], three]
    assert [s.label for s in samples] == ["blue", "blue", "green"]
    assert [s.task for s in samples] == ["attribute", "relation", "attribute"]
    assert [reds(s) for s in samples] == [[1], [2], [1]]
    assert samples[0].attributes["l2-category"] == "fine"
    assert samples[1].attributes["hint"] == "The cube is left."
    assert "the column 'category' is read as 'task'" in notes
    assert "'hint' stand before the questions" in notes


def test_the_user_decides_what_category_is(tmp_path: Path) -> None:
    path = tsv(tmp_path / "x.tsv", choice(1), choice(2))
    samples, notes = told(path, columns={"task": None})
    assert {s.task for s in samples} == {None}
    assert samples[0].attributes["category"] == "attribute"
    assert "read as 'task'" not in notes
    samples, _ = told(path, columns={"task": "l2-category"})
    assert {s.task for s in samples} == {"fine"}


def test_other_tables_keep_category_and_hint_as_attributes(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(
        "index,question,answer,category,hint,image\n1,Which?,red,a,look,a.png\n"
    )
    (sample,), _ = told(tmp_path / "own.csv")
    assert (sample.prompt, sample.task) == ("Which?", None)
    assert sample.attributes == {"category": "a", "hint": "look"}


def test_the_choices_by_letters(tmp_path: Path) -> None:
    path = tsv(tmp_path / "x.tsv", choice(1, hint="Look."), choice(2, answer=""))
    samples, _ = told(path, ask="options")
    first, second = samples
    assert first.prompt == (
        "Hint: Look.\nWhich color?\nOptions:\nA. red\nB. blue\nC. green\n"
        "Please select the correct answer from the options above."
    )
    assert (first.choices, first.label) == (("A", "B", "C"), "B")
    assert json.loads(str(first.attributes["options"])) == ["red", "blue", "green"]
    assert second.label is None
    samples, _ = told(path, "What is it?", ask="options")
    assert (samples[0].prompt, samples[0].choices) == ("What is it?", ("red", "blue", "green"))


def test_lists_of_images_and_rows_that_name_them(tmp_path: Path) -> None:
    several = f"['{b64(7)}', '{b64(8, 'JPEG')}']"
    path = tsv(tmp_path / "x.tsv", choice(1, image=several), choice(2, image="1"))
    samples, _ = told(path)
    assert [len(s.images) for s in samples] == [2, 2]
    assert samples[0].images == samples[1].images
    assert reds(samples[0])[0] == 7


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (
            base64.b64encode(b"no picture at all, but long enough" * 4).decode(),
            "as base64 no image",
        ),
        (b64(1)[:70].replace("iVBOR", "xVBOR"), "as base64 no image"),
        ("17", "names the row with the index 17, which holds no image"),
        ("x" * 5_000, "no image in base64"),
    ],
)
def test_base64_is_never_taken_for_a_path(tmp_path: Path, cell: str, said: str) -> None:
    path = tsv(tmp_path / "x.tsv", choice(1), choice(2, image=cell))
    with pytest.raises(ManifestError, match=said) as error:
        told(path)
    assert "line 3" in str(error.value)
    assert "column 'image'" in str(error.value)


def test_files_are_still_found(tmp_path: Path) -> None:
    """A file whose name is a number, or long and without a dot, is a file."""
    long = "photo" * 20
    for name in ("17", long):
        Image.new("RGB", (4, 4), (9, 0, 0)).save(tmp_path / name, "PNG")
    path = tsv(tmp_path / "x.tsv", choice(1), choice(2, image="17"), choice(3, image=long))
    samples, _ = told(path)
    assert [reds(s) for s in samples] == [[1], [9], [9]]
    path = tsv(tmp_path / "y.tsv", choice(2, image="18"))
    (sample,), _ = told(path)
    assert sample.images == (str(tmp_path / "18"),), "without images in the table, a path"


# ----------------------------------------------------------------- tables of benchmarks


@pytest.mark.parametrize(
    ("rows", "command"),
    [
        (
            [{"index": "1", "question": "Is there a dog?", "answer": "Yes",
              "category": "adversarial,popular", "image": b64(1)}],
            "--data pope:",
        ),
        (
            [{"index": "1", "question": "Is it?", "answer": "No", "category": "OCR",
              "image_path": "OCR/1.png", "image": b64(1)},
             {"index": "2", "question": "Is it?", "answer": "No", "category": "existence",
              "image_path": "OCR/2.png", "image": "1"}],
            "--data mme:",
        ),
        (
            [{"index": "1", "question": "Is it?", "answer": "No", "category": "VD",
              "l2-category": "VD_math", "image": b64(1)}],
            "--data hallusionbench:",
        ),
        (
            [choice(1, question="Which is <image 1>?", category="Art")],
            "--data mmmu:",
        ),
    ],
)  # fmt: skip
def test_a_benchmarks_table_says_which_command_scores_it(
    tmp_path: Path, rows: list[dict[str, str]], command: str
) -> None:
    path = tsv(tmp_path / "table.tsv", *rows)
    samples, notes = told(path)
    assert len(samples) == len(rows)
    assert f"vlmlens run {command}{path} --analysis benchmark" in notes


def test_official_questions_of_pope_are_known(tmp_path: Path) -> None:
    asked = {"question_id": 1, "image": "COCO_val2014_000000016631.jpg", "text": "Is there a car?"}
    (tmp_path / "q.json").write_text(json.dumps({**asked, "label": "no"}) + "\n")
    _, notes = told(tmp_path / "q.json")
    assert f"--data pope:{tmp_path / 'q.json'}" in notes


@pytest.mark.parametrize("category", ["popular,other", "attribute", "OCR,nothing"])
def test_other_tables_are_not_taken_for_a_benchmark(tmp_path: Path, category: str) -> None:
    _, notes = told(tsv(tmp_path / "x.tsv", choice(1), choice(2, category=category)))
    assert "these look like" not in notes


def test_an_empty_table_is_refused_as_before(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("index\tquestion\tanswer\tcategory\timage\n")
    with pytest.raises(DataError, match="has no rows"):
        told(tmp_path / "x.tsv")
