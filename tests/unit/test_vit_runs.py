"""Runs with a vision backbone: no prompt is needed, and its runs stand beside those of a VLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t

import vlmlens
from vlmlens.abc.observer import SilentObserver
from vlmlens.comparison import compare_runs
from vlmlens.compose.plan import compose
from vlmlens.errors import CompositionError
from vlmlens.registry import Registry
from vlmlens.spec.model import make_spec
from vlmlens.testing.tiny import picture
from vlmlens_plugins.demo.adapter import CHECKPOINT
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions

COLUMN = "vision.block.2/image.mean"


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vision tower of the demo model, as a checkpoint of its own."""
    folder = tmp_path_factory.mktemp("tower")
    whole = t.AutoModelForImageTextToText.from_pretrained(CHECKPOINT, dtype=torch.float32)
    whole.model.vision_tower.save_pretrained(folder)
    said = json.loads((CHECKPOINT / "processor_config.json").read_text())["image_processor"]
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(3):
        picture(40 + 8 * i, 64, seed=i).save(folder / f"{i}.png")
    return folder


def quiet(folder: Path, **settings: Any) -> dict[str, Any]:
    return {"out": folder, "storage": "sqlite", "device": "cpu", **settings}


def test_a_folder_of_images_needs_no_prompt(tower: Path, photos: Path, tmp_path: Path) -> None:
    run = vlmlens.extract(**quiet(tmp_path / "run", model=tower, data=photos))
    assert run.spec.adapter == "vit"
    assert [sample.prompt for sample in run.samples] == [""] * 3
    assert set(run.activations) == {f"vision.block.{i}/image.mean" for i in range(4)}
    assert run.info["model"]["class"] == "CLIPVisionModel"
    assert "CLIPImageProcessor" in run.info["model"]["image_processor"]
    again = vlmlens.extract(**quiet(tmp_path / "run", model=tower, data=photos, mode="resume"))
    assert len(again.samples) == 3


class Hearing(SilentObserver):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def note(self, text: str) -> None:
        self.heard.append(text)

    def warn(self, text: str) -> None:
        self.heard.append(text)


def test_prompts_are_noted_once(tower: Path, photos: Path) -> None:
    asked = {"model": str(tower), "data": str(photos), "prompt": ["A?", "B <image>?"]}
    hearing = Hearing()
    plan = compose(make_spec(asked), Registry.default(), observer=hearing, analyse=False)
    assert len(plan.samples) == 6, "ids are those of a VLM that is asked the same"
    told = [line for line in hearing.heard if "prompts" in line]
    assert told == ["6 prompts: the adapter 'vit' does not read them."]


def test_what_asks_questions_is_refused(tower: Path, photos: Path) -> None:
    named = {"model": str(tower), "data": str(photos), "analysis": ["blind-test"]}
    with pytest.raises(CompositionError, match="asks the model questions"):
        compose(make_spec(named), Registry.default())


def test_the_eye_alone_stands_beside_the_model(tower: Path, tmp_path: Path) -> None:
    scenes = DemoDataset("scenes", DemoOptions(scenes=44)).samples(())
    asked = {"data": [s for s in scenes if s.task == "surface"], "sites": [COLUMN]}
    eye = vlmlens.run(**quiet(tmp_path / "eye", model=tower, **asked), analysis=["probe"])
    whole = vlmlens.run(**quiet(tmp_path / "whole", **asked), analysis=["probe", "blind-test"])
    assert eye.spec.adapter == "vit"
    assert whole.spec.adapter == "demo"
    np.testing.assert_allclose(eye.activations[COLUMN], whole.activations[COLUMN], atol=1e-6)
    result = compare_runs([str(eye.path), str(whole.path)])
    tests = result.table("compare-tests").columns
    mine = [column == COLUMN for column in tests["column"]]
    assert any(mine)
    assert not any(d for d, own in zip(tests["difference"], mine, strict=True) if own)
    answers = result.table("compare-answers").columns
    assert list(answers) == [
        "task", "can be read from (eye)", "can be read from (whole)", "uses the image (whole)",
    ]  # fmt: skip
