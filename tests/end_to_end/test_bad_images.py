"""Bad images among 2,000: the run stops with their list, or goes on without them."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vlmlens
from tests import _program
from vlmlens.compose.plan import Plan, compose
from vlmlens.errors import ImageError
from vlmlens.registry import Registry
from vlmlens.results import Result
from vlmlens.spec.model import make_spec

TOTAL = 2_000
SETTINGS: dict[str, Any] = {
    "prompt": "What is it?",
    "sites": ["vision.block.0/image.mean", "llm.block.5/last"],
    "batch_size": 64,
    "device": "cpu",
}


class Told:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def stage(self, name: str, total: int | None) -> None: ...

    def advance(self, done: int) -> None: ...

    def note(self, message: str) -> None: ...

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def result(self, result: Result) -> None: ...


def picture(seed: int = 0, size: tuple[int, int] = (40, 30)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(kind: str, image: Image.Image) -> bytes:
    target = io.BytesIO()
    image.save(target, kind)
    return target.getvalue()


def plant_bad(folder: Path) -> dict[str, str]:
    """Bad files, by name, and what is to be said of each."""
    png, jpg = encoded("PNG", picture()), encoded("JPEG", picture())
    (folder / "0100.png").write_bytes(png[: len(png) // 2])
    (folder / "0200.jpg").write_bytes(jpg[: len(jpg) // 2])
    (folder / "0300.png").write_bytes(b"")
    (folder / "0400.png").write_text("<html>404</html>")
    (folder / "0500.png").symlink_to(folder / "nowhere.png")
    Image.new("1", (20_000, 20_000)).save(folder / "0600.png")
    Image.new("F", (8, 8)).save(folder / "0700.tiff")
    return {
        "0100.png": "damaged or cut off",
        "0200.jpg": "damaged or cut off",
        "0300.png": "an empty file (0 bytes)",
        "0400.png": "no image in a format",
        "0500.png": "a link to no file",
        "0600.png": "more than 178956970 pixels",
        "0700.tiff": "32-bit pixels",
    }


def plant_odd(folder: Path) -> list[str]:
    """Files that look odd and are fine."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().convert("CMYK").save(folder / "1000.jpg")
    grey = np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50
    Image.fromarray(grey).save(folder / "1100.png")
    picture().quantize(16).save(folder / "1200.png", transparency=3)
    picture().save(folder / "1300.gif", save_all=True, append_images=[picture(1)])
    picture().save(folder / "1400.jpg", exif=exif)
    (folder / "1500.png").write_bytes(encoded("JPEG", picture()))
    return ["1000.jpg", "1100.png", "1200.png", "1300.gif", "1400.jpg", "1500.png"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    planted = [*plant_bad(folder), *plant_odd(folder)]
    for number in range(TOTAL):
        if not any(name.startswith(f"{number:04d}.") for name in planted):
            picture(number, (24 + number % 5, 24)).save(folder / f"{number:04d}.png")
    assert len(list(folder.iterdir())) == TOTAL
    return folder


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return plant_bad(tmp_path_factory.mktemp("bad"))


@pytest.fixture(autouse=True)
def _pillow_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


def composed(data: Path, told: Told | None = None, **values: Any) -> Plan:
    spec = make_spec({**SETTINGS, "data": str(data), **values})
    return compose(spec, Registry.default(), observer=told, analyse=False)


def test_the_default_stops_with_the_list(photos: Path, bad: dict[str, str]) -> None:
    with pytest.raises(ImageError) as caught:
        composed(photos)
    first, *lines = caught.value.message.splitlines()
    assert first == f"{len(bad)} of {TOTAL} samples have an image that cannot be used:"
    assert len(lines) == len(bad)
    for line, (name, said) in zip(lines, bad.items(), strict=True):
        assert f"/{name}: {said}" in line
    assert "--on-bad-sample skip" in caught.value.hint


def test_nothing_is_written_before_it_stops(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        vlmlens.run(**SETTINGS, data=str(photos), out=str(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_skipping_leaves_exactly_the_bad_ones_out(photos: Path, bad: dict[str, str]) -> None:
    told = Told()
    plan = composed(photos, told, on_bad_sample="skip")
    assert [each.id for each in plan.skipped] == list(bad)
    assert all(said in each.reason for each, said in zip(plan.skipped, bad.values(), strict=True))
    assert len(plan.samples) == TOTAL - len(bad)
    assert {"1000.jpg", "1100.png", "1200.png", "1300.gif", "1400.jpg", "1500.png"} <= {
        sample.id for sample in plan.samples
    }
    (warning,) = told.warnings
    assert f"{len(bad)} of {TOTAL} samples" in warning
    assert plan.estimate.samples == TOTAL - len(bad)


def test_a_limit_of_ones_own(tmp_path: Path) -> None:
    Image.new("1", (13_400, 13_400)).save(tmp_path / "large.png")
    for number in range(40):
        picture(number, (24 + number % 5, 24)).save(tmp_path / f"{number:04d}.png")
    assert [each.id for each in composed(tmp_path, on_bad_sample="skip").skipped] == ["large.png"]
    plan = composed(tmp_path, on_bad_sample="skip", max_pixels=180_000_000)
    assert (len(plan.samples), len(plan.skipped)) == (41, 0)
    small = composed(tmp_path, on_bad_sample="skip", max_pixels=26 * 24)
    assert len(small.skipped) == 2 * 8 + 1


def test_several_questions_on_a_bad_image(photos: Path, bad: dict[str, str]) -> None:
    plan = composed(photos, on_bad_sample="skip", prompt=["What is it?", "Which colour?"])
    assert [each.id for each in plan.skipped] == [f"{name}#{k}" for name in bad for k in (0, 1)]


def test_a_run_that_skips_equals_a_run_on_the_good_ones(tmp_path: Path) -> None:
    folder, clean = tmp_path / "mixed", tmp_path / "clean"
    folder.mkdir()
    clean.mkdir()
    bad = plant_bad(folder)
    plant_odd(folder)
    for number in range(40):
        picture(number).save(folder / f"{number:04d}.png")
    for path in folder.iterdir():
        if path.name not in bad:
            (clean / path.name).write_bytes(path.read_bytes())
    settings = {**SETTINGS, "batch_size": 8, "analysis": ["logit-lens"]}
    skipping = vlmlens.run(
        **settings, data=str(folder), on_bad_sample="skip", out=str(tmp_path / "a")
    )
    plain = vlmlens.run(**settings, data=str(clean), out=str(tmp_path / "b"))
    assert [s.id for s in skipping.samples] == [s.id for s in plain.samples]
    assert set(skipping.activations) == set(plain.activations)
    for name, values in plain.activations.items():
        assert np.array_equal(values, skipping.activations[name])
    assert [f.text for f in skipping.results["logit-lens"].findings] == [
        f.text for f in plain.results["logit-lens"].findings
    ]
    assert {each.id for each in skipping.skipped} == set(bad)
    assert skipping.info["summary"]["skipped"] == len(bad)
    assert plain.info["summary"]["skipped"] == 0
    assert not (plain.path / "skipped.jsonl").exists()


def test_when_all_are_bad(tmp_path: Path) -> None:
    plant_bad(tmp_path)
    with pytest.raises(ImageError, match="7 of 7 samples") as caught:
        composed(tmp_path, on_bad_sample="skip")
    assert "No sample is left" in caught.value.hint


def test_shapes_that_a_models_processor_refuses(tmp_path: Path) -> None:
    """Qwen2-VL takes a pixel and refuses a line; neither is judged by rule of thumb."""
    checks = pytest.importorskip("vlmlens_adapter_qwen2vl.checks")
    for name, size in (("line", (420, 2)), ("pixel", (1, 1)), ("plain", (60, 40))):
        picture(size=size).save(tmp_path / f"{name}.png")
    values = {"adapter": "qwen2vl", "model": str(checks.CHECKS[0]().checkpoint)}
    plan = composed(tmp_path, on_bad_sample="skip", sites=["llm.block.0/last"], **values)
    assert [each.id for each in plan.skipped] == ["line.png"]
    assert "420 x 2 pixels, which the model refuses (absolute aspect" in plan.skipped[0].reason
    with pytest.raises(ImageError, match="1 of 3 samples"):
        composed(tmp_path, sites=["llm.block.0/last"], **values)


def test_from_the_command_line(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    bad = plant_bad(folder)
    picture().save(folder / "good.png")
    command = ["extract", "--data", folder, "--prompt", "What is it?", "--dry-run", "--json"]

    def done(*more: str) -> subprocess.CompletedProcess[str]:
        return _program.vlmlens(*command, *more)

    stopped = done()
    assert stopped.returncode == 2
    error = json.loads(stopped.stdout)["error"]
    assert error["type"] == "ImageError"
    assert error["message"].startswith("7 of 8 samples have an image that cannot be used:")
    skipping = done("--on-bad-sample", "skip")
    assert skipping.returncode == 0, skipping.stderr
    document = json.loads(skipping.stdout)
    assert document["samples"] == 1
    assert [each["id"] for each in document["skipped"]] == list(bad)
    assert "They are skipped." in skipping.stderr
    refused = done("--on-bad-sample", "ignore")
    assert refused.returncode == 2
