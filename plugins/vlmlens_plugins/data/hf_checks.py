"""The conformance kit over the dataset `hf`, on data sets made and kept on disk."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import datasets
from PIL import Image

from vlmlens.manifest import Manifest
from vlmlens.testing import DatasetTests
from vlmlens_plugins.data.manifests import HF


def png(red: int) -> dict[str, Any]:
    """A small image as `datasets` embeds it."""
    target = io.BytesIO()
    Image.new("RGB", (6, 4), (red, 0, 0)).save(target, "PNG")
    return {"bytes": target.getvalue(), "path": None}


def embedded() -> Any:
    """Three rows with embedded images, two of them of the same one."""
    rows = {
        "question": ["Colour?", "How many?", "Grüße?"],
        "answer": [1, 0, 1],
        "image": [png(1), png(1), png(2)],
        "weight": [1.5, None, 2.0],
        "tags": [["a"], [], ["b", "c"]],
    }
    features = datasets.Features(
        {
            "question": datasets.Value("string"),
            "answer": datasets.ClassLabel(names=["red", "blue"]),
            "image": datasets.Image(),
            "weight": datasets.Value("float64"),
            "tags": datasets.List(datasets.Value("string")),
        }
    )
    return datasets.Dataset.from_dict(rows, features=features)


@contextmanager
def own_caches(folder: Path) -> Iterator[None]:
    """Nothing is cached outside the folder, and no bars are drawn."""
    datasets.disable_progress_bars()
    cache = {"VLMLENS_CACHE": str(folder / "vlmlens")}
    with (
        patch.dict("os.environ", cache),
        patch("datasets.config.HF_DATASETS_CACHE", folder / "hf"),
    ):
        yield


class SavedToDiskChecks(DatasetTests):
    """What `save_to_disk` wrote."""

    manifest: ClassVar[Manifest] = HF

    def do_check(self, name: str, folder: Path) -> None:
        """See `Checks.do_check`."""
        for part in ("caches", "data"):
            (folder / part).mkdir()
        with own_caches(folder / "caches"):
            super().do_check(name, folder / "data")

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        embedded().save_to_disk(folder / "saved")
        return str(folder / "saved")

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        (folder / "nothing").mkdir()
        (folder / "x.parquet").write_text("PAR1")
        (folder / "x.xlsx").write_text("")
        (folder / "x.jsonl").write_text('{"prompt": "a"}\n{"prompt": ')
        two = datasets.DatasetDict({"train": embedded(), "test": embedded()})
        two.save_to_disk(folder / "two")
        names = ("missing", "nothing", "x.parquet", "x.xlsx", "x.jsonl", "two", "two:val")
        return [*(str(folder / name) for name in names), "org/no-such-dataset"]


class SplitsChecks(SavedToDiskChecks):
    """A folder with several splits, of which the source names one."""

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        first = embedded().select([0])
        data = datasets.DatasetDict({"train": first, "test": embedded()})
        data.save_to_disk(folder / "saved")
        return f"{folder / 'saved'}:test"


class ParquetFolderChecks(SavedToDiskChecks):
    """A folder of Parquet files, named as the hub names them."""

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        embedded().to_parquet(folder / "data" / "test-00000-of-00001.parquet")
        return f"{folder / 'data'}:test"


class PathsInJsonChecks(SavedToDiskChecks):
    """Images beside the data, joined from a folder."""

    def options_in(self, folder: Path) -> Mapping[str, Any]:
        """See `DatasetTests.options_in`."""
        photos = folder / "photos"
        photos.mkdir(exist_ok=True)
        for name in ("1.png", "2.png"):
            Image.new("RGB", (6, 4)).save(photos / name)
        return {"image_root": str(photos)}

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        text = '{"prompt": "?", "image_path": "1.png"}\n{"prompt": "!", "image_path": "2.png"}\n'
        (folder / "data.jsonl").write_text(text)
        return f"{folder / 'data.jsonl'}:train"


HF_CHECKS = (SavedToDiskChecks, SplitsChecks, ParquetFolderChecks, PathsInJsonChecks)
