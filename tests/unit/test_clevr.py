"""CLEVR: its layout, question types, the 28 answers, and descriptions that suffice to answer."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmlens.errors import DataError, DataNotFound, ManifestError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import answered, scored
from vlmlens_plugins.benchmarks.clevr import CARD, Clevr, ClevrOptions
from vlmlens_plugins.benchmarks.clevr.checks import ASKED, NAME, SCENES, question, written
from vlmlens_plugins.benchmarks.clevr.questions import ANSWERS, VALUES
from vlmlens_plugins.benchmarks.clevr.scenes import scene_of
from vlmlens_plugins.data.checks import paint

FUNCTIONS = {
    "exist": ("exist", "yes"),
    "count": ("count", "0"),
    "less_than": ("compare_integer", "no"),
    "greater_than": ("compare_integer", "yes"),
    "equal_integer": ("compare_integer", "no"),
    "query_size": ("query_attribute", "small"),
    "query_color": ("query_attribute", "gray"),
    "query_material": ("query_attribute", "rubber"),
    "query_shape": ("query_attribute", "sphere"),
    "equal_shape": ("compare_attribute", "yes"),
}
"""Type and label by the last function of a program."""


def dataset(source: Path | str, **options: Any) -> Clevr:
    return Clevr(str(source), ClevrOptions(**options))


def read(source: Path | str, **options: Any) -> list[Sample]:
    return list(dataset(source, **options).samples(()))


def drawn(rng: np.random.Generator, name: str, margin: float = 0.2) -> dict[str, Any]:
    """A scene of 3 to 10 objects at random places; nearly level ones are on no side."""
    count = int(rng.integers(3, 11))
    places = rng.uniform(-3, 3, (count, 2))
    objects = [
        {key: str(rng.choice(values)) for key, values in VALUES.items()} for _ in range(count)
    ]
    sides = {"left": (0, -1), "right": (0, 1), "behind": (1, -1), "front": (1, 1)}
    relationships = {
        side: [
            [j for j in range(count) if sign * (places[j, axis] - places[i, axis]) > margin]
            for i in range(count)
        ]
        for side, (axis, sign) in sides.items()
    }
    return {"image_filename": name, "objects": objects, "relationships": relationships}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """5,000 questions on 500 pictures, ten types in turn."""
    rng = np.random.default_rng(0)
    asked = [
        question(10 * picture + n, NAME.format(picture), f"Question {n}?", label, function)
        for picture in range(500)
        for n, (function, (_, label)) in enumerate(FUNCTIONS.items())
    ]
    scenes = [drawn(rng, NAME.format(picture)) for picture in range(500)]
    return read(written(tmp_path_factory.mktemp("clevr"), asked, scenes))


def test_there_are_28_answers() -> None:
    assert len(set(ANSWERS)) == len(ANSWERS) == 28
    assert {"yes", "no", "0", "10", "large", "small", "gray", "metal", "cylinder"} <= set(ANSWERS)


def test_the_layout(full: list[Sample]) -> None:
    assert len(full) == 5000
    first = full[0]
    assert (first.id, first.group) == ("val/0", NAME.format(0))
    assert "val, 5,000 questions on 500 pictures; official files" in str(
        first.attributes["edition"]
    )
    assert str(first.images[0]).endswith(f"images/val/{NAME.format(0)}")
    for sample in full[:10]:
        task, label = FUNCTIONS[str(sample.attributes["function"])]
        assert (sample.task, sample.label) == (task, label)
        assert label in sample.choices
    assert full[1].choices == tuple(str(n) for n in range(11))
    assert full[6].choices == VALUES["color"]


def test_constant_answers(full: list[Sample]) -> None:
    assert CARD.task_metrics is not None
    for text, share in (("yes", 30), ("no", 20), ("0", 10), ("gray", 10), ("red", 0), ("", 0)):
        for rule in CARD.rules.values():
            answers = answered([text] * len(full), full, rule)
            assert scored(CARD.metrics, full, answers) == {"accuracy": share}
    integers = [sample for sample in full if sample.task == "compare_integer"]
    answers = answered(["no"] * len(integers), integers, CARD.rule("strict"))
    assert scored(CARD.task_metrics, integers, answers)["accuracy"] == pytest.approx(200 / 3)


@pytest.mark.parametrize(
    ("text", "official", "strict", "words"),
    [
        ("cube", "cube", "cube", "cube"),
        (" cube\n", "cube", "cube", "cube"),
        ("Cube.", None, "cube", "cube"),
        ("It is a cube", None, None, "cube"),
        ("a cube or a sphere", None, None, None),
        ("cubes", None, None, None),
        ("ball", None, None, None),
        ("red", "red", "red", None),
        ("", None, None, None),
    ],
)
def test_rules(text: str, official: str | None, strict: str | None, words: str | None) -> None:
    asked = Sample("1", "?", label="cube", choices=VALUES["shape"])
    found = {name: rule.read(text, asked) for name, rule in CARD.rules.items()}
    assert found == {"official": official, "strict": strict, "words": words}


def understood(description: str) -> tuple[list[list[str]], dict[str, list[set[int]]]]:
    """What a reader takes from a description: the objects, and who is on which side of whom."""
    objects = [each.split() for each in re.findall(r"Object \d+ is an? ([a-z ]+)\.", description)]
    sides: dict[str, list[set[int]]] = {}
    for side, words in (("left", "to the left of"), ("front", "in front of")):
        clauses = re.findall(rf"(?i:{words}) object (\d+) (?:is|are) ([^;.]+)", description)
        sides[side] = [set(map(int, re.findall(r"\d+", said))) for _, said in clauses]
        assert [int(number) for number, _ in clauses] == list(range(1, len(objects) + 1))
    return objects, sides


def test_a_description_says_all_that_a_question_needs(full: list[Sample]) -> None:
    """What is read from the text, and from the JSON, is what the scene file says; exactly."""
    rng = np.random.default_rng(0)
    for picture in range(500):
        scene = drawn(rng, NAME.format(picture))
        about = full[10 * picture].attributes
        objects, sides = understood(str(about["description"]))
        expected = [[o["size"], o["color"], o["material"], o["shape"]] for o in scene["objects"]]
        assert objects == expected
        stored = json.loads(str(about["scene"]))
        assert [[o["size"], o["color"], o["material"], o["shape"]] for o in stored] == expected
        for side, converse in (("left", "right"), ("front", "behind")):
            lists = [{j + 1 for j in others} for others in scene["relationships"][side]]
            assert sides[side] == lists
            assert [set(o[side]) for o in stored] == lists
            back = [{j for j, on in enumerate(lists) if i + 1 in on} for i in range(len(lists))]
            assert back == [set(others) for others in scene["relationships"][converse]]
        assert json.loads(str(about["objects"])) == sorted({o["shape"] for o in scene["objects"]})


def test_a_wrong_relation_would_be_seen() -> None:
    scene = drawn(np.random.default_rng(1), "a.png", margin=0.0)
    before = understood(scene_of(scene).description)
    left = scene["relationships"]["left"]
    left[0], left[-1] = left[-1], left[0]
    assert understood(scene_of(scene).description) != before


def test_one_object_and_no_relations() -> None:
    lone = {"objects": SCENES[0]["objects"][:1], "relationships": {"left": [[]], "front": [[]]}}
    assert scene_of(lone).description == "There is 1 object. Object 1 is a large red metal cube."
    bare = scene_of({"objects": SCENES[0]["objects"]})
    assert "left" not in bare.description
    assert "left" not in bare.scene


def test_splits_and_files(tmp_path: Path) -> None:
    top = written(tmp_path, ASKED, SCENES)
    written(tmp_path, [question(0, "CLEVR_test_000000.png", "Is it?", None, "")], split="test")
    paint(top / "images" / "val", NAME.format(0), NAME.format(1))
    assert [sample.id for sample in read(top)] == ["val/0", "val/1", "val/2", "val/3"]
    assert read(top)[0].open_images()[0].size == (6, 4)
    file = top / "questions" / "CLEVR_val_questions.json"
    assert read(file) == read(top)
    test = dataset(top, split="test")
    (only,) = test.samples(())
    assert (only.label, only.task, only.choices) == (None, None, ())
    assert any("no answers" in note for note in test.notes)
    assert any("there is no file of scenes" in note for note in test.notes)
    with pytest.raises(DataNotFound, match="no split 'train'"):
        read(top, split="train")
    assert "description" not in read(top, describe=False)[0].attributes
    mine = tmp_path / "mine.json"
    file.rename(mine)
    elsewhere = dataset(mine, images=str(top / "images" / "val"))
    assert [sample.id for sample in elsewhere.samples(())] == ["0", "1", "2", "3"]


def test_a_picture_without_a_scene_is_said(tmp_path: Path) -> None:
    made = dataset(written(tmp_path, ASKED, SCENES[:1]))
    samples = made.samples(())
    assert any("1 of 2 pictures have no scene" in note for note in made.notes)
    assert ["description" in s.attributes for s in samples] == [True, True, False, False]


def test_answers_without_programs_still_have_choices(tmp_path: Path) -> None:
    """A file without programs: the answer says among which it is; the type is not known."""
    bare = [{k: v for k, v in each.items() if k != "program"} for each in ASKED]
    samples = read(written(tmp_path, bare))
    assert [s.task for s in samples] == [None] * 4
    assert [s.choices[0] for s in samples] == ["gray", "0", "yes", "yes"]


def test_a_count_may_be_a_number(tmp_path: Path) -> None:
    assert read(written(tmp_path, [{**ASKED[1], "answer": 2}]))[0].label == "2"
    with pytest.raises(ManifestError, match="answer is 'True'"):
        read(written(tmp_path / "other", [{**ASKED[2], "answer": True}]))


def test_programs_of_the_generator(tmp_path: Path) -> None:
    """The generator writes `type` where the published files have `function`."""
    made = json.loads(json.dumps(ASKED[1]))
    for step in made["program"]:
        step["type"] = step.pop("function")
    assert read(written(tmp_path, [made]))[0].task == "count"


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A pipe would never end."""
    os.mkfifo(tmp_path / "CLEVR_val_questions.json")
    with pytest.raises(DataError, match="a pipe, a socket or a device"):
        read(tmp_path / "CLEVR_val_questions.json")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "there is no list 'questions'"),
        ('{"questions": [{"question": ', "item 1 of 'questions': not JSON"),
        ('{"questions": [3]}', "expected an object, got '3'"),
        ('{"questions": [{"question": "?", "image_filename": "a.png", "answer": "two"}]}', "'two'"),
        ('{"questions": [' + "[" * 100_000, "not JSON"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "CLEVR_val_questions.json"
    path.write_text(text)
    with pytest.raises(ManifestError) as caught:
        read(path)
    assert told in caught.value.message


def test_wrong_sources_give_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "POPE.tsv").write_text("index\n")
    with pytest.raises(DataError, match=r"none of the forms of CLEVR: it has POPE\.tsv") as caught:
        read(tmp_path)
    assert "questions/CLEVR_val_questions.json" in caught.value.hint
    top = written(tmp_path, ASKED, [{"image_filename": "a.png"}])
    with pytest.raises(ManifestError, match="item 1: no scene of CLEVR"):
        read(top)
