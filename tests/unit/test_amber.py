"""AMBER: its forms, constant answers on files of full size, how questions are read."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from vlmlens.errors import DataError, DataNotFound, ManifestError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import answered, scored
from vlmlens_plugins.benchmarks.amber import CARD, Amber, captions
from vlmlens_plugins.benchmarks.amber.checks import ITEMS, AmberTableChecks, lists, official
from vlmlens_plugins.benchmarks.amber.forms import FORMS
from vlmlens_plugins.benchmarks.amber.metrics import Amber as Metrics

COUNTS = {
    ("generative", ""): 1004,
    ("discriminative-attribute-state", "yes"): 2382,
    ("discriminative-attribute-state", "no"): 2382,
    ("discriminative-attribute-number", "yes"): 1036,
    ("discriminative-attribute-number", "no"): 1036,
    ("discriminative-attribute-action", "yes"): 396,
    ("discriminative-attribute-action", "no"): 396,
    ("discriminative-hallucination", "no"): 4924,
    ("discriminative-relation", "yes"): 975,
    ("relation", "no"): 689,
}
"""What AMBER has, by type and answer."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


def dataset(source: Path | str, **options: Any) -> Amber:
    return Amber(str(source), Amber.Options(**options))


def read(source: Path | str, **options: Any) -> list[Sample]:
    return list(dataset(source, **options).samples(()))


def score(samples: list[Sample], texts: str | list[str], rule: str = "strict") -> dict[str, float]:
    chosen = CARD.rule(rule)
    texts = [texts] * len(samples) if isinstance(texts, str) else texts
    return scored(chosen.metrics or CARD.metrics, samples, answered(texts, samples, chosen))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """15,220 items in the authors' layout."""
    items = [
        {
            "type": kind,
            "image": number % 1004 + 1,
            "truth": answer or ["sky", "dog"],
            **({} if answer else {"hallu": ["sun", "ship"]}),
        }
        for (kind, answer), count in COUNTS.items()
        for number in range(count)
    ]
    folder = tmp_path_factory.mktemp("amber")
    data = lists(folder / "data")
    (data / "query").mkdir()
    queries = [
        {"id": i, "image": f"AMBER_{item['image']}.jpg", "query": "Describe this image."}
        for i, item in enumerate(items, start=1)
    ]
    annotations = [
        {"id": i, **{key: value for key, value in item.items() if key != "image"}}
        for i, item in enumerate(items, start=1)
    ]
    (data / "query" / "query_all.json").write_text(json.dumps(queries))
    (data / "annotations.json").write_text(json.dumps(annotations))
    return read(folder)


def test_the_edition_is_told_by_its_counts(full: list[Sample]) -> None:
    assert len(full) == 15_220
    edition = str(full[0].attributes["edition"])
    assert edition.startswith("15,220 of 15,220 items: 1,004 generative, 4,764 attribute/state")
    assert "4,924 existence, 1,664 relation" in edition
    assert "official files" in edition
    assert len({sample.split_group for sample in full}) == 1004


def test_constant_answers_in_full_size(full: list[Sample]) -> None:
    questions = [sample for sample in full if sample.label is not None]
    assert len(questions) == 14_216
    no = score(questions, "No")
    assert no["accuracy"] == no["precision"] == pytest.approx(100 * 9427 / 14216)
    assert no["recall"] == no["existence_accuracy"] == no["existence_f1"] == 100
    assert no["f1"] == pytest.approx(100 * 2 * 9427 / (14216 + 9427))
    assert no["attribute_accuracy"] == no["state_accuracy"] == no["number_accuracy"] == 50
    assert no["relation_accuracy"] == pytest.approx(100 * 689 / 1664)
    assert no["mean_accuracy"] == pytest.approx((100 + 50 + 100 * 689 / 1664) / 3)
    yes = score(questions, "Yes")
    assert yes["accuracy"] == pytest.approx(100 * 4789 / 14216)
    assert yes["recall"] == yes["f1"] == yes["existence_accuracy"] == 0
    assert yes["relation_accuracy"] == pytest.approx(100 * 975 / 1664)
    assert str(yes["precision"]) == str(yes["amber"]) == str(yes["chair"]) == "nan"
    assert (no["score"], yes["score"]) == (no["f1"], 0)


def test_who_says_no_to_everything_has_a_high_score(full: list[Sample]) -> None:
    no = score(full, "No")
    assert no["chair"] == no["cover"] == no["hal"] == no["cog"] == 0
    assert no["amber"] == no["score"] == pytest.approx((100 + 100 * 2 * 9427 / 23643) / 2)
    printed = {"chair": 0.0, "hal": 0.0}
    metrics = Metrics(captions.STRICT, printed=True)
    answers = answered(["No"] * len(full), full, CARD.rule("strict"))
    found = scored(metrics, full, answers)
    assert {name: found[name] for name in printed} == printed
    assert found["amber"] == pytest.approx((100 + 79.7) / 2)


