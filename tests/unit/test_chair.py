"""CHAIR: its forms, the draw of images, what is there, its metrics on planted captions."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from vlmlens.errors import DataError, DataNotFound, ManifestError, SpecError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import answered, intervals, scored
from vlmlens_plugins.benchmarks.chair import CARD, Chair
from vlmlens_plugins.benchmarks.chair.checks import coco, file_name
from vlmlens_plugins.benchmarks.chair.coco import annotated
from vlmlens_plugins.benchmarks.chair.draw import drawn, listed

KINDS = ("person", "bus", "dog", "bowl")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


def dataset(source: Path | str, **options: Any) -> Chair:
    return Chair(str(source), Chair.Options(**options))


def read(source: Path | str, **options: Any) -> list[Sample]:
    return list(dataset(source, **options).samples(()))


def there(sample: Sample) -> list[str]:
    return list(json.loads(str(sample.attributes["objects"])))


def score(samples: list[Sample], texts: list[str], rule: str = "strict") -> dict[str, float]:
    chosen = CARD.rule(rule)
    return scored(chosen.metrics or CARD.metrics, samples, answered(texts, samples, chosen))


def test_what_is_there_is_outlined_or_named_by_a_reference_caption(tmp_path: Path) -> None:
    made = dataset(coco(tmp_path))
    samples = list(made.samples(()))
    assert [sample.id for sample in samples] == ["42", "73", "139"]
    assert [there(sample) for sample in samples] == [
        ["bowl", "bus", "dog"],
        ["bench", "person"],
        ["bus"],
    ]
    assert {sample.prompt for sample in samples} == {"Please describe this image in detail."}
    assert [sample.split_group for sample in samples] == ["42", "73", "139"]
    assert samples[0].open_images()[0].size == (6, 4)
    assert "3 of 3 images" in made.notes[0]
    assert "sha256" in made.notes[0]
    assert any("table of COCO's 80 kinds" in note for note in made.notes)


@pytest.mark.parametrize(
    "place", ["", "val2014", "annotations", "annotations/captions_val2014.json"]
)
def test_files_are_found_from_any_of_their_folders(place: str, tmp_path: Path) -> None:
    folder = coco(tmp_path)
    images = {"images": str(folder)} if place.startswith("annotations") else {}
    assert len(read(folder / place, **images)) == 3


def test_truth_is_by_the_rule_that_reads(tmp_path: Path) -> None:
    samples = read(
        coco(tmp_path, scenes={42: ((18,), ("A bus.", "A dog.")), 73: ((6,), ("A man.",))})
    )
    texts = ["Two buses and a dog.", "Two buses."]
    assert score(samples, texts)["chair_i"] == 0
    # the original never reads "bus" in the reference, and reads "buses" in the caption
    assert score(samples, texts, "official")["chair_i"] == pytest.approx(100 / 3)


def test_splits_are_chosen_and_joined(tmp_path: Path) -> None:
    coco(tmp_path)
    train = {7: ((1,), ("A man.",)), 9: ((6,), ("A bus.",))}
    coco(tmp_path, "train2014", train)
    assert [sample.id for sample in read(tmp_path)] == ["42", "73", "139"]
    assert [sample.id for sample in read(tmp_path / "train2014")] == ["7", "9"]
    assert len(read(f"{tmp_path}:train2014")) == 2
    both = dataset(tmp_path, split="train2014,val2014")
    assert len(both.samples(())) == 5
    assert "train2014 + val2014" in both.notes[0]
    with pytest.raises(DataError, match="val2017"):
        read(tmp_path, split="val2017")


def test_two_unknown_splits_are_not_guessed(tmp_path: Path) -> None:
    for split in ("train2017", "val2017"):
        coco(tmp_path, split)
    with pytest.raises(DataError, match="not clear"):
        read(tmp_path)
    assert read(tmp_path, split="val2017")[0].images[0] == str(
        tmp_path / "val2017" / file_name(42, "val2017")
    )


def test_a_draw_is_fixed_nested_and_recorded(tmp_path: Path) -> None:
    ids = list(range(1, 2001))
    small, large = drawn(ids, 50, 0), drawn(ids, 500, 0)
    assert set(small) < set(large)
    assert small == sorted(small)
    assert drawn(ids, 50, 1) != small
    assert drawn(list(reversed(ids)), 50, 0) == small
    assert drawn(ids, None, 0) == ids == drawn(ids, 5000, 0)
    assert abs(np.mean(large) - 1000) < 80
    folder = coco(tmp_path)
    notes = set()
    for seed in range(6):
        made = dataset(folder, samples=1, seed=seed)
        assert len(made.samples(())) == 1
        notes.add(made.notes[0])
    assert len(notes) == 6
    assert all("drawn with seed" in note for note in notes)


@pytest.mark.parametrize(
    "text",
    [
        "139\n42\n",
        "COCO_val2014_000000000139.jpg\nval2014/COCO_val2014_000000000042.jpg\n",
        "[139, 42]",
        '{"image_id": 139, "caption": "A bus."}\n{"image_id": 42, "caption": "A dog."}\n',
        '[{"question_id": "139"}, {"question_id": "42"}]',
        '{"images": [{"cocoid": 139, "split": "test"}, {"cocoid": 73, "split": "train"}, '
        '{"cocoid": 42, "split": "test"}]}',
        "000000000139.jpg\n\n000000000042.jpg\n139",
    ],
)
def test_images_are_listed_in_many_ways(text: str, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text(text)
    assert listed(str(tmp_path / "ids.txt")) == [139, 42]
    made = dataset(coco(tmp_path / "coco"), ids=str(tmp_path / "ids.txt"))
    assert [sample.id for sample in made.samples(())] == ["139", "42"]
    assert "listed" in made.notes[0]


@pytest.mark.parametrize("text", ["", "a dog", "[1.5]", "{}", "[true]", '{"images": 3}', "[[42]]"])
def test_lists_of_no_images_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text(text)
    with pytest.raises(DataError, match="lists no images"):
        listed(str(tmp_path / "ids.txt"))


def test_listed_images_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    folder = coco(tmp_path)
    (tmp_path / "ids.txt").write_text("42\n99\n")
    with pytest.raises(DataError, match="no picture here, for example 99"):
        read(folder, ids=str(tmp_path / "ids.txt"))
    (folder / "val2014" / file_name(42)).unlink()
    (tmp_path / "ids.txt").write_text("42\n")
    with pytest.raises(DataError, match="example 42"):
        read(folder, ids=str(tmp_path / "ids.txt"))
    made = dataset(folder)
    assert len(made.samples(())) == 2
    assert any("1 of 3 annotated images are not in the folder" in note for note in made.notes)


def test_no_picture_at_all_is_an_error(tmp_path: Path) -> None:
    folder = coco(tmp_path)
    for path in (folder / "val2014").iterdir():
        path.unlink()
    with pytest.raises(DataNotFound, match="None of 3 annotated images"):
        read(folder)


def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    folder = coco(tmp_path / "coco")
    path = folder / "annotations" / "instances_val2014.json"
    data = json.loads(path.read_text())
    data["images"][0]["file_name"] = "../../secret.jpg"
    path.write_text(json.dumps(data))
    (tmp_path / "secret.jpg").write_bytes(b"")
    samples = read(folder)
    assert [sample.id for sample in samples] == ["73", "139"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("instances_val2014.json", "[]"),
        ("instances_val2014.json", '{"images": [{"id": 1}], "annotations": [], "categories": []}'),
        ("captions_val2014.json", '{"annotations": [{"image_id": 99, "caption": "A dog."}]}'),
        ("captions_val2014.json", "{"),
    ],
)
def test_files_that_are_not_cocos_are_refused(name: str, text: str, tmp_path: Path) -> None:
    folder = coco(tmp_path)
    (folder / "annotations" / name).write_text(text)
    with pytest.raises(ManifestError, match=name):
        read(folder)


def test_outlines_are_left_out_of_the_reading_alone(tmp_path: Path) -> None:
    captions = ('A "segmentation": [[1, 2 {dog}', "A bowl", '"segmentation": {"size": [4, 4]}')
    folder = coco(tmp_path, scenes={42: ((18, 51, 1), captions)})
    path = folder / "annotations" / "instances_val2014.json"
    data = json.loads(path.read_text())
    shapes = ([[1.5, -2, 3e5], [1, 2]], {"counts": [1, 2, 3], "size": [2, 3]}, [])
    for each, shape in zip(data["annotations"], shapes, strict=True):
        each["segmentation"] = shape
    path.write_text(json.dumps(data, indent=1))
    seen = annotated(folder / "annotations", ["val2014"]).images[42]
    assert seen.kinds == ("bowl", "dog", "person")
    assert seen.captions == list(captions)
    data["annotations"][1]["segmentation"] = {"counts": "ab}{c", "size": [2, 3]}
    path.write_text(json.dumps(data))
    assert annotated(folder / "annotations", ["val2014"]).images[42].kinds == seen.kinds


def _png(red: int) -> dict[str, Any]:
    sink = io.BytesIO()
    Image.new("RGB", (6, 4), (red, 0, 0)).save(sink, "PNG")
    return {"bytes": sink.getvalue(), "path": None}


@pytest.mark.parametrize("form", ["gt_object", "objects", "parquet"])
def test_rows_of_the_hub_say_what_is_there(form: str, tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "question_id": ["42", "73"],
        "gt_object": [["dog", "bowl"], ["person"]],
    }
    if form == "objects":
        columns = {"image_id": [42, 73], "objects": ['["dog", "bowl"]', '["people"]']}
    table = datasets.Dataset.from_dict({**columns, "image": [_png(1), _png(2)]})
    table = table.cast_column("image", datasets.Image())
    source = tmp_path / "rows"
    if form == "parquet":
        source = tmp_path / "rows.parquet"
        table.to_parquet(source)
    else:
        table.save_to_disk(source)
    made = dataset(source)
    samples = list(made.samples(()))
    assert [(sample.id, there(sample)) for sample in samples] == [
        ("42", ["bowl", "dog"]),
        ("73", ["person"]),
    ]
    assert samples[1].open_images()[0].getpixel((0, 0)) == (2, 0, 0)
    assert "hub columns" in made.notes[0]
    assert score(samples, ["A dog and a man.", "A man."])["chair_i"] == pytest.approx(100 / 3)


def test_other_columns_are_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "pope.jsonl").write_text('{"question": "Is there a dog?", "answer": "yes"}\n')
    with pytest.raises(DataError, match=r"question, answer") as caught:
        read(tmp_path / "pope.jsonl")
    assert "gt_object" in caught.value.hint
    (tmp_path / "bad.jsonl").write_text('{"question_id": "x", "image": "a.png", "gt_object": []}\n')
    with pytest.raises(DataError, match="question_id is 'x'"):
        read(tmp_path / "bad.jsonl")
    row = '{"question_id": "42", "image": "a.png", "gt_object": ["dog"]}\n'
    (tmp_path / "twice.jsonl").write_text(row * 2)
    with pytest.raises(DataError, match="42 more than once"):
        read(tmp_path / "twice.jsonl")
    with pytest.raises(DataError, match="pickle"):
        read(tmp_path / "chair.pkl")


def test_answers_from_elsewhere_are_joined_by_the_number_of_the_image(tmp_path: Path) -> None:
    folder = coco(tmp_path)
    rows = [{"image_id": n, "caption": f"Caption of {n}."} for n in (139, 42, 73)]
    (tmp_path / "captions.json").write_text(json.dumps(rows))
    samples = read(folder, answers=str(tmp_path / "captions.json"))
    assert [sample.attributes["answer"] for sample in samples] == [
        "Caption of 42.", "Caption of 73.", "Caption of 139.",
    ]  # fmt: skip


def test_a_table_that_lacks_kinds_says_so(tmp_path: Path) -> None:
    (tmp_path / "synonyms.txt").write_text("person, man, women\nbus\nbowl, dish\n")
    made = dataset(coco(tmp_path / "coco"), synonyms=str(tmp_path / "synonyms.txt"))
    samples = list(made.samples(()))
    assert [there(sample) for sample in samples] == [["bowl", "bus"], ["person"], ["bus"]]
    assert any("has no dog: they count for nothing" in note for note in made.notes)
    assert any("synonyms.txt, sha256" in note for note in made.notes)
    assert score(samples, ["A dish and a dog.", "A man.", "A bus."])["chair_i"] == 0
    assert len(read(tmp_path / "coco", synonyms="coco")) == 3


def test_styles_of_prompts(tmp_path: Path) -> None:
    folder = coco(tmp_path)
    asked = {
        style: read(folder, prompt=style)[0].prompt
        for style in ("official", "opera", "lmms-eval", "short", "none", " Be brief.")
    }
    assert asked["opera"] == "Please help me describe this image in detail."
    assert asked["official"] == asked["lmms-eval"] == asked["none"]
    assert asked[" Be brief."] == "Please describe this image in detail. Be brief."
    with pytest.raises(SpecError, match="llava"):
        read(folder, prompt="llava")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Sample], list[str]]:
    """Images with one to three kinds, and captions of which a part is made up."""
    rng = random.Random(0)
    scenes = {
        3 * i + 1: (rng.sample((1, 6, 18, 51), rng.randint(1, 3)), ("A photo.",)) for i in range(80)
    }
    samples = read(coco(tmp_path_factory.mktemp("planted"), scenes=scenes), samples=None)
    texts = []
    for sample in samples:
        absent = [kind for kind in KINDS if kind not in there(sample)]
        wrong = [rng.choice(absent) for _ in range(rng.randint(0, 2))]
        named = rng.sample(there(sample), rng.randint(0, len(there(sample)))) + wrong
        texts.append(f"Here: {', '.join(f'two {kind}s' for kind in named)}.")
    return samples, [text.replace("persons", "people").replace("buss", "buses") for text in texts]


def test_metrics_are_those_of_an_independent_count(
    planted: tuple[list[Sample], list[str]],
) -> None:
    samples, texts = planted
    wrong = mentions = having = named = truths = 0
    for sample, text in zip(samples, texts, strict=True):
        words = text.replace("people", "persons").replace("buses", "buss")
        words = words.removeprefix("Here: ").removesuffix(".")
        said = [word.removeprefix("two ")[:-1] for word in words.split(", ") if word]
        bad = [kind for kind in said if kind not in there(sample)]
        wrong, mentions, having = wrong + len(bad), mentions + len(said), having + bool(bad)
        named, truths = named + len(set(said) - set(bad)), truths + len(there(sample))
    expected = {
        "chair_i": 100 * wrong / mentions,
        "chair_s": 100 * having / len(samples),
        "recall": 100 * named / truths,
    }
    found = score(samples, texts)
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert score(samples, texts, "official")["chair_i"] == pytest.approx(expected["chair_i"])
    assert 0 < wrong < mentions


def test_captions_of_other_images_score_worse(planted: tuple[list[Sample], list[str]]) -> None:
    samples, _ = planted
    right = [f"I see a {' and a '.join(there(sample))}." for sample in samples]
    assert score(samples, right) == pytest.approx(
        {"chair_i": 0, "chair_s": 0, "recall": 100, "length": score(samples, right)["length"]}
    )
    shifted = [*right[1:], right[0]]
    assert score(samples, shifted)["chair_i"] > 20


def test_empty_and_constant_captions(planted: tuple[list[Sample], list[str]]) -> None:
    samples, _ = planted
    nothing = score(samples, [""] * len(samples))
    assert np.isnan(nothing["chair_i"])
    assert nothing["chair_s"] == nothing["recall"] == 0
    constant = score(samples, ["There is a person."] * len(samples))
    without = sum("person" not in there(sample) for sample in samples)
    assert constant["chair_s"] == constant["chair_i"] == 100 * without / len(samples)
    assert constant["length"] == 4
    assert answered([""], samples[:1], CARD.rule("strict"))[0].said is None


def test_credit_is_for_captions_without_a_made_up_object(tmp_path: Path) -> None:
    samples = read(coco(tmp_path))
    answers = answered(["A dog.", "A man and a dog.", "A photo."], samples, CARD.rule("strict"))
    assert [answer.credit for answer in answers] == [1, 0, 1]
    assert answers[1].said == "person, dog"


def test_intervals_hold_the_score(planted: tuple[list[Sample], list[str]]) -> None:
    samples, texts = planted
    answers = answered(texts, samples, CARD.rule("strict"))
    found = intervals(CARD.metrics, samples, answers, draws=200, rng=np.random.default_rng(0))
    for name, value in scored(CARD.metrics, samples, answers).items():
        low, high = found[name]
        assert low < value < high, name


def test_scores_of_tasks_are_by_the_rule_that_reads() -> None:
    sample = Sample("1", "", attributes={"objects": '["dog"]'})
    for name, mentions in (("strict", 50), ("official", 0)):
        metrics = CARD.rule(name).task_metrics
        assert metrics is not None
        answers = answered(["A bus and a dog."], [sample], CARD.rule(name))
        assert scored(metrics, [sample], answers)["chair_i"] == mentions
