"""`vlmlens new`: what is written, what is refused, and `copier update` on it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from tests._distributions import environment, install

from tests import _program
from vlmlens.errors import SpecError
from vlmlens.manifest import PluginKind
from vlmlens.registry.scaffold import KINDS, NewPlugin, write_plugin

ROOT = Path(__file__).parents[2]
NAMES = ("ab", "my-model", "abcdefghijkl-mnopqrstu_v")


def run(
    *args: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(args),
        cwd=cwd,
        env=env or dict(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def vlmlens(
    *args: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return _program.vlmlens(*args, cwd=cwd, **(env or {}))


def git(*args: str, cwd: Path) -> None:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    done = run("git", *who, *args, cwd=cwd)
    assert done.returncode == 0, done.stderr


def write(kind: PluginKind, name: str, folder: Path, **answers: str) -> Path:
    write_plugin(NewPlugin(kind, name, folder, answers))
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_clean(kind: PluginKind, name: str, tmp_path: Path) -> None:
    """Ruff agrees with names of any length; the project's files say what they are."""
    odd = "Says 'hi' & more <than> one {{ word }}, for ä and 漢."
    folder = write(kind, name, tmp_path / "new", summary=odd, author="Å. O'Hara", licence="MIT")
    for command in (["check"], ["format", "--check", "--diff"]):
        done = run("ruff", *command, "--no-cache", ".", cwd=folder, env=environment(tmp_path))
        assert done.returncode == 0, done.stdout
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert (project["description"], project["authors"]) == (odd, [{"name": "Å. O'Hara"}])
    assert list(project["entry-points"][kind.group]) == [name]
    assert "Å. O'Hara" in (folder / "LICENSE").read_text()
    workflow = yaml.safe_load((folder / ".github/workflows/tests.yml").read_text())
    steps = [step.get("run", "") for step in workflow["jobs"]["tests"]["steps"]]
    assert f"vlmlens plugins check {name} --kind {kind}" in steps
    assert steps[1:3] != [""] * 2
    for path in folder.rglob("*.py"):
        compile(path.read_text(), str(path), "exec")
        assert not re.search(r"{{ (name|package|module|class_name)", path.read_text())
    answers = yaml.safe_load((folder / ".copier-answers.yml").read_text())
    assert (answers["kind"], answers["name"], answers["summary"]) == (kind.value, name, odd)


