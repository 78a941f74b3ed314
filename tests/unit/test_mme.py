"""MME: the official layout in full size, hub columns, VLMEvalKit's table, three rules, scores."""

from __future__ import annotations

import base64
import math
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from vlmlens.errors import DataError, ManifestError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import BenchmarkOptions, answered, intervals, scored
from vlmlens_plugins.benchmarks.mme import CARD, Mme
from vlmlens_plugins.benchmarks.mme.asked import COGNITION, PERCEPTION, SUFFIX, TASKS
from vlmlens_plugins.benchmarks.mme.checks import SPLIT_TASKS, write_task

QUESTIONS = dict.fromkeys(("existence", "count", "position", "color"), 60)
QUESTIONS |= {"posters": 294, "celebrity": 340, "scene": 400, "landmark": 400, "artwork": 400}
QUESTIONS |= {"OCR": 40, "commonsense_reasoning": 140, "numerical_calculation": 40}
QUESTIONS |= {"text_translation": 40, "code_reasoning": 40}
"""Published numbers of questions: two on each image."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authors' folders, all images being one tiny file."""
    top = tmp_path_factory.mktemp("mme") / "MME_Benchmark_release_version"
    top.mkdir()
    Image.new("RGB", (6, 4)).save(top / "one.png")
    for task, questions in QUESTIONS.items():
        names = [f"{number:04}.png" for number in range(1, questions // 2 + 1)]
        write_task(top, task, names)
        inner = top / task / "images" if task in SPLIT_TASKS else top / task
        inner.mkdir(exist_ok=True)
        for name in names:
            os.link(top / "one.png", inner / name)
    return top.parent


@pytest.fixture(scope="module")
def full(folder: Path) -> list[Sample]:
    return read(folder)


def read(source: Path | str, **options: Any) -> list[Sample]:
    return list(Mme(str(source), BenchmarkOptions(**options)).samples(()))


def score(samples: list[Sample], texts: str | list[str], rule: str = "strict") -> dict[str, float]:
    said = [texts] * len(samples) if isinstance(texts, str) else texts
    return scored(CARD.metrics, samples, answered(said, samples, CARD.rule(rule)))


def by_task(samples: list[Sample], texts: list[str]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    assert CARD.task_metrics is not None
    for task in TASKS:
        own = [(s, t) for s, t in zip(samples, texts, strict=True) if s.task == task]
        asked, said = [s for s, _ in own], [t for _, t in own]
        found[task] = scored(CARD.task_metrics, asked, answered(said, asked, CARD.rule("strict")))
    return found


def test_the_official_layout(folder: Path, full: list[Sample]) -> None:
    made = Mme(str(folder), BenchmarkOptions())
    assert list(made.samples(())) == full
    (edition,) = made.notes
    assert "2,374 questions on 1,187 images in 14 tasks (all of MME); official files" in edition
    assert {task: sum(s.task == task for s in full) for task in TASKS} == QUESTIONS
    assert len({sample.split_group for sample in full}) == 1187
    assert [sample.id for sample in full if sample.task == "OCR"][:3] == [
        "OCR/0001.png/1",
        "OCR/0001.png/2",
        "OCR/0002.png/1",
    ]
    assert read(folder / "MME_Benchmark_release_version") == full
    scene = read(folder / "MME_Benchmark_release_version" / "scene")
    assert [s.id for s in scene] == [sample.id for sample in full if sample.task == "scene"]


@pytest.mark.parametrize("rule", list(CARD.rules))
@pytest.mark.parametrize("text", ["yes", "no"])
def test_constant_answers(full: list[Sample], rule: str, text: str) -> None:
    found = score(full, text, rule)
    assert (found["perception"], found["cognition"], found["total"]) == (500, 200, 700)
    assert (found["acc"], found["acc_plus"]) == (50, 0)


def test_right_answers_reach_the_maximum(full: list[Sample]) -> None:
    found = score(full, [str(sample.label) for sample in full])
    assert (found["perception"], found["cognition"]) == (2000, 800)
    assert score(full, "other")["total"] == 0


def test_scores_by_hand(full: list[Sample]) -> None:
    """All right on even images of a task, the first question only on odd ones: acc+ is 50."""
    texts = []
    for sample in full:
        _, name, number = sample.id.split("/")
        even = int(name[:4]) % 2 == 0
        texts.append(str(sample.label) if even or number == "1" else "perhaps")
    tasks = by_task(full, texts)
    for task, questions in QUESTIONS.items():
        images = questions // 2
        both = images // 2
        assert tasks[task]["acc"] == pytest.approx(100 * (images + both) / questions)
        assert tasks[task]["acc_plus"] == pytest.approx(100 * both / images)
        assert tasks[task]["score"] == pytest.approx(tasks[task]["acc"] + tasks[task]["acc_plus"])
    found = score(full, texts)
    assert found["perception"] == pytest.approx(sum(tasks[t]["score"] for t in PERCEPTION))
    assert found["cognition"] == pytest.approx(sum(tasks[t]["score"] for t in COGNITION))
    assert found["perception"] != pytest.approx(10 * (found["acc"] + found["acc_plus"])), (
        "tasks weigh alike, whatever their size"
    )


def test_a_part_of_the_tasks_has_no_total(full: list[Sample]) -> None:
    some = [sample for sample in full if sample.task != "count"]
    found = score(some, "yes")
    assert math.isnan(found["perception"])
    assert math.isnan(found["total"])
    assert found["cognition"] == 200


def test_an_image_with_one_question_is_not_one_with_both_right(full: list[Sample]) -> None:
    cut = [sample for sample in full if sample.task == "existence"][:7]
    texts = [str(sample.label) for sample in cut]
    assert by_task(cut + [s for s in full if s.task != "existence"], texts + ["yes"] * 2314)[
        "existence"
    ] == {"acc": 100, "acc_plus": 100, "score": 200}
    only = scored(CARD.task_metrics, cut[:1], answered(["yes"], cut[:1], CARD.rule("strict")))  # type: ignore[arg-type]
    assert math.isnan(only["acc_plus"])


def test_intervals_are_over_images(full: list[Sample]) -> None:
    answers = answered(["yes"] * len(full), full, CARD.rule("strict"))
    drawn = intervals(CARD.metrics, full, answers, draws=50, rng=np.random.default_rng(0))
    assert drawn["perception"] == (500, 500), "both questions of an image come together"


@pytest.mark.parametrize(
    ("text", "strict", "official", "lmms_eval", "vlmevalkit"),
    [
        ("Yes.", "yes", "yes", "yes", "yes"),
        ("NO", "no", "no", "no", "no"),
        ("No\n", "no", "no", "no", "no"),
        ("There isn't a dog.", None, None, None, None),
        ("Yes, there is no other cat.", "yes", "yes", "yes", None),
        ("I don't know.", None, None, None, None),
        ("", None, None, None, None),
        ("Not sure", None, "no", "no", None),
        ("  Yes", "yes", None, "yes", "yes"),
        ("y", None, None, "yes", None),
        ("n.", None, None, "no", None),
        ("...no", "no", None, "no", "no"),
        ("It is no cat.", None, None, None, "no"),
        ("A: No", None, None, None, "no"),
        ("Eyes", None, "yes", "yes", None),
    ],
)
def test_rules(
    text: str,
    strict: str | None,
    official: str | None,
    lmms_eval: str | None,
    vlmevalkit: str | None,
) -> None:
    """The facts' table, and texts on which the toolkits part."""
    asked = Sample("1", "?", label="no")
    found = {name: rule.read(text, asked) for name, rule in CARD.rules.items()}
    expected = (strict, official, lmms_eval, vlmevalkit)
    assert tuple(found[n] for n in ("strict", "official", "lmms-eval", "vlmevalkit")) == expected


def test_prompts(folder: Path) -> None:
    scene = folder / "MME_Benchmark_release_version" / "scene"
    question = "Is there a 0001.png of Yes?"
    for style, prompt in {
        "official": question + " Please answer yes or no.",
        "vlmevalkit": question + " Please answer yes or no.",
        "lmms-eval": question + "\nAnswer the question using a single word or phrase.",
        "llava": question + "\nAnswer the question using a single word or phrase.",
        "lmms-eval-gpt4v": question + "\nAnswer the question with Yes or No.",
        "lmms-eval-qwen-vl": question + " Answer:",
        "none": question,
    }.items():
        assert read(scene, prompt=style)[0].prompt == prompt


def test_a_question_with_another_ending_is_asked_as_it_is(tmp_path: Path) -> None:
    write_task(tmp_path, "color", ("1.png",))
    (tmp_path / "color" / "1.txt").write_text(f"Is it red? \tYES\nIs it blue?{SUFFIX}\tno.\n\n")
    Image.new("RGB", (6, 4)).save(tmp_path / "color" / "1.png")
    made = Mme(str(tmp_path), BenchmarkOptions())
    odd, usual = made.samples(())
    assert (odd.prompt, odd.label) == ("Is it red?", "yes")
    assert (usual.prompt, usual.label) == (f"Is it blue?{SUFFIX}", "no")
    assert any("1 of 2 questions do not end in" in note for note in made.notes)
    assert any("totals are not known" in note for note in made.notes)
    assert read(tmp_path, prompt="lmms-eval")[0].prompt.startswith("Is it red?\nAnswer")


def png(red: int) -> bytes:
    sink = BytesIO()
    Image.new("RGB", (6, 4), (red, 0, 0)).save(sink, "PNG")
    return sink.getvalue()


def test_hub_columns_and_vlmevalkits_table(tmp_path: Path) -> None:
    """Both have the same ids and groups as the folders; VLMEvalKit's second row names the first."""
    made: list[dict[str, Any]] = []
    lines = ["index\timage_path\tcategory\tquestion\tanswer\timage"]
    for i, (task, name) in enumerate((("code_reasoning", "0020.png"), ("OCR", "0001.jpg"))):
        for label in ("Yes", "No"):
            question = f"Is it {label}?{SUFFIX}"
            cell = base64.b64encode(png(i)).decode() if label == "Yes" else str(2 * i)
            path = f"{task}/images/{name}"
            lines.append("\t".join((str(len(made)), path, task, question, label, cell)))
            row = {"question_id": f"{task}/{name}", "question": question, "answer": label}
            made.append({**row, "category": task, "image": {"bytes": png(i), "path": None}})
    (tmp_path / "MME.tsv").write_text("\n".join(lines))
    features = datasets.Features(
        {name: datasets.Value("string") for name in made[0]} | {"image": datasets.Image()}
    )
    columns = {name: [row[name] for row in made] for name in made[0]}
    table = datasets.Dataset.from_dict(columns, features=features)
    table.save_to_disk(tmp_path / "saved")
    table.to_parquet(tmp_path / "test.parquet")
    hub, parquet = read(tmp_path / "saved"), read(tmp_path / "test.parquet")
    kit = read(tmp_path / "MME.tsv")
    ids = [f"{n}/{k}" for n in ("code_reasoning/0020.png", "OCR/0001.jpg") for k in (1, 2)]
    for samples in (hub, parquet, kit):
        assert [sample.id for sample in samples] == ids
        assert [sample.label for sample in samples] == ["yes", "no"] * 2
        assert len({sample.split_group for sample in samples}) == 2
        assert len({sample.images for sample in samples}) == 2
        assert samples[0].open_images()[0].getpixel((0, 0)) == (0, 0, 0)


def test_only_files_are_taken_for_questions(tmp_path: Path) -> None:
    write_task(tmp_path, "count", ("1.png",))
    Image.new("RGB", (6, 4)).save(tmp_path / "count" / "1.png")
    (tmp_path / "count" / "2.txt").mkdir()
    os.mkfifo(tmp_path / "count" / "3.txt")
    (tmp_path / "count" / "._1.txt").write_bytes(b"\xff")
    assert [sample.id for sample in read(tmp_path)] == ["count/1.png/1", "count/1.png/2"]


@pytest.mark.parametrize("flat", [True, False])
def test_results_are_not_taken_for_questions(tmp_path: Path, flat: bool) -> None:
    path = tmp_path / "existence.txt"
    path.write_text("1.png\tIs it?\tYes\tYes, it is.\n" * 2)
    with pytest.raises(DataError, match="holds answers of a model"):
        read(tmp_path if flat else path)


def test_wrong_sources_give_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "pope.jsonl").write_text('{"question_id": 1, "text": "?", "label": "no"}\n')
    with pytest.raises(DataError, match="none of the forms of MME") as caught:
        read(tmp_path / "pope.jsonl")
    assert "official files" in caught.value.hint
    write_task(tmp_path, "count", ("1.png",))
    with pytest.raises(DataError, match=r"1\.txt: there is no image 1"):
        read(tmp_path)
    Image.new("RGB", (6, 4)).save(tmp_path / "count" / "1.png")
    (tmp_path / "count" / "1.txt").write_text("Is it?\tYes\nIs it?\tmaybe\n")
    with pytest.raises(ManifestError, match="line 2: expected a question, a tab, and Yes or No"):
        read(tmp_path)


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    write_task(tmp_path / "mme", "count", ("1.png",))
    Image.new("RGB", (6, 4)).save(tmp_path / "other.png")
    (tmp_path / "mme" / "count" / "1.png").symlink_to(tmp_path / "other.png")
    with pytest.raises(DataError, match="outside the folder"):
        read(tmp_path / "mme")
    assert len(read(tmp_path / "mme", allow_outside=True)) == 2


def test_vlmevalkit_drops_the_first_32_dots_only() -> None:
    """A flag stands where its code hands over how many to drop."""
    rule, asked = CARD.rule("vlmevalkit"), Sample("1", "?", label="no")
    assert rule.read("." * 32 + "no", asked) == "no"
    assert rule.read("." * 33 + "no", asked) is None
