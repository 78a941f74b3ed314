"""H-POPE: built of objects and attributes with the right answers, and read from rows."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmlens.errors import DataError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import answered, scored
from vlmlens_plugins.benchmarks.hpope import CARD, HPope, HPopeOptions
from vlmlens_plugins.benchmarks.hpope.negatives import Negatives
from vlmlens_plugins.benchmarks.hpope.pictures import Picture, Thing

COLORS = ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
SETTINGS = ("random", "popular", "adversarial", "image-adversarial")


def read(source: Path, **options: Any) -> Sequence[Sample]:
    return HPope(str(source), HPopeOptions.model_validate(options)).samples([])


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def scenes() -> list[dict[str, Any]]:
    """As CLEVR's scene file lists them."""
    rng = random.Random(4)
    return [
        {
            "image_index": i,
            "image_filename": f"CLEVR_val_{i:06d}.png",
            "objects": [
                {
                    "size": rng.choice(("large", "small")),
                    "color": rng.choice(COLORS),
                    "material": rng.choice(("rubber", "metal")),
                    "shape": rng.choice(("cube", "sphere", "cylinder")),
                    "rotation": 12.5,
                    "3d_coords": [0.1, 0.2, 0.7],
                }
                for _ in range(rng.randint(3, 10))
            ],
            "relationships": {"left": [[1], [0]]},
        }
        for i in range(60)
    ]


@pytest.fixture(scope="module")
def clevr(scenes: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clevr") / "CLEVR_val_scenes.json"
    path.write_text(json.dumps({"info": {"split": "val"}, "scenes": scenes}))
    return path


# ------------------------------------------------------------------------------------ building


def test_every_label_is_what_the_scene_says(clevr: Path, scenes: list[dict[str, Any]]) -> None:
    known = {scene["image_filename"]: scene["objects"] for scene in scenes}
    samples = read(clevr)
    assert len(samples) > 1000
    for sample in samples:
        size, material, shape = str(sample.attributes["object"]).split()
        fitting = [
            each
            for each in known[str(sample.group)]
            if (each["size"], each["material"], each["shape"]) == (size, material, shape)
        ]
        if sample.attributes["level"] == "object":
            assert bool(fitting) == (sample.label == "yes")
        else:
            assert len(fitting) == 1
            right = fitting[0]["color"] == sample.attributes["attribute"]
            assert right == (sample.label == "yes")
            assert sample.attributes["attribute_type"] == "color"


def test_levels_and_settings_are_balanced_with_the_same_positives(clevr: Path) -> None:
    samples = read(clevr)
    counts = Counter((s.task, s.label) for s in samples)
    tasks = {str(s.task) for s in samples}
    assert tasks == {f"{a}/{b}" for a in SETTINGS for b in ("object", "attribute")} - {
        "image-adversarial/object"
    }
    assert all(counts[task, "yes"] == counts[task, "no"] > 0 for task in tasks)
    positives = [
        {s.prompt + str(s.group) for s in samples if s.task == f"{a}/object" and s.label == "yes"}
        for a in SETTINGS[:3]
    ]
    assert positives[0] == positives[1] == positives[2]
    most = Counter((s.group, s.task, s.label) for s in samples if s.task == "random/object")
    assert max(most.values()) == 3


def test_neither_order_nor_number_tells_the_answer(clevr: Path) -> None:
    samples = read(clevr)
    for parity in (0, 1):
        own = [s.label == "yes" for s in samples if int(s.id.rpartition("/")[2]) % 2 == parity]
        assert 0.4 < np.mean(own) < 0.6


def test_image_adversarial_attributes_are_those_of_other_objects(
    clevr: Path, scenes: list[dict[str, Any]]
) -> None:
    known = {s["image_filename"]: {each["color"] for each in s["objects"]} for s in scenes}
    samples = [s for s in read(clevr) if s.task == "image-adversarial/attribute"]
    assert all(s.attributes["attribute"] in known[str(s.group)] for s in samples)
    others = [s for s in read(clevr) if s.task == "random/attribute" and s.label == "no"]
    assert not all(s.attributes["attribute"] in known[str(s.group)] for s in others)


def test_the_seed_the_names_and_the_settings_are_the_users(clevr: Path) -> None:
    first, again, other = (read(clevr, seed=seed) for seed in (0, 0, 1))
    assert [s.to_dict() for s in first] == [s.to_dict() for s in again]
    assert [s.prompt for s in first] != [s.prompt for s in other]
    by_shape = read(clevr, object_by=["color", "shape"], settings=["popular"])
    assert {str(s.task) for s in by_shape} == {"popular/object", "popular/attribute"}
    kinds = {s.attributes["attribute_type"] for s in by_shape if s.attributes["attribute"]}
    assert kinds == {"size", "material"}
    assert max(Counter((s.group, s.task) for s in read(clevr, objects=1)).values()) == 2


PICTURES = [
    Picture(
        "1", "1", (Thing("dog", (("color", "brown"),)), Thing("cat", (("color", "black"),))), ""
    ),
    Picture(
        "2", "2", (Thing("dog", (("color", "white"),)), Thing("ball", (("color", "red"),))), ""
    ),
    Picture("3", "3", (Thing("car", (("color", "red"),)), Thing("dog", (("color", "white"),))), ""),
    Picture("4", "4", (Thing("car", (("color", "red"),)), Thing("bus", (("color", "red"),))), ""),
    Picture("5", "5", (Thing("cat", (("color", "gray"), ("color", "black"))), Thing("cup")), ""),
]


@pytest.mark.parametrize(
    ("setting", "first"),
    [("popular", "dog"), ("adversarial", "dog"), ("random", None)],
)
def test_objects_are_chosen_by_frequency_or_by_company(setting: str, first: str | None) -> None:
    """The dog is in three pictures, and in one with the cat, as nothing else but the cup is."""
    found = Negatives(PICTURES).objects(PICTURES[4], setting, random.Random(0))
    assert set(found) == {"dog", "ball", "car", "bus"}
    assert first is None or found[0] == first


def test_company_and_frequency_differ() -> None:
    """With the bus only the car was seen; most frequent is the dog."""
    alone = Picture("6", "6", (Thing("bus"),), "")
    negatives = Negatives([*PICTURES, alone])
    assert negatives.objects(alone, "adversarial", random.Random(0))[0] == "car"
    assert negatives.objects(alone, "popular", random.Random(0))[0] == "dog"


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("popular", {"red"}),  # the most frequent colour
        ("adversarial", {"white"}),  # the most frequent colour of dogs
        ("image-adversarial", {"black"}),  # the cat's
        ("random", {"red", "white", "black", "gray"}),
    ],
)
def test_attributes_are_chosen_by_setting(setting: str, expected: set[str]) -> None:
    negatives, picture = Negatives(PICTURES), PICTURES[0]
    found = {
        negatives.attribute(picture, picture.things[0], "color", setting, random.Random(seed))
        for seed in range(40)
    }
    assert found == expected


