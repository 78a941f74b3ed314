"""Entry points read straight from metadata folders: the same as the standard library finds."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import Distribution, DistributionFinder, distributions, entry_points
from pathlib import Path

import pytest

from vlmlens.registry._choice import Choice
from vlmlens.registry._installed import Point, installed_points

TEXT = "[console_scripts]\nx = a:b\n\n[vlmlens.storage]\n# a comment\nmine = pkg.card:CARD\n"


def metadata(
    folder: Path, *, name: str = "Some.Package", entries: str = TEXT, file: str = "METADATA"
) -> None:
    folder.mkdir(parents=True)
    (folder / file).write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n\nName: no\n")
    (folder / "entry_points.txt").write_text(entries)


def facts(points: Sequence[Point]) -> set[tuple[str, ...]]:
    return {(p.group, p.name, p.value, p.distribution, p.version) for p in points}


def test_what_is_installed_here_is_what_importlib_finds() -> None:
    groups = [group for group in entry_points().groups if group.startswith("vlmlens.")]
    expected = [Point.of(p) for group in groups for p in entry_points(group=group)]
    assert len(expected) > 20
    assert facts(installed_points()) == facts(expected)


@pytest.mark.parametrize(
    ("folder", "file"), [("some_package-1.2.dist-info", "METADATA"), ("x.egg-info", "PKG-INFO")]
)
def test_a_folder_of_metadata(tmp_path: Path, folder: str, file: str) -> None:
    metadata(tmp_path / folder, file=file)
    expected = {("vlmlens.storage", "mine", "pkg.card:CARD", "Some.Package", "1.2")}
    assert facts(installed_points([str(tmp_path)])) == expected
    found = distributions(path=[str(tmp_path)])
    ours = [p for each in found for p in each.entry_points if p.group == "vlmlens.storage"]
    assert facts([Point.of(point) for point in ours]) == expected


def test_without_metadata_the_folder_names_the_distribution(tmp_path: Path) -> None:
    metadata(tmp_path / "some_package-3.dist-info")
    (tmp_path / "some_package-3.dist-info" / "METADATA").unlink()
    (point,) = installed_points([str(tmp_path)])
    assert (point.distribution, point.version) == ("some_package", "3")


def test_the_first_on_the_path_counts(tmp_path: Path) -> None:
    metadata(tmp_path / "a" / "some_package-1.2.dist-info")
    other = TEXT.replace("mine", "theirs")
    metadata(tmp_path / "b" / "Some.Package-1.3.dist-info", entries=other)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert [point.name for point in installed_points([a, b, a])] == ["mine"]
    assert [point.name for point in installed_points([b, a])] == ["theirs"]


def test_zip_files_and_eggs(tmp_path: Path) -> None:
    metadata(tmp_path / "x" / "some_package-1.2.dist-info")
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in (tmp_path / "x").rglob("*"):
            packed.write(file, file.relative_to(tmp_path / "x"))
    egg = tmp_path / "other-2.egg"
    metadata(egg / "EGG-INFO", name="other", file="PKG-INFO")
    found = facts(installed_points([str(archive), str(egg)]))
    assert {fact[3:] for fact in found} == {("Some.Package", "1.2"), ("other", "1.2")}


def test_distributions_of_other_finders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata(tmp_path / "some_package-1.2.dist-info")

    class Finder:
        @staticmethod
        def find_spec(*_: object) -> None: ...

        @staticmethod
        def find_distributions(context: object = DistributionFinder.Context()) -> object:
            return [Distribution.at(tmp_path / "some_package-1.2.dist-info")]

    assert "Some.Package" not in {point.distribution for point in installed_points()}
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert "Some.Package" in {point.distribution for point in installed_points()}


def test_damaged_metadata_and_what_pip_left_over(tmp_path: Path) -> None:
    metadata(tmp_path / "other-2.egg" / "EGG-INFO", file="PKG-INFO")
    (tmp_path / "other-2.egg" / "EGG-INFO" / "PKG-INFO").unlink()
    metadata(tmp_path / "~ome_package-1.2.dist-info")
    (only,) = installed_points([str(tmp_path / "other-2.egg"), str(tmp_path)])
    assert (only.name, only.distribution) == ("mine", "")


def test_places_that_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("no zip")
    (tmp_path / "empty").mkdir()
    places = [str(tmp_path / name) for name in ("none", "file.txt", "empty")]
    assert installed_points(places) == []


@pytest.mark.parametrize(
    "value", ["json.decoder:JSONDecoder.decode", "json.decoder : JSONDecoder.decode [x]"]
)
def test_load(value: str) -> None:
    from json.decoder import JSONDecoder

    point = Point("vlmlens.plugins", "x", value, ("d", "1"))
    assert point.load() is JSONDecoder.decode
    assert point.package == "json"
    assert (
        Point("vlmlens.plugins", "x", "json.decoder", ("d", "1")).load()
        is sys.modules["json.decoder"]
    )


# ---------------------------------------------------------------------- which are left out


def point(name: str, distribution: str) -> Point:
    return Point("vlmlens.storage", name, "a:b", (distribution, "1"))


@pytest.mark.parametrize(
    ("disable", "load", "left"),
    [
        (None, None, {"own", "aa", "bb"}),
        ("aa", None, {"own", "bb"}),
        ("DIST_a", None, {"own", "bb"}),
        ("dist-a:aa, dist-a:bb", None, {"own", "bb"}),
        ("own", None, {"aa", "bb"}),
        ("all", None, {"own"}),
        ("", "", {"own"}),
        (None, "bb", {"own", "bb"}),
        ("bb", "aa,bb", {"own", "aa"}),
    ],
)
def test_what_the_environment_leaves(disable: str | None, load: str | None, left: set[str]) -> None:
    given = {"VLMLENS_DISABLE_PLUGINS": disable, "VLMLENS_LOAD_PLUGINS": load}
    choice = Choice.from_environment({key: text for key, text in given.items() if text is not None})
    points = [point("own", "vlmlens"), point("aa", "Dist.A"), point("bb", "dist-b")]
    assert {each.name for each in points if not choice.reason(each)} == left


def test_what_names_nothing_is_known() -> None:
    choice = Choice(("aa", "typo", "all"), ("bb", "typo-too"))
    assert choice.unknown([point("aa", "a"), point("bb", "b")]) == [
        ("VLMLENS_DISABLE_PLUGINS", "typo"),
        ("VLMLENS_LOAD_PLUGINS", "typo-too"),
    ]
