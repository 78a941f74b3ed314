"""Versions of all distributions are in step, and what is out of step is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from scripts.release.versions import (
    ROOT,
    files,
    minor,
    out_of_step,
    projects,
    set_version,
    version,
)

import vlmlens


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for path in files():
        (tmp_path / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    return tmp_path


def test_this_checkout_is_in_step() -> None:
    assert out_of_step() == []
    assert version() == vlmlens.__version__
    assert len(projects()) == 1 + len(list((ROOT / "adapters").glob("*/pyproject.toml")))


def test_every_distribution_names_the_minor_version_of_the_others(copy: Path) -> None:
    changed = set_version("0.4.2", copy)
    assert len(changed) == len(list(files(copy)))
    assert out_of_step(copy) == []
    root = (copy / "pyproject.toml").read_text(encoding="utf-8")
    for folder in projects(copy)[1:]:
        text = (folder / "pyproject.toml").read_text(encoding="utf-8")
        assert 'version = "0.4.2"' in text
        assert '"vlmlens>=0.4,<0.5"' in text
        name = text.partition('name = "')[2].partition('"')[0]
        assert f'"{name}>=0.4,<0.5"' in root
        assert '"vlmlens.adapters"' in text
    assert "version: 0.4.2" in (copy / "CITATION.cff").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "was", "is_now"),
    [
        ("adapters/llava/pyproject.toml", 'version = "', 'version = "9.'),
        ("adapters/plm/pyproject.toml", '"vlmlens>=', '"vlmlens>=9.'),
        ("pyproject.toml", '"vlmlens-adapter-clip>=', '"vlmlens-adapter-clip>=9.'),
        ("CITATION.cff", "version: 0", "version: 9"),
    ],
)
def test_what_is_out_of_step_is_told(copy: Path, file: str, was: str, is_now: str) -> None:
    text = (copy / file).read_text(encoding="utf-8")
    assert was in text
    (copy / file).write_text(text.replace(was, is_now), encoding="utf-8")
    (told,) = out_of_step(copy)
    assert told.startswith(file)
    set_version(version(copy), copy)
    assert (copy / file).read_text(encoding="utf-8") == text


def test_a_distribution_has_its_own_files_and_no_tests() -> None:
    sent = [each.distribution_path for each in SdistBuilder(str(ROOT)).recurse_included_files()]
    tops = {"core", "plugins", "templates", "constraints.txt", "constraints-dev.txt", "copier.yml"}
    assert {Path(name).parts[0] for name in sent} == {*tops, "README.md", "LICENSE", "CHANGELOG.md"}
    for folder in projects():
        source = SdistBuilder(str(folder)).recurse_included_files()
        inside = [Path(each.distribution_path).parts for each in source]
        assert [parts for parts in inside if "tests" in parts and "templates" not in parts] == []
        wheel = [e.distribution_path for e in WheelBuilder(str(folder)).recurse_included_files()]
        assert len(wheel) > 3
        assert [name for name in wheel if "tests" in Path(name).parts] == []
        if folder == ROOT:
            assert {"vlmlens/view/static/view.js", "vlmlens/sharing/_push.py"} <= {*wheel}


@pytest.mark.parametrize("number", ["1", "v1.0.0", "1.0", "1.0.0-rc1", "01.0.0", ""])
def test_what_is_no_version_is_refused(number: str, copy: Path) -> None:
    with pytest.raises(SystemExit, match="no version"):
        set_version(number, copy)
    assert out_of_step(copy) == []


def test_candidates_ask_for_themselves() -> None:
    assert minor("1.0.0rc2") == ">=1.0.0rc2,<1.1"