def test_the_script_prints_one_decimal(full: list[Sample]) -> None:
    questions = [sample for sample in full if sample.label is not None]
    no = score(questions, "No", "official")
    assert {name: no[name] for name in ("accuracy", "precision", "recall", "f1")} == pytest.approx(
        {"accuracy": 66.3, "precision": 66.3, "recall": 100.0, "f1": 79.7}
    )
    assert no["existence_f1"] == pytest.approx(100.0)
    assert no["relation_f1"] == pytest.approx(58.6)
    yes = score(questions, "Yes", "official")
    assert yes["precision"] == yes["f1"] == 0
    assert score(questions, "No.", "official")["accuracy"] == 0


@pytest.mark.parametrize(("task", "f1"), [("existence", 0.1), ("relation", 0.2)])
def test_below_f1_stands_a_number_that_is_larger_for_existence(task: str, f1: float) -> None:
    # 1 right of 200 that say no (0.5 %), 1 found of 900 (0.1 %): 1e-5 / (0.006 + 0.001 or 0.0001)
    labels = ["no"] * 900 + ["yes"] * 199
    texts = ["No"] + ["Yes"] * 899 + ["No"] * 199
    samples = [Sample(str(i), "", label=label, task=task) for i, label in enumerate(labels)]
    found = score(samples, texts, "official")
    assert (found["precision"], found["recall"]) == (0.5, 0.1)
    assert found[f"{task}_f1"] == f1
    assert found["f1"] == 0.2


def test_the_score_is_of_both_halves(full: list[Sample]) -> None:
    texts = ["No" if sample.label else "A dog under the sky, a ship." for sample in full]
    found = score(full, texts)
    assert found["chair"] == pytest.approx(100 / 3)
    assert (found["cover"], found["hal"], found["cog"]) == (100, 100, 50)
    assert found["amber"] == pytest.approx((100 - found["chair"] + found["f1"]) / 2)
    right = [str(sample.label) if sample.label else "sky, dog" for sample in full]
    best = score(full, right)
    assert best["amber"] == best["f1"] == 100
    tasks = CARD.task_metrics
    assert tasks is not None
    written = [sample for sample in full if sample.label is None]
    answers = answered(["A dog, a ship."] * len(written), written, CARD.rule("strict"))
    found = scored(tasks, written, answers)
    assert found["score"] == 50
    assert list(found) == ["score", "chair", "cover", "hal", "cog"]
    asked = [sample for sample in full if sample.task == "existence"]
    found = scored(tasks, asked, answered(["No"] * len(asked), asked, CARD.rule("strict")))
    assert list(found) == ["score", "accuracy", "precision", "recall", "f1"]
    assert set(found.values()) == {100}


@pytest.mark.parametrize(
    ("text", "strict", "authors", "lmms", "kit"),
    [
        ("Yes", "yes", "yes", "yes", "yes"),
        ("No", "no", "no", "no", "no"),
        ("no", "no", None, "no", "no"),
        ("No.", "no", None, "no", "no"),
        ("Yes, there is no other cat.", "yes", None, "yes", None),
        ("I do not know.", None, None, "no", None),
        ("There isn't.", None, None, None, None),
        ("Nothing", None, None, "no", None),
        ("The eyes are closed", None, None, "yes", None),
        ("The answer is no", None, None, "no", "no"),
        ("", None, None, None, None),
        (" Yes", "yes", None, "yes", "yes"),
    ],
)
def test_questions_are_read_by_four_rules(
    text: str, strict: str | None, authors: str | None, lmms: str | None, kit: str | None
) -> None:
    asked = Sample("1", "Is there a dog?", label="no", choices=("yes", "no"), task="existence")
    rules = ("strict", "official", "lmms-eval", "vlmevalkit")
    found = [CARD.rule(rule).read(text, asked) for rule in rules]
    assert found == [strict, authors, lmms, kit]


@pytest.mark.parametrize(
    "place", ["", "data", "data/query/query_all.json", "data/annotations.json"]
)
def test_the_authors_files_are_found_from_any_place(place: str, tmp_path: Path) -> None:
    samples = read(official(tmp_path) / place)
    assert [sample.id for sample in samples] == [str(i + 1) for i in range(len(ITEMS))]
    assert samples[0].images == (str(tmp_path / "image" / "AMBER_1.jpg"),)
    assert json.loads(str(samples[0].attributes["truth"])) == ["sky", "grass"]
    assert (samples[2].task, samples[2].label) == ("attribute/state", "yes")
    assert samples[2].choices == ("yes", "no")
    assert samples[8].attributes["type"] == "relation"


