"""Videos in data: columns of tables and of datasets, lists of frames, folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.unit._clips import make_folder, numbers, table

from vlmlens.errors import DataError, ManifestError
from vlmlens.samples import Sample
from vlmlens.video_frames import with_frames
from vlmlens.videos import FrameRule, Video
from vlmlens_plugins.data.hf import HubDataset
from vlmlens_plugins.data.images import ImageFolder
from vlmlens_plugins.data.table import Table, TableOptions

pytest.importorskip("av")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("videos"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def read(folder: Path, *rows: dict[str, Any], **options: Any) -> list[Sample]:
    path = table(folder, [{"prompt": "What?", **row} for row in rows])
    return list(Table(str(path), TableOptions(**options)).samples(()))


def test_a_column_of_videos(folder: Path) -> None:
    (one, two) = read(folder, {"video": "a.mp4", "label": "x"}, {"video": "b.webm"})
    assert (one.images, one.video) == ((), Video(str(folder / "a.mp4")))
    assert (one.label, one.attributes) == ("x", {})
    assert two.video == Video(str(folder / "b.webm"))


@pytest.mark.parametrize("column", ["video_path", "clip", "file_name", "Video"])
def test_columns_of_usual_names(folder: Path, column: str) -> None:
    (one,) = read(folder, {column: "a.mp4"})
    assert one.video == Video(str(folder / "a.mp4"))


def test_lists_of_frames(folder: Path) -> None:
    frames = [f"f{number}.png" for number in range(3)]
    for row in ({"frames": frames, "fps": 2}, {"video": frames, "fps": 2.0}):
        (one,) = read(folder, row)
        assert numbers(one) == [0, 1, 2]
        assert one.video == Video("", (0, 1, 2), fps=2, total=3)
    (written,) = read(folder, {"frames": str(frames), "fps": 2})
    assert (written.images, written.video) == (one.images, one.video)
    (several,) = read(folder, {"images": frames})
    assert several.video is None  # as before


def test_videos_inside_a_table(folder: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    inside = {"bytes": (folder / "a.mp4").read_bytes(), "path": "a.mp4"}
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"video": [inside], "prompt": ["What?"]}), path)
    for found in (
        Table(str(path), TableOptions()).samples(()),
        HubDataset(str(path), HubDataset.Options()).samples(()),
    ):
        assert numbers(with_frames(found, FrameRule(count=3))[0]) == [6, 12, 18]


def test_frames_inside_a_dataset(folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    frames = [[str(folder / f"f{number}.png") for number in range(3)]]
    kinds = {"frames": datasets.List(datasets.Image()), "prompt": datasets.Value("string")}
    rows = {"frames": frames, "prompt": ["What?"], "fps": [2.0]}
    features = datasets.Features({**kinds, "fps": datasets.Value("float32")})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    (one,) = HubDataset(str(tmp_path / "saved"), HubDataset.Options()).samples(())
    assert numbers(one) == [0, 1, 2]
    assert one.video == Video("", (0, 1, 2), fps=2, total=3)


def test_columns_that_hold_no_video_stay_attributes(folder: Path) -> None:
    (one,) = read(folder, {"video": "session 7", "image": "f0.png"})
    assert (one.video, one.attributes) == (None, {"video": "session 7"})
    (both,) = read(folder, {"video": "a.mp4", "image": "f0.png"})
    assert (both.video, both.attributes) == (None, {"video": "a.mp4"})


def test_rows_that_cannot_be_used(folder: Path) -> None:
    asked = {"columns": {"video": "video"}}
    with pytest.raises(ManifestError, match="images, too"):
        read(folder, {"video": "a.mp4", "image": "f0.png"}, **asked)
    with pytest.raises(ManifestError, match="address; download the video first"):
        read(folder, {"video": "http://a.org/b.mp4"})
    with pytest.raises(DataError, match="outside the folder"):
        read(folder, {"video": "../b.mp4"})
    with pytest.raises(ManifestError, match="frames per second"):
        read(folder, {"frames": ["f0.png"], "fps": "fast"})
    (gone,) = read(folder, {"video": "../b.mp4"}, allow_outside=True)
    assert gone.video == Video(str(folder / "../b.mp4"))


def test_a_folder_of_videos(folder: Path, tmp_path: Path) -> None:
    for name in ("b10.webm", "b9.webm"):
        (tmp_path / name).write_bytes((folder / "b.webm").read_bytes())
    assert ImageFolder.reads(str(tmp_path))
    found = ImageFolder(str(tmp_path), ImageFolder.Options()).samples(["What?"])
    assert [(each.id, each.group) for each in found] == [("b9.webm",) * 2, ("b10.webm",) * 2]
    assert found[0].video == Video(str(tmp_path / "b9.webm"))
    Image.new("RGB", (4, 4)).save(tmp_path / "c.png")
    mixed = ImageFolder(str(tmp_path), ImageFolder.Options())
    assert [each.id for each in mixed.samples(["What?"])] == ["c.png"]
    assert "2 files are left out" in mixed.notes[0]
