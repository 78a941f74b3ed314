"""A plugin in a folder: checked without installing it, and named where its name is unknown."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlmlens.cli._app import app
from vlmlens.errors import PluginError, UnknownPlugin
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.registry.scaffold import NewPlugin, write_plugin
from vlmlens.testing.run import find_suites


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.mark.parametrize("kind", [PluginKind.DATASET, PluginKind.ADAPTER], ids=str)
def test_the_folder_that_new_writes_is_checked_as_it_is(kind: PluginKind, here: Path) -> None:
    pytest.importorskip("copier")
    name = f"mine{kind.value}"
    folder = f"vlmlens-{kind.value}-{name}"
    write_plugin(NewPlugin(kind, name, Path(folder), {}))
    found = find_suites(Registry.default(), f"./{folder}")
    assert {suite.manifest.name for suite in found} == {name}
    assert {suite.manifest.kind for suite in found} == {kind}
    if kind is PluginKind.DATASET:
        done = CliRunner().invoke(app, ["plugins", "check", f"./{folder}"])
        assert done.exit_code == 0, done.output
        assert " passed" in done.stdout
    for words in (["plugins", "check", name], ["plugins", "show", name.upper()]):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 2
        assert f"pip install -e ./{folder}" in done.stderr
        assert f"vlmlens plugins check ./{folder}" in done.stderr
    with pytest.raises(UnknownPlugin, match="pip install -e"):
        Registry.default().find(kind, name)
    with pytest.raises(PluginError, match="declares no analysis"):
        find_suites(Registry.default(), f"./{folder}", PluginKind.ANALYSIS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[project",
        "[project]\nname = 'x'",
        "project = 3",
        "[project.entry-points.other]\na = 'b'",
    ],
)
def test_a_folder_without_plugins_is_refused_and_never_hinted_at(text: str, here: Path) -> None:
    (here / "other").mkdir()
    (here / "other" / "pyproject.toml").write_text(text)
    with pytest.raises(UnknownPlugin, match=r"declares no plugin|cannot be read"):
        find_suites(Registry.default(), "./other")
    with pytest.raises(UnknownPlugin) as caught:
        Registry.default().find(PluginKind.ADAPTER, "other")
    assert "pip install -e" not in caught.value.hint


def test_modules_in_src_are_found(here: Path) -> None:
    package = here / "proj" / "src" / "proj_of_mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from vlmlens.manifest import Manifest, PluginKind\n"
        "TARGET = 'vlmlens_plugins.storage.sqlite:SqliteStore'\n"
        "M = Manifest(PluginKind.STORAGE, 'srcstore', TARGET, '')"
    )
    (here / "proj" / "pyproject.toml").write_text(
        "[project]\nname = 'proj-of-mine'\nversion = '1'\n"
        "[project.entry-points.'vlmlens.storage']\nsrcstore = 'proj_of_mine:M'\n"
    )
    extended, named = Registry.default().with_folder("./proj")
    assert named == [("vlmlens.storage", "srcstore")]
    assert extended.find(PluginKind.STORAGE, "srcstore").name == "srcstore"
    assert extended.find(PluginKind.STORAGE, "lmdb").name == "lmdb"