@pytest.mark.parametrize(
    ("part", "number"),
    [("generative", 2), ("discriminative", 7), ("existence", 1), ("attribute", 4), ("relation", 2)],
)
def test_parts(part: str, number: int, tmp_path: Path) -> None:
    made = dataset(official(tmp_path), part=part)
    assert len(made.samples(())) == number
    assert any("needs captions and the questions" in note for note in made.notes)


def test_a_file_of_questions_alone_needs_no_word_lists(tmp_path: Path) -> None:
    folder = official(tmp_path)
    (folder / "data" / "relation.json").unlink()
    assert len(read(folder / "data" / "query" / "query_discriminative.json")) == 7
    with pytest.raises(DataNotFound, match=r"relation\.json") as caught:
        read(folder)
    assert "part=discriminative" in caught.value.hint


def test_questions_and_annotations_are_joined_by_id(tmp_path: Path) -> None:
    folder = official(tmp_path)
    path = folder / "data" / "annotations.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps(list(reversed(rows))))
    assert read(folder)[2].label == "yes"
    path.write_text(json.dumps(rows[:5]))
    with pytest.raises(ManifestError, match="question 6 has no annotation"):
        read(folder)


def test_vlmevalkits_table(tmp_path: Path) -> None:
    source = AmberTableChecks().source(tmp_path)
    made = dataset(source)
    samples = list(made.samples(()))
    assert [sample.label for sample in samples] == ["yes", "no", "yes", "no", "no", "yes", "no"]
    assert samples[0].images == samples[1].images != samples[2].images
    assert samples[0].split_group == "AMBER_1.jpg"
    assert "VLMEvalKit table" in made.notes[0]
    asked = read(source, prompt="vlmevalkit")[0].prompt
    assert asked == "Is it?\nPlease answer yes or no."


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_rows_of_the_hub_are_captions(form: str, tmp_path: Path) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (6, 4), (7, 0, 0)).save(sink, "PNG")
    table = datasets.Dataset.from_dict(
        {
            "question_id": [1, 2],
            "image": [{"bytes": sink.getvalue(), "path": None}] * 2,
            "task_type": ["generative"] * 2,
            "truth": [["sky"], ["dog"]],
            "hallu": [["sun"], []],
        }
    ).cast_column("image", datasets.Image())
    source = tmp_path / "rows"
    if form == "saved":
        table.save_to_disk(source)
    else:
        source = tmp_path / "rows.parquet"
        table.to_parquet(source)
    folder = lists(tmp_path / "lists")
    samples = read(source, lists=str(folder), prompt="lmms-eval")
    assert [sample.prompt for sample in samples] == ["Describe this image"] * 2
    assert score(samples, ["The sky and the sun.", "A dog."])["chair"] == pytest.approx(100 / 3)
    with pytest.raises(DataNotFound, match="none"):
        read(source, lists=str(tmp_path / "none"))


@pytest.mark.parametrize("column", ["truth", "hallu", "type", "id"])
def test_a_wrong_cell_is_named(column: str, tmp_path: Path) -> None:
    row = {"id": 1, "type": "generative", "image": "1.png", "truth": ["sky"], "hallu": ["sun"]}
    row[column] = {"truth": "sky", "hallu": None, "type": "colour", "id": ""}[column]
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    lists(tmp_path)
    with pytest.raises(ManifestError, match=column):
        read(tmp_path / "rows.jsonl")


def test_other_files_get_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "pope.jsonl").write_text('{"question": "Is there a dog?", "label": "yes"}\n')
    with pytest.raises(DataError, match="question, label") as caught:
        read(tmp_path / "pope.jsonl")
    assert all(name in caught.value.hint for name in FORMS)
    with pytest.raises(DataError, match=r"pope\.jsonl"):
        read(tmp_path)
    (tmp_path / "annotations.json").write_text('[{"id": 1, "truth": "no"}]')
    (tmp_path / "query").mkdir()
    (tmp_path / "query" / "query_all.json").write_text('[{"id": 1, "image": "a", "query": "?"}]')
    with pytest.raises(DataError, match="id, truth"):
        read(tmp_path)


def test_metrics_are_no_code(tmp_path: Path) -> None:
    folder = official(tmp_path)
    mark = tmp_path / "mark"
    (folder / "data" / "metrics.txt").write_text(f"a=open({str(mark)!r}, 'w').write('x')\n")
    read(folder)
    assert not mark.exists()