def test_no_other_object_has_such_an_attribute() -> None:
    negatives, picture = Negatives(PICTURES), PICTURES[4]
    assert (
        negatives.attribute(
            picture, picture.things[0], "color", "image-adversarial", random.Random(0)
        )
        is None
    )


@pytest.mark.parametrize(
    "attributes",
    [
        {"dog": {"color": "brown"}, "cat": {"color": ["black", "white"]}},
        json.dumps({"dog": {"color": ["brown"]}, "cat": {"color": ["black", "white"]}}),
    ],
)
def test_a_table_of_ones_own_is_enough(attributes: Any, tmp_path: Path) -> None:
    made = [
        {"image": "a", "objects": "dog|cat", "attributes": attributes},
        {"image": "b.png", "objects": [{"name": "Cup", "color": "Green"}]},
    ]
    samples = read(lines(tmp_path / "own.jsonl", made), settings=["random"])
    assert samples[0].images[0].endswith("a.jpg")
    asked = {s.prompt: s.label for s in samples if s.group == "a"}
    assert asked["Is the dog brown in the image?"] == "yes"
    assert asked["Is there a cup in the image?"] == "no"
    assert "Is the cat white in the image?" not in asked or (
        asked["Is the cat white in the image?"] == "yes"
    )
    assert {s.prompt for s in samples if s.group == "b.png"} >= {"Is the cup green in the image?"}


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    made = [
        {"image": "1.png", "objects": ["dog", "dog"], "attributes": {"dog": ["brown"]}},
        {"image": "2.png", "objects": ["cat"], "attributes": {"cat": ["black"]}},
        {"image": "3.png", "objects": ""},
    ]
    dataset = HPope(str(lines(tmp_path / "own.jsonl", made)), HPopeOptions())
    samples = dataset.samples([])
    assert not [s for s in samples if s.attributes["object"] == "dog" and s.attributes["attribute"]]
    said = "\n".join(dataset.notes)
    assert "1 of 3 pictures give no question" in said
    assert "1 times a picture has several objects of one name" in said
    assert "3 attributes have no type" in said


