"""lmms-eval's logs: every version's layout, joined by id, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.unit._pope_files import hub_rows, rows, write_official

from vlmlens.errors import DataError, DataNotFound, SpecError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import answered, scored
from vlmlens_plugins.benchmarks.lmms_eval import LmmsEval, LmmsEvalOptions
from vlmlens_plugins.benchmarks.lmms_eval.joining import fits
from vlmlens_plugins.benchmarks.lmms_eval.log import Logged, logged, task_in
from vlmlens_plugins.benchmarks.lmms_eval.tasks import task_of
from vlmlens_plugins.benchmarks.pope import CARD

SUFFIX = "\nAnswer the question using a single word or phrase."
FEW = 5
TASKS = {"adversarial": "pope_adv", "popular": "pope_pop", "random": "pope_random"}


def answer_to(question: str) -> str:
    """An answer that is different for different questions."""
    return f"Yes, {question.rsplit(' a ', maxsplit=1)[-1]}"


def entry(number: int, row: Mapping[str, Any], version: str) -> dict[str, Any]:
    """A line as a version of lmms-eval writes it."""
    question = str(row.get("text") or row["question"])
    label = row.get("label") or row["answer"]
    answer, asked = answer_to(question), question + SUFFIX
    score = {"question_id": str(row["question_id"]), "score": 1.0, "ground_truth": label}
    known = {"doc_id": number, "target": label, "pope_accuracy": score, "pope_f1_score": score}
    doc = {"question_id": str(row["question_id"]), "question": question, "answer": label}
    doc |= {"category": row["category"]} if "category" in row else {}
    if version == "0.1":
        arguments = [[asked, number, "pope", "test"]]
        return {**known, "doc": doc, "arguments": arguments, "resps": [[answer]],
                "filtered_resps": [answer]}  # fmt: skip
    if version == "0.2":
        arguments = {"gen_args_0": {"arg_0": asked, "arg_1": {"max_new_tokens": 128}}}
        return {**known, "doc": doc, "arguments": arguments, "resps": [[answer]],
                "filtered_resps": [answer], "doc_hash": "a"}  # fmt: skip
    if version == "0.3":
        return {**known, "doc": doc, "arguments": {"0": asked[0]}, "input": asked,
                "resps": [[answer]], "filtered_resps": [answer]}  # fmt: skip
    if version == "0.5":
        return {**known, "input": asked, "filtered_resps": [answer], "doc_hash": "a"}
    return {**known, "input": asked, "filtered_resps": answer, "token_counts": [None],
            "resps": [f"<think>hm</think>{answer}"]}  # fmt: skip


VERSIONS = ("0.1", "0.2", "0.3", "0.5", "0.7")


def write(path: Path, made: Sequence[Mapping[str, Any]]) -> Path:
    if path.suffix == ".json":
        document = {"args": {"model": "llava"}, "model_configs": {"task": "pope"}, "logs": made}
        path.write_text(json.dumps(document))
    else:
        path.write_text("".join(json.dumps(line) + "\n" for line in made))
    return path


def log_of(folder: Path, version: str, split: str = "adversarial", images: int = FEW) -> Path:
    made = [entry(i, row, version) for i, row in enumerate(rows(split, images=images))]
    name = {
        "0.1": f"{TASKS[split]}.json",
        "0.2": f"samples_{TASKS[split]}_2024-09-02T10-11-12.345.jsonl",
    }
    return write(folder / name.get(version, f"20250102_030405_samples_{TASKS[split]}.jsonl"), made)


def read(source: Path, **options: Any) -> Sequence[Sample]:
    return LmmsEval(str(source), LmmsEvalOptions(**options)).samples([])


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_official(tmp_path_factory.mktemp("pope") / "coco", images=FEW)


# ------------------------------------------------------------------------------------- joining


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_is_joined_by_id(version: str, coco: Path, tmp_path: Path) -> None:
    samples = read(log_of(tmp_path, version), benchmark=f"pope:{coco}")
    assert [sample.id for sample in samples] == [f"adversarial/{i}" for i in range(1, 31)]
    for sample in samples:
        question = sample.prompt.removesuffix(SUFFIX)
        assert question != sample.prompt
        assert sample.attributes["answer"] == answer_to(question)
        assert sample.images[0].startswith(str(coco))
    one = samples[0]
    assert one.attributes["benchmark"] == "pope"
    assert one.attributes["lmms_eval_task"] == "pope_adv"
    assert one.attributes["prompt_style"] == "lmms-eval"
    assert (one.task, one.label) == ("adversarial", "yes")


def test_the_style_is_that_of_all_prompts_or_none(coco: Path, tmp_path: Path) -> None:
    path = log_of(tmp_path, "0.7")
    made = [json.loads(line) for line in path.read_text().splitlines()]
    for suffix, style in ((" Yes or no?", " Yes or no?"), ("", "official"), ("Well?", "")):
        asked = [{**one, "input": one["input"].removesuffix(SUFFIX) + suffix} for one in made]
        sample = read(write(path, asked), benchmark=f"pope:{coco}")[0]
        assert sample.attributes["prompt_style"] == style
    mixed = [{**asked[0], "input": asked[0]["input"] + " Now."}, *made[1:]]
    sample = read(write(path, mixed), benchmark=f"pope:{coco}")[0]
    assert sample.attributes["prompt_style"] == ""


def test_logged_answers_are_not_those_to_other_prompts(coco: Path, tmp_path: Path) -> None:
    options = LmmsEvalOptions(benchmark=f"pope:{coco}")
    dataset = LmmsEval(str(log_of(tmp_path, "0.7")), options)
    samples = dataset.samples(["What is this?"])
    assert samples[0].prompt == "What is this?"
    assert "answer" not in samples[0].attributes
    assert any("the logged answers are left out" in note for note in dataset.notes)


def test_lines_in_another_order_give_the_same(coco: Path, tmp_path: Path) -> None:
    """Several processes write their parts one behind the other."""
    path = log_of(tmp_path, "0.7")
    right = {s.id: s.attributes["answer"] for s in read(path, benchmark=f"pope:{coco}")}
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[::2] + lines[1::2]))
    assert {s.id: s.attributes["answer"] for s in read(path, benchmark=f"pope:{coco}")} == right


def test_a_folder_with_the_three_splits(coco: Path, tmp_path: Path) -> None:
    for split in TASKS:
        log_of(tmp_path, "0.7", split)
    samples = read(tmp_path, benchmark=f"pope:{coco}")
    assert len({sample.id for sample in samples}) == 90
    right = sum(sample.label == "yes" for sample in samples)
    texts = [str(sample.attributes["answer"]) for sample in samples]
    found = scored(CARD.metrics, samples, answered(texts, samples, CARD.rules["strict"]))
    assert found["mean_accuracy"] == pytest.approx(100 * right / 90)


def test_the_pool_of_all_splits_is_joined_by_the_number_of_the_hubs_row(tmp_path: Path) -> None:
    made = list(hub_rows(images=FEW))
    hub = write(tmp_path / "test.jsonl", made)
    log = write(
        tmp_path / "20250102_030405_samples_pope.jsonl",
        [entry(i, row, "0.7") for i, row in enumerate(made)],
    )
    samples = read(log, benchmark=f"pope:{hub}", images=str(tmp_path))
    assert len(samples) == 90
    for sample in samples:
        assert sample.attributes["answer"] == answer_to(sample.prompt.removesuffix(SUFFIX))


def test_the_pool_is_not_joined_with_files_that_have_another_order(
    coco: Path, tmp_path: Path
) -> None:
    made = [entry(i, row, "0.7") for i, row in enumerate(hub_rows(images=FEW))]
    log = write(tmp_path / "20250102_030405_samples_pope.jsonl", made)
    with pytest.raises(DataError, match=r"Only \d+ of 90 answers of pope have their question"):
        read(log, benchmark=f"pope:{coco}")
    with_rows = [entry(i, row, "0.3") for i, row in enumerate(hub_rows(images=FEW))]
    log = write(tmp_path / "20250102_030405_samples_pope.jsonl", with_rows)
    assert len(read(log, benchmark=f"pope:{coco}")) == 90


def test_the_first_edition_is_joined_by_id_and_its_misprint_is_no_other_question(
    coco: Path, tmp_path: Path
) -> None:
    old = write_official(tmp_path / "coco", images=FEW, first=True)
    path = log_of(tmp_path, "0.7", "popular")
    samples = read(path, benchmark=f"pope:{old}")
    assert len(samples) == 30
    assert "imange" not in samples[0].prompt  # as it was asked
    with pytest.raises(DataError, match=r"Only \d+ of 30 answers of pope_random"):
        read(log_of(tmp_path, "0.7", "random"), benchmark=f"pope:{old}")


def test_gaps_and_extras_are_errors(coco: Path, tmp_path: Path) -> None:
    path = log_of(tmp_path, "0.7")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:12]))
    with pytest.raises(DataError, match="18 of 30 questions have no answer in the log, for exam"):
        read(path, benchmark=f"pope:{coco}")
    assert len(read(path, benchmark=f"pope:{coco}", partial=True)) == 12
    more = log_of(tmp_path, "0.7", images=FEW + 1)
    with pytest.raises(DataError, match="Only 30 of 36 answers of pope_adv"):
        read(more, benchmark=f"pope:{coco}")


@pytest.mark.parametrize(
    ("question", "asked", "same"),
    [
        ("Is it red? Please answer yes or no.", "Is it red?\nAnswer with one word.", True),
        ("What is in <image 1>?", "<image>\nWhat is in <image>?\nA. x", True),
        ("Is there a dog in the imange?", "Is there a dog in the image?", True),
        ("Is there a dog?", "Is there a cat?", False),
        ("Is a dog a dog?", "Is a dog here?", False),
    ],
)
def test_a_question_is_known_by_its_words(question: str, asked: str, same: bool) -> None:
    answer = Logged("mme", 0, (), {}, asked, "yes", "yes", 1, "line 1")
    assert fits(Sample("1", question, label="yes"), answer) is same


def test_another_question_or_label_under_an_id_is_seen(coco: Path, tmp_path: Path) -> None:
    path = log_of(tmp_path, "0.7")
    made = [json.loads(line) for line in path.read_text().splitlines()]
    for change in ({"input": "Is there a zebra in the image?"}, {"target": "no"}):
        write(path, [{**made[0], **change}, *made[1:]])
        with pytest.raises(DataError, match="Only 29 of 30 answers"):
            read(path, benchmark=f"pope:{coco}")


def test_the_prompt_may_be_the_benchmarks(coco: Path, tmp_path: Path) -> None:
    path = log_of(tmp_path, "0.7")
    own = read(path, benchmark=f"pope:{coco}", prompt="vcd")[0]
    assert own.prompt.endswith(" Please answer this question with one word.")
    assert own.attributes["prompt_style"] == "vcd"
    with pytest.raises(SpecError, match="pope_adv is a task of pope, but the benchmark is hpope"):
        read(path, benchmark=f"hpope:{tmp_path}")


# --------------------------------------------------------------------------------- without the set


@pytest.mark.parametrize("version", VERSIONS)
def test_a_log_alone_gives_questions_without_images(version: str, tmp_path: Path) -> None:
    dataset = LmmsEval(str(log_of(tmp_path, version)), LmmsEvalOptions())
    samples = dataset.samples([])
    assert len(samples) == 30
    assert not samples[0].images
    assert (samples[0].label, samples[0].choices) == ("yes", ("yes", "no"))
    assert samples[0].prompt.endswith(SUFFIX)
    assert samples[0].attributes["split"] == "adversarial"
    assert any("30 of 30 samples have no image" in note for note in dataset.notes)
    texts = [str(sample.attributes["answer"]) for sample in samples]
    found = scored(CARD.metrics, samples, answered(texts, samples, CARD.rules["strict"]))
    assert found["mean_accuracy"] == 50.0


def test_a_log_that_names_images_finds_them(tmp_path: Path) -> None:
    made = [
        {
            "doc_id": i,
            "doc": {"image_source": f"x{i}", "question": "?"},
            "target": "B",
            "input": "Which one?",
            "filtered_resps": "A",
        }
        for i in range(2)
    ]
    path = write(tmp_path / "20250102_030405_samples_other.jsonl", made)
    samples = read(path, images=str(tmp_path))
    assert samples[1].images == (str(tmp_path / "x1.jpg"),)
    assert samples[1].group == "x1"
    assert "benchmark" not in samples[0].attributes


def test_of_several_answers_the_first_is_read_and_that_is_said(tmp_path: Path) -> None:
    made = [{"doc_id": 0, "input": "?", "target": "yes", "filtered_resps": [["no", "yes"]]}]
    dataset = LmmsEval(str(write(tmp_path / "samples_x.jsonl", made)), LmmsEvalOptions())
    assert dataset.samples([])[0].attributes["answer"] == "no"
    assert any("1 questions have several answers" in note for note in dataset.notes)


# -------------------------------------------------------------------------------------- faults

LINE = {"doc_id": 0, "input": "?", "target": "yes", "filtered_resps": "yes"}
BAD: list[tuple[list[dict[str, Any]], str]] = [
    ([{"question_id": 1, "text": "yes"}], "no doc_id; there are question_id, text"),
    ([{**LINE, "doc_id": "0"}], "no doc_id"),
    ([LINE, {**LINE, "filtered_resps": "no"}], "a second answer to doc_id 0; the first is in line"),
    ([{**LINE, "filtered_resps": [["-0.5", "True"], ["-2", "False"]]}], "expected a text"),
    ([{**LINE, "filtered_resps": [[-0.5, True]]}], "expected a text"),
    ([{**LINE, "filtered_resps": [], "resps": []}], "expected a text"),
    ([{"doc_id": 0, "filtered_resps": "yes"}], "neither the prompt nor the question is logged"),
]


@pytest.mark.parametrize(("made", "told"), BAD, ids=lambda value: str(value)[:40])
def test_other_files_are_refused(made: list[dict[str, Any]], told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        read(write(tmp_path / "20250102_030405_samples_pope_adv.jsonl", made))


def test_other_places_are_refused(coco: Path, tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"has no file \*_samples_\*"):
        read(tmp_path)
    (tmp_path / "log.txt").write_text("")
    with pytest.raises(DataNotFound, match="is no log of lmms-eval"):
        read(tmp_path / "log.txt")
    with pytest.raises(DataError, match="has no answers"):
        read(write(tmp_path / "samples_a.jsonl", []))
    for day in (1, 2):
        write(tmp_path / f"2025010{day}_030405_samples_pope.jsonl", [LINE])
    (tmp_path / "samples_a.jsonl").unlink()
    with pytest.raises(DataError, match="are both logs of pope"):
        read(tmp_path)
    path = log_of(tmp_path, "0.7")
    with pytest.raises(DataError, match="has no part 'adversarial'"):
        read(path, benchmark=f"pope:{coco / 'coco_pope_random.json'}")


@pytest.mark.parametrize(
    ("task", "benchmark"),
    [
        ("pope", "pope"),
        ("mme", "mme"),
        ("mmerealworld", ""),
        ("mmmu_val", "mmmu"),
        ("mmmu_pro_vision", ""),
        ("hallusion_bench_image", "hallusionbench"),
        ("videomme_w_subtitle", "videomme"),
        ("videomme_v2", ""),
        ("gsm8k", ""),
    ],
)
def test_tasks_are_known_by_name(task: str, benchmark: str) -> None:
    assert task_of(task).benchmark == benchmark
    assert task_in(Path(f"20250102_030405_samples_{task}.jsonl")) == task
    assert task_in(Path(f"samples_{task}_2024-09-02T10-11-12.345.jsonl")) == task


def test_what_was_scored_is_read_and_not_the_raw_text(tmp_path: Path) -> None:
    """Reasoning is cut off before scoring."""
    assert not any("<think>" in one.answer for one in logged(log_of(tmp_path, "0.7")))
