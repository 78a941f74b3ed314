"""Question sets: right answers from the annotations, and nothing asked that has two of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlmlens.errors import DataError, DataNotFound, ManifestError
from vlmlens.samples import Sample
from vlmlens_plugins.data.questions import QuestionOptions, Questions


def thing(size: str, color: str, material: str, shape: str) -> dict[str, str]:
    return {"size": size, "color": color, "material": material, "shape": shape}


SCENES = {
    "scenes": [
        {
            "image_filename": "b_1.png",
            "objects": [
                thing("large", "red", "metal", "cube"),
                thing("small", "blue", "rubber", "sphere"),
            ],
        },
        {
            "image_filename": "b_2.png",
            "objects": [
                thing("large", "red", "metal", "cube"),
                thing("large", "blue", "metal", "cube"),
                thing("large", "blue", "rubber", "cube"),
            ],
        },
        {"image_filename": "elsewhere.png", "objects": []},
    ]
}  # fmt: skip
INSTANCES: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "b_1.png"}, {"id": 8, "file_name": "b_2.png"}],
    "categories": [
        {"id": 1, "name": "cat"},
        {"id": 2, "name": "sheep"},
        {"id": 3, "name": "orange"},
    ],
    "annotations": [
        {"image_id": 7, "category_id": 1, "area": 10.0, "iscrowd": 0},
        {"image_id": 7, "category_id": 1, "area": 30.0, "iscrowd": 0},
        {"image_id": 7, "category_id": 2, "area": 90.0, "iscrowd": 1},
        {"image_id": 7, "category_id": 2, "area": 5.0, "iscrowd": 0},
    ],
}  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("b_1.png", "b_2.png", "not_annotated.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    (tmp_path / "scenes.json").write_text(json.dumps(SCENES))
    (tmp_path / "instances.json").write_text(json.dumps(INSTANCES))
    return folder


def ask(name: str, folder: Path, annotations: str = "", **options: Any) -> list[Sample]:
    about = str(folder.parent / annotations) if annotations else ""
    chosen = QuestionOptions(images=str(folder), annotations=about, **options)
    return Questions(name, chosen).samples([])


def test_a_clevr_object_is_told_from_all_others(pictures: Path) -> None:
    found = {s.id: s for s in ask("clevr", pictures, "scenes.json")}
    assert {s.group for s in found.values()} == {"b_1.png", "b_2.png"}
    # In b_2 the red and the blue metal cube differ in color alone, so color can be asked of the
    # rubber one only; material not of the two blue ones, but of the red.
    assert found["b_2.png/color"].prompt == "Color of the large rubber cube:"
    assert found["b_2.png/color"].label == "blue"
    assert found["b_2.png/material"].prompt == "Material of the large red cube:"
    assert found["b_2.png/number"].label == "3"
    for sample in found.values():
        assert sample.label in sample.choices
        assert str(sample.label) not in sample.prompt.split()


def test_every_answer_is_that_of_the_only_object_that_fits(pictures: Path) -> None:
    scenes = {scene["image_filename"]: scene["objects"] for scene in SCENES["scenes"]}
    asked = 0
    for sample in ask("clevr", pictures, "scenes.json", tasks=["color", "shape", "material"]):
        words = sample.prompt.rstrip(":").split()
        others = {k for k in ("size", "color", "material", "shape") if k != sample.task}
        fitting = [o for o in scenes[str(sample.group)] if all(o[k] in words for k in others)]
        assert [o[str(sample.task)] for o in fitting] == [sample.label]
        asked += 1
    assert asked >= 5


def test_coco_answers_come_from_the_outlines(pictures: Path) -> None:
    found = {s.id: s for s in ask("coco", pictures, "instances.json")}
    assert found["b_1.png/object"].label == "cat"
    assert found["b_1.png/number"].label == "2"
    assert "cat" in found["b_1.png/number"].prompt
    assert "an orange" in found["b_1.png/presence/no"].prompt
    assert found["b_2.png/presence/no"].label == "no"
    assert "b_2.png/object" not in found
    assert "b_2.png/presence/yes" not in found
    assert found["b_1.png/presence/no"].attributes["object"] == "orange"
    for name in ("object", "presence/yes", "presence/no", "number"):
        assert json.loads(str(found[f"b_1.png/{name}"].attributes["objects"])) == ["cat", "sheep"]
    chosen = QuestionOptions(
        images=str(pictures), annotations=str(pictures.parent / "instances.json")
    )
    described = Questions("coco", chosen).samples(["Describe the picture."])
    assert [s.attributes["objects"] for s in described] == ['["cat", "sheep"]', "[]"]


def test_a_crowd_is_there_and_is_not_counted(pictures: Path) -> None:
    for _ in range(3):
        found = ask("coco", pictures, "instances.json")
        assert not any(
            "sheep" in s.prompt for s in found if s.label == "no" and s.group == "b_1.png"
        )
        assert not any("sheep" in s.prompt for s in found if s.task == "number")


@pytest.mark.parametrize(("name", "count"), [("clevr", 4), ("coco", 3)])
def test_without_annotations_every_picture_is_asked_about_without_answers(
    name: str, count: int, pictures: Path
) -> None:
    found = ask(name, pictures)
    assert len(found) == 3 * count
    assert all(sample.label is None for sample in found)


def test_mistakes_are_named(pictures: Path) -> None:
    with pytest.raises(DataError, match="needs the folder"):
        Questions("clevr", QuestionOptions()).samples([])
    with pytest.raises(ManifestError, match="annotations of coco"):
        ask("coco", pictures, "scenes.json")
    with pytest.raises(ManifestError, match="annotations of clevr"):
        ask("clevr", pictures, "instances.json")
    with pytest.raises(DataError, match="no task 'colour'"):
        ask("clevr", pictures, tasks=["colour"])
    empty = pictures.parent / "empty"
    empty.mkdir()
    with pytest.raises(DataNotFound, match="no picture"):
        ask("clevr", empty)
