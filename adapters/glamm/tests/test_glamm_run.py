"""Whole runs on the goldens' checkpoint, and `vlmlens sites` on a config alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import vlmlens
from vlmlens.cli._app import app
from vlmlens.testing.tiny import picture

DATA = Path(__file__).parent / "data" / "glamm"
SHAPES = ((64, 48), (40, 60), (48, 48))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures in each of two classes that differ in colour."""
    folder = tmp_path_factory.mktemp("photos")
    for seed, label in enumerate(("red", "green")):
        (folder / label).mkdir()
        for i in range(12):
            width, height = SHAPES[i % len(SHAPES)]
            picture(width + i, height, seed=seed).save(folder / label / f"{i:02d}.png")
    return folder


def run(data: Path, out: Path, **settings: Any) -> Any:
    chosen: dict[str, Any] = {
        "adapter": "glamm",
        "model": str(DATA),
        "data": str(data),
        "device": "cpu",
        "out": str(out),
        **settings,
    }
    return vlmlens.run(**chosen)


def test_a_whole_run(photos: Path, tmp_path: Path) -> None:
    names = ["probe", "logit-lens", "blind-test"]
    done = run(photos, tmp_path / "run", prompt="What is it?", analysis=names)
    assert done.info["state"] == "finished"
    assert set(done.results) == set(names)
    assert all(result.findings for result in done.results.values())
    columns = list(done.activations)
    assert any(name.startswith("vision.block.") for name in columns)
    assert not any(name.startswith("grounding.") for name in columns)
    assert all(len(done.activations[name]) == 24 for name in columns)


def test_a_run_over_boxes_and_the_grounding_encoder(photos: Path, tmp_path: Path) -> None:
    """Boxes come from a table; SAM runs since a column of it is wanted."""
    table = photos / "regions.jsonl"
    rows = [
        {
            "image": f"{label}/{i:02d}.png",
            "prompt": "What is <bbox>?",
            "label": label,
            "boxes": [[2, 3, 20 + i, 30]],
        }
        for label in ("red", "green")
        for i in range(12)
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sites = ["grounding.block.1/image.mean", "grounding.projector/last", "llm.block.1/last"]
    done = run(table, tmp_path / "run", sites=sites, analysis=["probe"])
    assert done.info["state"] == "finished"
    assert {name: done.activations[name][:].shape for name in sites} == {
        sites[0]: (24, 32), sites[1]: (24, 32), sites[2]: (24, 40),
    }  # fmt: skip


def test_sites_of_a_config_alone(tmp_path: Path) -> None:
    shutil.copy(DATA / "config.json", tmp_path)
    (tmp_path / "vision_tower").mkdir()
    shutil.copy(DATA / "vision_tower" / "config.json", tmp_path / "vision_tower")
    shown = CliRunner().invoke(app, ["sites", "--adapter", "glamm", "--model", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    for name in ("vision.block.10", "llm.block.1", "grounding.block.2", "grounding.projector"):
        assert name in shown.output
