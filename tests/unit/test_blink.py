"""BLINK: what is read of its forms, how it is asked, and how answers are read and scored."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
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

from vlmlens.errors import DataError, DataNotFound, SpecError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import BenchmarkOptions, answered, intervals, scored
from vlmlens_plugins.benchmarks.blink import Blink
from vlmlens_plugins.benchmarks.blink.card import CARD
from vlmlens_plugins.benchmarks.blink.tasks import TASKS

RIGHT: Mapping[str, tuple[int, ...]] = {
    "Art_Style": (55, 62),
    "Counting": (31, 28, 31, 30),
    "Forensic_Detection": (33, 35, 34, 30),
    "Functional_Correspondence": (28, 21, 43, 38),
    "IQ_Test": (30, 40, 40, 40),
    "Jigsaw": (79, 71),
    "Multi-view_Reasoning": (59, 74),
    "Object_Localization": (53, 69),
    "Relative_Depth": (64, 60),
    "Relative_Reflectance": (40, 42, 52),
    "Semantic_Correspondence": (45, 36, 25, 33),
    "Spatial_Relation": (77, 66),
    "Visual_Correspondence": (51, 33, 44, 44),
    "Visual_Similarity": (64, 71),
}
"""How often A, B, ... is right in each task of validation, as the authors' saved outputs say."""


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


def row(
    number: int, task: str = "Relative_Depth", split: str = "val", **cells: Any
) -> dict[str, Any]:
    """A row with the columns of the hub."""
    images: dict[str, Any] = {f"image_{n}": None for n in range(1, 5)}
    images["image_1"] = {"bytes": png(number), "path": None}
    return {
        "idx": f"{split}_{task}_{number}",
        "sub_task": task,
        "question": "Which point is nearer?",
        **images,
        "choices": ["A is nearer", "B is nearer"],
        "answer": "(B)",
        "prompt": f"Which point is nearer? ({task})\n(A) A is nearer\n(B) B is nearer",
        "explanation": "",
        **cells,
    }


THREE = {f"image_{n}": {"bytes": png(100 + n), "path": None} for n in (2, 3)}


def parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def told(source: Path | str, *prompts: str, **options: Any) -> tuple[list[Sample], str]:
    data = Blink(str(source), BenchmarkOptions(**options))
    samples = list(data.samples(prompts))
    return samples, "\n".join(data.notes)


def reds(sample: Sample) -> list[int]:
    return [image.getpixel((0, 0))[0] for image in sample.open_images()]  # type: ignore[index]