# ------------------------------------------------------------------------------- reading, metrics

ROWS = [
    {"question_id": 1, "image": "x", "text": "Is there a dog in the image?", "label": "yes",
     "level": "object", "attribute": None, "category": "random"},
    {"question_id": 1, "image": "x", "text": "Is the dog dark brown in the image?", "label": "no",
     "level": "attribute", "attribute": "dark brown", "category": "popular"},
]  # fmt: skip


def test_questions_in_popes_layout_are_read(tmp_path: Path) -> None:
    samples = read(lines(tmp_path / "hpope.jsonl", ROWS))
    assert [(s.id, s.task, s.attributes["object"]) for s in samples] == [
        ("random/object/1", "random/object", "dog"),
        ("popular/attribute/1", "popular/attribute", "dog"),
    ]
    hub = [
        {**row, "question": row["text"], "answer": row["label"], "setting": row["category"]}
        for row in ROWS
    ]
    kept = [{k: v for k, v in row.items() if k not in ("text", "label", "category")} for row in hub]
    assert facts(read(lines(tmp_path / "hub.jsonl", kept))) == facts(samples)


def facts(samples: Sequence[Sample]) -> list[tuple[Any, ...]]:
    return [(s.id, s.prompt, s.label, s.task, s.group) for s in samples]


def test_levels_are_scored_apart(clevr: Path) -> None:
    samples = read(clevr)
    texts = ["yes" if s.attributes["level"] == "object" else str(s.label) for s in samples]
    found = scored(CARD.metrics, samples, answered(texts, samples, CARD.rules["strict"]))
    assert found == {
        "object_accuracy": 50.0,
        "object_f1": pytest.approx(200 / 3),
        "attribute_accuracy": 100.0,
        "attribute_f1": 100.0,
    }


BAD: list[tuple[dict[str, Any], str]] = [
    ({"image": "1.png", "prompt": "?"}, "objects is 'None', expected a list"),
    ({"objects": ["dog"]}, "expected an image or its path, got 'None'"),
    ({"image": "1.png", "objects": [3]}, "objects is '3', expected names"),
    ({"image": "1.png", "objects": "["}, r"objects is '\[', expected JSON"),
    ({"image": "1.png", "objects": {"a": 1}}, "expected a list"),
    ({"image": "1.png", "objects": ["dog"], "attributes": [1]}, "expected an object"),
    ({"image": "1.png", "objects": ["dog"], "attributes": {"dog": [1]}}, "texts by type"),
    ({"image": "1.png", "objects": ["dog"], "attributes": {"dog": {"color": {}}}}, "by type"),
    (
        {"image": "1.png", "objects": ["dog"], "attributes": {"cow": ["red"]}},
        "'cow', expected attr",
    ),
    ({"image": "1.png", "objects": [{"color": "red"}]}, "a name or size and material and shape"),
    ({"image": "1.png", "objects": ["cat"]}, "No picture of .* gives a question"),
    ({"image": "../1.png", "objects": ["dog"]}, "outside the folder"),
    ({**ROWS[0], "level": "scene"}, "the level is 'scene'"),
    ({**ROWS[0], "category": "hard"}, "the setting is 'hard'"),
    ({**ROWS[0], "label": "1"}, "the label is '1', expected yes or no"),
]


def test_a_picture_in_two_rows_is_named(tmp_path: Path) -> None:
    made = [{"image": "1.png", "objects": [name]} for name in ("dog", "cat")]
    with pytest.raises(DataError, match=r"line 2: '1\.png' is in line 1, too"):
        read(lines(tmp_path / "own.jsonl", made))


def test_other_columns_are_refused_with_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="columns image, prompt, which is no form of H-POPE"):
        read(lines(tmp_path / "rows.jsonl", [{"image": "1.png", "prompt": "?"}]))
    with pytest.raises(DataError, match="no column with images; it has objects"):
        read(lines(tmp_path / "rows.jsonl", [{"objects": ["dog"]}]))


@pytest.mark.parametrize(("row", "told"), BAD, ids=lambda value: str(value)[:40])
def test_wrong_rows_are_named(row: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        read(lines(tmp_path / "rows.jsonl", [row, {"image": "z.png", "objects": ["cat"]}]))
