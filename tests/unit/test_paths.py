"""Paths as people write them: with `~`, as on Windows, relative to a run file."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmlens import Run
from vlmlens._files import cache_folder
from vlmlens.cli._options import SpecFlags
from vlmlens.errors import FileError, SpecError
from vlmlens.runs.run import is_run
from vlmlens.spec.model import make_spec
from vlmlens_plugins.storage._locations import local_path
from vlmlens_plugins.storage._place_names import place_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("key", ["model", "data", "out"])
def test_home_in_a_spec(home: Path, key: str) -> None:
    assert getattr(make_spec({key: "~/x/y"}), key) == str(home / "x" / "y")
    assert getattr(make_spec({key: "~nobody-here/x"}), key) == "~nobody-here/x"
    assert getattr(make_spec({key: "x~/y"}), key) == "x~/y"


def test_home_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.create(home / "run", make_spec({}), {})
    assert is_run("~/run")
    assert Run("~/run").path == run.path
    monkeypatch.setenv("VLMLENS_CACHE", "~/cache")
    assert cache_folder() == home / "cache"
    (home / "run.yaml").write_text("out: ~/runs/x\n")
    assert SpecFlags({}, "~/run.yaml", ()).spec().out == str(home / "runs" / "x")


@pytest.mark.parametrize("text", ["sqlite://~/x.db", "sqlite:///~/x.db", "~/x.db"])
def test_home_in_a_place(home: Path, text: str) -> None:
    assert local_path(text, "sqlite", "") == str(home / "x.db")
    place = place_of(text.replace("sqlite", "zarr"), "zarr", {}, take_over=False)
    assert place.name == str(home / "x.db")


@pytest.mark.parametrize("key", ["model", "data", "out"])
@pytest.mark.parametrize("value", [r"C:\photos", "D:/photos/x", r"photos\cats", r"images:pics\a"])
def test_paths_of_windows_are_explained(key: str, value: str) -> None:
    with pytest.raises(SpecError, match="path of Windows"):
        make_spec({key: value})


def test_what_looks_like_windows_may_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / r"a\b").mkdir()
    assert make_spec({"data": r"a\b"}).data == r"a\b"
    assert make_spec({"data": "hf:org/name:split"}).data == "hf:org/name:split"


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(SpecError, match="no UTF-8"):
        make_spec({"out": "x\udcff"})


@pytest.mark.parametrize("value", ["photos", "./photos", "images:photos"])
def test_a_path_beside_the_run_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "photos").mkdir(parents=True)
    (tmp_path / "configs" / "run.yaml").write_text(f"data: {value}\n")
    with pytest.raises(SpecError, match="beside the file") as caught:
        SpecFlags({}, "configs/run.yaml", ()).spec()
    assert "configs/photos" in caught.value.hint
    assert SpecFlags({"data": "other"}, "configs/run.yaml", ()).spec().data == "other"
    (tmp_path / "photos").mkdir()
    assert SpecFlags({}, "configs/run.yaml", ()).spec().data == value


def test_a_checkpoint_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work" / "ck").mkdir(parents=True)
    info = {"working_folder": str(tmp_path / "work")}
    Run.create(tmp_path / "run", make_spec({"model": "ck"}), info)
    monkeypatch.chdir(tmp_path)
    assert Run(tmp_path / "run").spec.model == str(tmp_path / "work" / "ck")
    monkeypatch.chdir(tmp_path / "work")
    assert Run(tmp_path / "run").spec.model == "ck"


@pytest.mark.parametrize("place", ["/proc/x", "/dev/null/x"])
def test_a_cache_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    from vlmlens._disk import made_cache

    monkeypatch.setenv("VLMLENS_CACHE", place)
    with pytest.raises(FileError, match=r"cache folder .* cannot be made") as caught:
        made_cache("images")
    assert "VLMLENS_CACHE" in caught.value.hint
