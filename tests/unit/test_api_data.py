"""Samples that are given in memory: a run on them reads, resumes and repeats like any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vlmlens
from vlmlens import Run, Sample
from vlmlens.abc import Dataset, Options
from vlmlens.errors import DataNotFound, FingerprintMismatch, ImageError, ManifestError, SpecError
from vlmlens.spec.model import read_yaml

COLORS = {"red": (200, 30, 30), "blue": (30, 30, 200)}
COLUMN = "llm.block.5/last"


def image(color: str) -> Image.Image:
    return Image.new("RGB", (64, 64), COLORS[color])


def samples() -> list[Sample]:
    return [Sample(color, "Color:", (image(color),), label=color) for color in COLORS]


def rows() -> list[dict[str, Any]]:
    return [
        {"id": color, "image": image(color), "prompt": "Color:", "label": color, "bright": 1.5}
        for color in COLORS
    ]


class Colors(Dataset):
    notes = ("two colors",)

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        del prompts
        return samples()


def frame() -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(rows())


def extracted(folder: Path, data: Any, **settings: Any) -> Run:
    return vlmlens.extract(data=data, sites=COLUMN, device="cpu", out=folder, **settings)


def values(run: Run) -> np.ndarray[Any, Any]:
    return np.asarray(run.activations[COLUMN])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return extracted(tmp_path_factory.mktemp("memory") / "run", samples())


@pytest.mark.parametrize(
    "make", [rows, frame, lambda: Colors("", Options()), lambda: iter(samples())]
)
def test_every_form_gives_the_same_run(make: Callable[[], Any], run: Run, tmp_path: Path) -> None:
    other = extracted(tmp_path / "run", make())
    assert np.array_equal(values(other), values(run))
    assert [s.label for s in other.samples] == list(COLORS)
    prints = [[r["fingerprint"] for r in each.sample_records()] for each in (run, other)]
    assert prints[0] == prints[1]


def test_columns_of_a_frame_are_those_of_a_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    given = pandas.DataFrame(
        {
            "image": [image("red"), None],
            "prompt": ["Color:", "Hello?"],
            "choices": ["red|blue", None],
            "label": ["red", float("nan")],
            "size": pandas.array([3, None], dtype="Int64"),
        }
    )
    found = extracted(tmp_path / "run", given, text_only=True).samples
    assert [s.id for s in found] == ["row-000001", "row-000002"]
    assert [s.choices for s in found] == [("red", "blue"), ()]
    assert [s.label for s in found] == ["red", None]
    assert [dict(s.attributes) for s in found] == [{"size": 3}, {"size": None}]
    with pytest.raises(ManifestError, match="rows in memory, row 1: column 'choices'"):
        extracted(tmp_path / "bad", given.assign(choices="red"))


def test_a_dataset_of_the_package_datasets(run: Run, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    other = extracted(tmp_path / "run", datasets.Dataset.from_list(rows()))
    assert np.array_equal(values(other), values(run))


def test_an_image_in_memory_gives_what_its_file_gives(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for color in COLORS:
        image(color).save(folder / f"{color}.png")
    files = [Sample(color, "Color:", (folder / f"{color}.png",)) for color in COLORS]
    kept = extracted(tmp_path / "run", files)
    assert np.array_equal(values(kept), values(run))
    assert not (kept.path / "images").exists()
    assert [s.fingerprint() for s in kept.samples] == [s.fingerprint() for s in run.samples]


def test_images_are_kept_in_the_run_by_content(run: Run, tmp_path: Path) -> None:
    twice = [*samples(), Sample("again", "Shape:", (image("red"),))]
    other = extracted(tmp_path / "run", twice)
    kept = sorted((other.path / "images").iterdir())
    assert len(kept) == 2
    for sample, color in zip(other.samples, COLORS, strict=False):
        assert Path(str(sample.images[0])) in kept
        assert sample.open_images()[0].tobytes() == image(color).tobytes()
    moved = other.path.rename(tmp_path / "elsewhere")
    assert Run(moved).samples[2].open_images()[0].size == (64, 64)
    other = Run(moved)
    other.clear()
    assert [file.name for file in moved.iterdir()] == ["run.lock"]


def test_the_folder_says_what_was_given(run: Run, tmp_path: Path) -> None:
    spec = read_yaml(run.path / "spec.yaml")
    assert spec["data"] == spec["out"] == str(run.path)
    again = vlmlens.extract(**{**spec, "out": tmp_path / "again"})
    assert np.array_equal(values(again), values(run))
    assert again.spec.data == str(run.path)


def test_a_run_is_data_too(run: Run, tmp_path: Path) -> None:
    other = extracted(tmp_path / "run", run, prompt="Shape:", limit=1)
    assert [(s.id, s.prompt) for s in other.samples] == [("red", "Shape:")]
    assert other.spec.data == str(run.path)
    assert other.samples[0].images == run.samples[0].images


def test_it_goes_on_and_starts_over(tmp_path: Path) -> None:
    run = extracted(tmp_path / "run", samples()[:1])
    run = extracted(run.path, samples(), mode="resume")
    assert values(run).shape[0] == 2
    changed = [Sample("red", "Color:", (image("blue"),))]
    with pytest.raises(FingerprintMismatch, match="'red' has another prompt or image"):
        extracted(run.path, changed, mode="resume")
    before = values(run)
    run = vlmlens.extract(**read_yaml(run.path / "spec.yaml"), mode="fresh")
    assert np.array_equal(values(run), before)
    run = extracted(run.path, changed, mode="fresh")
    assert len(list((run.path / "images").iterdir())) == 1


def test_one_sample_is_enough(tmp_path: Path) -> None:
    assert [s.id for s in extracted(tmp_path / "run", samples()[0]).samples] == ["red"]


def test_prompts_are_asked_once(tmp_path: Path) -> None:
    run = extracted(tmp_path / "run", samples(), prompt=["Color:", "Shape:"])
    names = [s.id for s in run.samples]
    assert names == ["red#0", "red#1", "blue#0", "blue#1"]
    again = vlmlens.extract(**{**read_yaml(run.path / "spec.yaml"), "out": tmp_path / "again"})
    assert [s.id for s in again.samples] == names


def test_the_model_runs_on_them_again(run: Run) -> None:
    results = vlmlens.analyze(run, "logit-lens")
    assert list(results) == ["logit-lens"]
    assert results["logit-lens"].tables == run.results["logit-lens"].tables
    page = run.report_path.read_text(encoding="utf-8")
    assert "data:image/" in page


def test_analyze_and_export_take_a_folder(run: Run, tmp_path: Path) -> None:
    assert vlmlens.open(str(run.path)).path == run.path
    assert vlmlens.export(str(run.path), tmp_path / "all.npz") == "npz"
    assert (tmp_path / "all.npz").exists()
    again = vlmlens.analyze(str(run.path), {"logit-lens": {}}, seed=1, fresh=True)
    assert list(again) == ["logit-lens"]


def test_runs_are_compared(run: Run, tmp_path: Path) -> None:
    vlmlens.analyze(run, "logit-lens", fresh=True)
    other = extracted(tmp_path / "run", run)
    vlmlens.analyze(other, "logit-lens")
    result = vlmlens.compare(run, other.path, to=tmp_path / "page.html")
    assert result.tables
    assert (tmp_path / "page.html").exists()


def test_an_image_that_cannot_be_used(tmp_path: Path) -> None:
    odd = Sample("odd", "Color:", (Image.new("F", (64, 64)),))
    with pytest.raises(ImageError, match=r"odd \(in memory\): 32-bit pixels"):
        extracted(tmp_path / "run", [*samples(), odd])
    run = extracted(tmp_path / "run", [*samples(), odd], on_bad_sample="skip")
    assert [bad.id for bad in run.skipped] == ["odd"]
    assert len(run.samples) == 2


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        ([], DataNotFound, "holds no samples"),
        (3, SpecError, "3 of int, which is no sample"),
        ({"image": "a.png"}, SpecError, "which is no sample"),
        ([*samples(), "photos/"], SpecError, "'photos/' of str, which is no sample"),
    ],
)
def test_other_things_are_refused(
    data: Any, error: type[Exception], says: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says):
        extracted(tmp_path / "run", data)
    assert not (tmp_path / "run").exists()