def test_it_is_listed_and_checked_once_installed(tmp_path: Path) -> None:
    """The wheel of a distribution as it is written, beside this vlmlens."""
    site = tmp_path / "site"
    for kind in KINDS:
        install(write(kind, f"my{kind}", tmp_path / kind), site)
    env = environment(site)
    listed = json.loads(vlmlens("plugins", "list", "--json", cwd=tmp_path, env=env).stdout)
    found = {(one["kind"], one["name"]): one for one in listed["plugins"]}
    for kind in KINDS:
        one = found[kind.value, f"my{kind}"]
        assert (one["state"], one["version"]) == ("ok", "0.1.0")
    done = vlmlens("plugins", "check", "mydataset", "--json", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["suites"][0]["passed"] > 10


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    args = ("new", "analysis", "my_own", "--defaults", "--answer", "author=Ada", "--json")
    done = vlmlens(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    folder = tmp_path / said["folder"]
    assert folder.name == "vlmlens-analysis-my-own"
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == set(
        said["files"]
    )
    assert 'name = "Ada"' in (folder / "pyproject.toml").read_text()
    again = vlmlens(*args, cwd=tmp_path)
    assert again.returncode == 2
    assert "is there already" in json.loads(again.stdout)["error"]["message"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("adapter", "../evil"), "cannot be a plugin's name"),
        (("adapter", "/abs"), "cannot be a plugin's name"),
        (("adapter", "Upper"), "cannot be a plugin's name"),
        (("adapter", "1st"), "cannot be a plugin's name"),
        (("adapter", "two--dashes"), "cannot be a plugin's name"),
        (("adapter", "a" * 25), "cannot be a plugin's name"),
        (("storage", "lmdb"), "vlmlens already has the storage 'lmdb'"),
        (("adapter", "aya-vision"), "vlmlens already has the adapter 'aya-vision'"),
        (("extractor", "mine"), "no template for the kind 'extractor'"),
        (("dataset", "mine", "--answer", "colour=red"), "answers no question"),
        (("dataset", "mine", "--answer", "kind=adapter"), "answers no question"),
        (("dataset", "mine", "--answer", "distribution=../../up"), "at most 48"),
        (("dataset", "mine", "--answer", "licence=WTFPL"), "licence"),
        (("dataset", "mine", "--answer", "summary=two\nlines"), "at most 64"),
        (("dataset", "mine", "--answer", 'summary="""quoted"""'), "none of which"),
        (("dataset", "mine", "--answer", "author=back\\slash"), "none of which"),
        (("dataset", "mine", "--template", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    args: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    place = tmp_path / "work"
    place.mkdir()
    done = vlmlens("new", *args, "--defaults", "--json", cwd=place)
    assert done.returncode == 2, done.stderr
    error = json.loads(done.stdout)["error"]
    assert says in error["message"] + error["hint"]
    assert error["hint"]
    assert [path.name for path in tmp_path.rglob("*")] == ["work"]


def test_questions_need_a_terminal(tmp_path: Path) -> None:
    done = vlmlens("new", "storage", "mine", "--json", cwd=tmp_path)
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert "need a terminal" in error["message"]
    assert "--defaults" in error["hint"]


def converse(replies: dict[bytes, bytes], cwd: Path) -> int:
    """Run `vlmlens new dataset mine` in a terminal, answer each question once; its exit code."""
    terminal, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "vlmlens", "new", "dataset", "mine"],
        cwd=cwd, env={**os.environ, "TERM": "xterm"}, start_new_session=True,
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen, left = b"", dict(replies)
    while select.select([terminal], [], [], 120)[0]:
        try:
            told = os.read(terminal, 4096)
        except OSError:  # the other side has closed it
            break
        seen += told
        if b"\x1b[6n" in told:
            os.write(terminal, b"\x1b[1;1R")  # where the cursor is
        for question in [each for each in left if each in seen]:
            os.write(terminal, left.pop(question))
    os.close(terminal)
    assert not left, seen.decode(errors="replace")
    return child.wait(60)


def test_questions_are_asked_in_a_terminal(tmp_path: Path) -> None:
    replies = {b"installed?": b"-two\r", b"one line?": b"\r", b"authors?": b"\r"}
    assert converse({**replies, b"licence?": b"\x1b[B\r"}, tmp_path) == 0
    (folder,) = tmp_path.iterdir()
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert (project["name"], project["license"]) == ("vlmlens-dataset-mine-two", "MIT")


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    assert converse({b"installed?": b"\x03"}, tmp_path) == 130
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SpecError, match="is there already"):
        write(PluginKind.DATASET, "mine", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpecError, match="is there already"):
        write(PluginKind.DATASET, "mine", link)
    (tmp_path / "empty").mkdir()
    assert (write(PluginKind.DATASET, "mine", tmp_path / "empty") / "pyproject.toml").exists()


def test_without_copier_the_hint_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmlens.errors import MissingDependency

    monkeypatch.setitem(sys.modules, "copier", None)
    with pytest.raises(MissingDependency) as caught:
        write(PluginKind.DATASET, "mine", tmp_path / "new")
    assert "pip install 'vlmlens[new]'" in caught.value.hint


def test_copier_update_brings_a_new_version_and_keeps_what_was_written(tmp_path: Path) -> None:
    """A git repository with two tagged versions, in the layout of this one."""
    env = {
        **environment(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }
    env.update({f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")})  # fmt: skip
    source = tmp_path / "source"
    shutil.copytree(ROOT / "templates", source / "templates")
    shutil.copy(ROOT / "copier.yml", source)
    git("init", "-q", cwd=source)
    git("add", "-A", cwd=source)
    git("commit", "-qm", "One", cwd=source)
    git("tag", "v0.1.0", cwd=source)
    url = f"git+file://{source}"
    made = vlmlens(
        "new", "dataset", "mine", "made", "--defaults", "--template", url, cwd=tmp_path, env=env
    )
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "made"
    answers = yaml.safe_load((folder / ".copier-answers.yml").read_text())
    assert (answers["_commit"], answers["_src_path"]) == ("v0.1.0", url)
    module = folder / "vlmlens_dataset_mine" / "dataset.py"
    own = module.read_text().replace('FILE = "questions.txt"', 'FILE = "mine.txt"')
    module.write_text(own)
    git("init", "-q", cwd=folder)
    git("add", "-A", cwd=folder)
    git("commit", "-qm", "Mine", cwd=folder)

    for name in ("shared/gitignore.txt", "dataset/{{ package }}/dataset.py.jinja"):
        changed = source / "templates" / name
        changed.write_text(changed.read_text() + "# Of version two.\n")
    git("commit", "-qam", "Two", cwd=source)
    git("tag", "v0.2.0", cwd=source)
    update = (sys.executable, "-m", "copier", "update", "--defaults")
    done = run(*update, cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    assert "# Of version two." in (folder / ".gitignore").read_text()
    assert module.read_text() == own + "# Of version two.\n"
    answers = yaml.safe_load((folder / ".copier-answers.yml").read_text())
    assert answers["_commit"] == "v0.2.0"
