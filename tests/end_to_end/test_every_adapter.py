"""A whole run on a tiny checkpoint of every family: columns, three analyses, report."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import vlmlens
from vlmlens.errors import CompositionError
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.registry import Registry
from vlmlens.testing.tiny import picture

ANALYSES = ("probe", "logit-lens", "blind-test")
SHAPES = ((64, 48), (40, 60), (48, 48))


def families() -> list[Manifest]:
    entries = Registry.default().entries(PluginKind.ADAPTER)
    own = (e.manifest for e in entries if e.distribution.startswith("vlmlens-adapter-"))
    return [manifest for manifest in own if manifest and manifest.checks]


def suite(manifest: Manifest) -> Any:
    """The first conformance suite of a family, which knows how to make a tiny checkpoint."""
    assert manifest.checks
    module, _, name = manifest.checks.partition(":")
    return getattr(import_module(module), name)[0]()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four pictures in each of two classes that differ in colour."""
    folder = tmp_path_factory.mktemp("photos")
    for seed, label in enumerate(("red", "green")):
        (folder / label).mkdir()
        for i in range(24):
            width, height = SHAPES[i % len(SHAPES)]
            picture(width + i, height, seed=seed).save(folder / label / f"{i:02d}.png")
    return folder


@pytest.mark.parametrize("manifest", families(), ids=lambda manifest: manifest.name)
def test_a_whole_run(manifest: Manifest, photos: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "adapter": manifest.name,
        "model": str(suite(manifest).checkpoint),
        "data": str(photos),
        "prompt": "What is it?",
        "device": "cpu",
        "out": str(tmp_path / "run"),
    }
    suitable = [name for name in ANALYSES if name != "logit-lens" or "readout" in manifest.offers]
    run = vlmlens.run(**settings, analysis=suitable)
    assert run.info["state"] == "finished"
    assert set(run.results) == set(suitable)
    assert all(result.findings for result in run.results.values())
    names = list(run.activations)
    assert any(name.startswith("vision.block.") for name in names)
    assert all(len(run.activations[name]) == 48 for name in names)
    assert run.report_path.is_file()
    if "readout" not in manifest.offers:
        again = {**settings, "out": str(tmp_path / "other")}
        with pytest.raises(CompositionError, match="readout"):
            vlmlens.run(**again, analysis=["logit-lens"])


def test_all_seventeen_are_here() -> None:
    root = Path(__file__).parents[2] / "adapters"
    written = {path.name for path in root.iterdir() if (path / "pyproject.toml").is_file()}
    installed = {
        entry.distribution.removeprefix("vlmlens-adapter-").replace("-", "_")
        for entry in Registry.default().entries(PluginKind.ADAPTER)
        if entry.distribution.startswith("vlmlens-adapter-")
    }
    assert installed == written
    assert len(written) >= 17
