"""The dataset `hf`: the conformance kit over each way to store one, and what its columns mean."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vlmlens.compose.plan import compose
from vlmlens.errors import (
    DataError,
    DataNotFound,
    DuplicateSample,
    ManifestError,
    MissingDependency,
)
from vlmlens.registry import Registry
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec

datasets = pytest.importorskip("datasets")

from vlmlens_plugins.data import hf_checks  # noqa: E402 - needs the line above
from vlmlens_plugins.data.hf import HubDataset  # noqa: E402
from vlmlens_plugins.data.hf_checks import embedded, png  # noqa: E402


@pytest.fixture(autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
    datasets.disable_progress_bars()


def read(source: Any, prompts: Sequence[str] = (), **options: Any) -> list[Sample]:
    return HubDataset(str(source), HubDataset.Options(**options)).samples(prompts)


class TestSavedToDisk(hf_checks.SavedToDiskChecks):
    pass


class TestSplits(hf_checks.SplitsChecks):
    """A folder with several splits, of which the source names one."""


class TestParquetFolder(hf_checks.ParquetFolderChecks):
    pass


class TestPathsInJson(hf_checks.PathsInJsonChecks):
    """Images beside the data, joined from a folder."""


def test_columns_and_classes(tmp_path: Path) -> None:
    embedded().save_to_disk(tmp_path / "saved")
    data = HubDataset(str(tmp_path / "saved"), HubDataset.Options())
    first, second, third = data.samples([])
    assert (first.id, first.prompt, first.label) == ("row-000001", "Colour?", "blue")
    assert dict(first.attributes) == {"weight": 1.5, "tags": '["a"]'}
    assert (second.label, third.prompt) == ("red", "Grüße?")
    assert first.images == second.images != third.images
    assert first.open_images()[0].getpixel((0, 0)) == (1, 0, 0)
    notes = "\n".join(data.notes)
    assert "the column 'question' is read as 'prompt'" in notes
    assert "the column 'answer' is read as 'label'" in notes
    assert "'image'" not in notes


def test_the_users_columns(tmp_path: Path) -> None:
    rows = {"question": ["a?", "b?"], "prompt": ["no", "no"], "y": ["1", "2"], "id": ["x", "x"]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
    with pytest.raises(DuplicateSample):
        read(tmp_path / "saved")
    chosen = {"prompt": "question", "label": "y", "id": None}
    samples = read(tmp_path / "saved", columns=chosen)
    assert [(s.id, s.prompt, s.label) for s in samples] == [
        ("row-000001", "a?", "1"),
        ("row-000002", "b?", "2"),
    ]
    assert dict(samples[0].attributes) == {"prompt": "no", "id": "x"}
    with pytest.raises(ManifestError, match=r"no column 'questoin' to use as 'prompt'.*question"):
        read(tmp_path / "saved", columns={"prompt": "questoin"})


def test_answers_as_positions_of_the_choices(tmp_path: Path) -> None:
    rows = {"question": ["a?", "b?"], "choices": [["red", "blue"]] * 2, "answer": [1, 0]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "positions")
    data = HubDataset(str(tmp_path / "positions"), HubDataset.Options())
    assert [sample.label for sample in data.samples([])] == ["blue", "red"]
    assert any("positions of the choices" in note for note in data.notes)
    rows = {"question": ["a?"], "choices": [["red", "blue"]], "answer": [3]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "outside")
    with pytest.raises(ManifestError, match="'3' is not one of the choices"):
        read(tmp_path / "outside")


def test_no_prompt(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"caption": ["a", "b"]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ManifestError, match=r"no column is a prompt.*There are caption"):
        read(tmp_path / "saved")
    assert [s.prompt for s in read(tmp_path / "saved", ["What?"])] == ["What?", "What?"]


def test_several_images(tmp_path: Path) -> None:
    features = datasets.Features(
        {"prompt": datasets.Value("string"), "images": datasets.List(datasets.Image())}
    )
    rows = {"prompt": ["a", "b"], "images": [[png(1), png(2)], []]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    first, second = read(tmp_path / "saved")
    assert [image.getpixel((0, 0)) for image in first.open_images()] == [(1, 0, 0), (2, 0, 0)]
    assert second.images == ()


def test_the_only_image_column_is_found_by_its_type(tmp_path: Path) -> None:
    embedded().rename_column("image", "photo").save_to_disk(tmp_path / "saved")
    assert all(sample.images for sample in read(tmp_path / "saved"))


@pytest.mark.parametrize(
    ("cell", "said"),
    [("../x.png", "is outside the folder"), ("https://a.b/c.png", "is an address")],
)
def test_image_paths_that_are_refused(tmp_path: Path, cell: str, said: str) -> None:
    rows = {"prompt": ["a"], "image": [cell]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=said):
        read(tmp_path / "saved", image_root=str(tmp_path))


def test_splits_are_named(tmp_path: Path) -> None:
    data = datasets.DatasetDict({"train": embedded(), "validation": embedded().select([0])})
    data.save_to_disk(tmp_path / "saved")
    with pytest.raises(DataNotFound, match=r"several splits: train, validation.*saved:train"):
        read(tmp_path / "saved")
    with pytest.raises(DataNotFound, match=r"no split 'valid'.*validation"):
        read(f"{tmp_path / 'saved'}:valid")
    assert len(read(f"{tmp_path / 'saved'}:validation")) == 1


def test_part_of_a_split(tmp_path: Path) -> None:
    embedded().to_parquet(tmp_path / "data" / "train.parquet")
    assert len(read(f"{tmp_path / 'data'}:train[:2]")) == 2


def test_a_name_that_is_not_on_the_hub() -> None:
    with pytest.raises(DataNotFound, match="'org/name:test' cannot be loaded") as caught:
        read("org/name:test")
    assert "hf auth login" in caught.value.hint


def test_in_a_run(tmp_path: Path) -> None:
    """Found by its name and by its folder; guesses are shown, and are in the plan."""
    embedded().save_to_disk(tmp_path / "saved")
    for data in (f"hf:{tmp_path / 'saved'}", str(tmp_path / "saved")):
        spec = make_spec({"data": data, "sites": ["llm.block.0/last"]})
        plan = compose(spec, Registry.default(), analyse=False)
        assert len(plan.samples) == 3
        assert any("'question' is read as 'prompt'" in note for note in plan.notes)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded().save_to_disk(tmp_path / "saved")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependency, match="needs the package datasets") as caught:
        read(tmp_path / "saved")
    assert "vlmlens[hf-data]" in caught.value.hint
    with pytest.raises(MissingDependency, match="'hf' needs the module datasets"):
        Registry.default().dataset_for("hf:org/name")


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "mask": datasets.Image(),
            "prompt": datasets.Value("string"),
            "answer": datasets.Value("string"),
            "label": datasets.Value("string"),
            "video_path": datasets.Value("string"),
        }
    )
    row = ["x"]
    rows = {"image": [png(1)], "mask": [png(2)], "prompt": row, "answer": row, "label": row}
    data = datasets.Dataset.from_dict({**rows, "video_path": row}, features=features)
    data.save_to_disk(tmp_path / "saved")
    found = HubDataset(str(tmp_path / "saved"), HubDataset.Options())
    found.samples([])
    (note,) = found.notes
    for unused in ("'mask' (image)", "'answer' (label)", "'video_path' (video)"):
        assert unused in note
    found.samples(["What?"])
    assert any("--prompt replaces the prompts of 'prompt'" in note for note in found.notes)


def test_a_cell_without_its_image(tmp_path: Path) -> None:
    features = datasets.Features(
        {"prompt": datasets.Value("string"), "images": datasets.List(datasets.Image())}
    )
    cells = [[png(1), None], [png(1)]]
    data = datasets.Dataset.from_dict({"prompt": ["?", "!"], "images": cells}, features=features)
    data.save_to_disk(tmp_path / "saved")
    with pytest.raises(ManifestError, match="image 2 of 2 is missing"):
        read(tmp_path / "saved")