def hub_copy(folder: Path, tasks: Sequence[str]) -> Path:
    """A copy of a repository of the hub: a configuration per task, splits val and test."""
    for task in tasks:
        parquet(folder / task / "val-00000-of-00001.parquet", [row(1, task), row(2, task, **THREE)])
        hidden = row(1, task, "test", answer="hidden")
        parquet(folder / task / "test-00000-of-00001.parquet", [hidden])
    configs = "".join(
        f"- config_name: {task}\n  data_files:\n  - split: val\n    path: {task}/val-*\n"
        f"  - split: test\n    path: {task}/test-*\n"
        for task in tasks
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    return folder


def asked(label: str | None = "B", *options: str, task: str = "Relative_Depth") -> Sample:
    texts = options or ("A is nearer", "B is nearer")
    known = {"options": json.dumps(texts), "sub_task": task}
    letters = tuple("ABCD"[: len(texts)])
    return Sample("q", "Which?", (), label, letters, task=task, attributes=known)


# ------------------------------------------------------------------------------- forms


def test_hub_columns_in_a_parquet_file(tmp_path: Path) -> None:
    rows = [row(1), row(2, "Art_Style", **THREE, answer="(A)", explanation="See it.")]
    samples, notes = told(parquet(tmp_path / "val.parquet", rows))
    assert [s.id for s in samples] == ["val_Relative_Depth_1", "val_Art_Style_2"]
    assert [s.label for s in samples] == ["B", "A"]
    assert [s.task for s in samples] == ["Relative_Depth", "Art_Style"]
    assert [s.choices for s in samples] == [("A", "B")] * 2
    assert [reds(s) for s in samples] == [[1], [2, 102, 103]]
    assert samples[0].prompt == rows[0]["prompt"]
    assert samples[1].attributes["explanation"] == "See it."
    assert "explanation" not in samples[0].attributes
    assert json.loads(str(samples[0].attributes["options"])) == ["A is nearer", "B is nearer"]
    assert "val 2: 2 questions of 2 tasks; hub columns; sha256" in notes
    assert "1 question with several images" in notes


def test_a_folder_with_a_configuration_per_task(tmp_path: Path) -> None:
    folder = hub_copy(tmp_path / "BLINK", ("Art_Style", "Multi-view_Reasoning"))
    samples, notes = told(f"{folder}:val")
    assert Counter(s.task for s in samples) == {"Art_Style": 2, "Multi-view_Reasoning": 2}
    assert "4 questions of 2 tasks" in notes
    for source, options in (
        (f"{folder}:Multi-view_Reasoning:val", {}),
        (f"{folder}:val", {"subset": "Multi-view_Reasoning"}),
        (f"{folder}:Multi-view_Reasoning:val", {"subset": "Multi-view_Reasoning"}),
    ):
        found, _ = told(source, **options)
        assert [s.id for s in found] == [f"val_Multi-view_Reasoning_{n}" for n in (1, 2)]
    with pytest.raises(SpecError, match="'Art_Style', but subset=Jigsaw"):
        told(f"{folder}:Art_Style:val", subset="Jigsaw")
    with pytest.raises(DataError, match="several splits: val, test"):
        told(f"{folder}:Art_Style")
    with pytest.raises(DataError):
        told(f"{folder}:Jigsaw:val")


@pytest.mark.parametrize("hidden", ["hidden", "(hidden)", "", None])
def test_hidden_answers_are_said_and_not_scored(tmp_path: Path, hidden: str | None) -> None:
    rows = [row(1, split="test", answer=hidden), row(2, split="test", answer=hidden)]
    samples, notes = told(parquet(tmp_path / "test.parquet", rows))
    assert [s.label for s in samples] == [None, None]
    assert "2 questions whose answer is hidden (the test split): not scored" in notes
    assert "test 2" in notes


def test_the_table_of_vlmevalkit(tmp_path: Path) -> None:
    image, other = (base64.b64encode(png(n)).decode() for n in (7, 8))
    columns = ("index", "question", "A", "B", "C", "answer", "category", "split", "image")
    rows = (
        ("1", "Which point?", "one", "two", "", "B", "Relative_Depth", "none", image),
        (
            "2",
            "Which?",
            "x",
            "y",
            "z",
            "A",
            "Relative Reflectance",
            "none",
            f"['{image}', '{other}']",
        ),
    )
    path = tmp_path / "BLINK.tsv"
    path.write_text("\n".join("\t".join(each) for each in (columns, *rows)) + "\n")
    samples, notes = told(path)
    assert [(s.id, s.label, s.task) for s in samples] == [
        ("1", "B", "Relative_Depth"),
        ("2", "A", "Relative_Reflectance"),
    ]
    assert [reds(s) for s in samples] == [[7], [7, 8]]
    assert samples[0].prompt == "Which point?\nSelect from the following choices.\n(A) one\n(B) two"
    assert "VLMEvalKit's table" in notes
    (kit, _), _ = told(path, prompt="vlmevalkit")
    assert kit.prompt == (
        "Question: Which point?\nOptions:\nA. one\nB. two\n"
        "Please select the correct answer from the options above. \n"
    )


def test_prompts_of_the_toolkits(tmp_path: Path) -> None:
    path = parquet(tmp_path / "val.parquet", [row(1)])
    own = row(1)["prompt"]
    (note,), _ = told(path, prompt="lmms-eval")
    begin = "Note: You only need to respond with A, B without providing any additional information."
    assert note.prompt == f"{begin}\n{own}"
    (letter,), _ = told(path, prompt="lmms-eval-letter")
    assert letter.prompt == (
        f"{own}\nAnswer with the option's letter from the given choices directly."
    )
    (bare,), _ = told(path, prompt="none")
    assert bare.prompt == "Which point is nearer?"
    (mine,), notes = told(path, "Nearer?")
    assert mine.prompt == "Nearer?"
    assert "--prompt replaces the questions of BLINK" in notes


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"answer": "(E)"}, "letters A, B"),
        ({"choices": ["one"]}, "two options"),
        ({"choices": []}, "two options"),
        ({"idx": ""}, "idx"),
        ({"question": None}, "question"),
        ({"choices": [str(n) for n in range(30)]}, "26"),
    ],
)
def test_malformed_rows_are_refused(tmp_path: Path, cells: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        told(parquet(tmp_path / "val.parquet", [row(1, **cells)]))


def test_what_is_not_blink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("question,answer\nWhat?,A\n")
    with pytest.raises(DataError, match="none of the forms of BLINK"):
        told(tmp_path / "other.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="it has nothing"):
        told(tmp_path / "empty")
    with pytest.raises(DataNotFound):
        told(tmp_path / "none.parquet")
    strange, notes = told(parquet(tmp_path / "s.parquet", [row(1, idx="7", sub_task="Chess")]))
    assert strange[0].task == "Chess"
    assert "no task of BLINK, so not in macro: Chess" in notes


# ------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("text", "strict", "official", "lmms", "kit"),
    [
        ("B", "B", "B", "B", "B"),
        ("(B)", "B", "B", "B", "B"),
        ("B. two dogs", "B", "B", "B", "B"),
        ("<s> B", None, "B", None, "B"),
        ("The answer is (B).", None, "B", "T", "B"),
        ("Based on the shade, (A)", None, "A", "B", "A"),
        ("(A) looks right. The correct answer is B", "A", "A", "A", "B"),
        ("Not (A). Therefore: (B)", None, "B", "N", None),
        ("The point that corresponds is A.", None, "A", "T", "A"),
        ("B is nearer", None, "B", "B", "B"),
        ("It cannot be told.", None, None, "I", None),
        ("", None, None, None, None),
        ("(Z)", None, None, "Z", None),
    ],
)
def test_rules(
    text: str, strict: str | None, official: str | None, lmms: str | None, kit: str | None
) -> None:
    sample = asked("B", "A is nearer", "B is nearer")
    found = [CARD.rule(name).read(text, sample) for name in ("strict", "official", "lmms-eval")]
    assert found == [strict, official, lmms]
    assert CARD.rule("vlmevalkit").read(text, sample) == kit


def test_letters_that_are_no_options_gain_nothing() -> None:
    sample = asked("B")
    (answer,) = answered(["The answer is (B)."], [sample], CARD.rule("lmms-eval"))
    assert (answer.said, answer.credit) == ("T", 0)
    assert CARD.rule("official").read("The answer is (D).", sample) is None


# ------------------------------------------------------------------------------- scores


@pytest.fixture(scope="module")
def validation() -> list[Sample]:
    """The 1,901 questions of validation, by their right answers."""
    made = []
    for task, counts in RIGHT.items():
        texts = tuple(f"option {letter}" for letter in "ABCD"[: len(counts)])
        labels = [letter for letter, n in zip("ABCD", counts, strict=False) for _ in range(n)]
        for number, label in enumerate(labels):
            sample = asked(label, *texts, task=task)
            made.append(
                Sample(
                    f"{task}_{number}",
                    "?",
                    (),
                    sample.label,
                    sample.choices,
                    task=task,
                    attributes=sample.attributes,
                    group=f"{task}_{number}",
                )
            )
    return made


def test_constants_score_what_the_card_says(validation: list[Sample]) -> None:
    assert len(validation) == 1901
    assert set(RIGHT) == set(TASKS)
    rule = CARD.rule("strict")
    for letter, macro, count in (("A", 37.5, 709), ("B", 37.8, 708)):
        found = scored(CARD.metrics, validation, answered([letter] * 1901, validation, rule))
        shares = [own[ord(letter) - 65] / sum(own) for own in RIGHT.values()]
        assert found["macro"] == pytest.approx(100 * sum(shares) / 14)
        assert round(found["macro"], 1) == macro
        assert found["micro"] == pytest.approx(100 * count / 1901)
        assert f"{macro} %" in CARD.shortcuts[0]
    chance = 100 * sum(1 / len(own) for own in RIGHT.values()) / 14
    assert round(chance, 1) == 38.1


def test_the_total_is_a_mean_over_tasks_not_over_questions(validation: list[Sample]) -> None:
    """All of Visual_Correspondence right and nothing else: one of 14 tasks, but 172 questions."""
    texts = [
        str(s.label) if s.task == "Visual_Correspondence" else "I cannot tell" for s in validation
    ]
    answers = answered(texts, validation, CARD.rule("strict"))
    found = scored(CARD.metrics, validation, answers)
    assert found["macro"] == pytest.approx(100 / 14)
    assert found["micro"] == pytest.approx(100 * 172 / 1901)
    part = [s for s in validation if s.task == "Jigsaw"]
    alone = scored(CARD.metrics, part, answered(["A"] * len(part), part, CARD.rule("strict")))
    assert alone["macro"] == alone["micro"] == pytest.approx(100 * 79 / 150)
    drawn = intervals(CARD.metrics, validation, answers, draws=50, rng=np.random.default_rng(0))
    assert drawn["macro"][0] <= found["macro"] <= drawn["macro"][1]
