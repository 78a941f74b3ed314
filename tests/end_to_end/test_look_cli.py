"""`vlmlens look` as a program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests._program import vlmlens

from vlmlens.testing.tiny import picture

ROOT = Path(__file__).parents[2]
SCENE = ROOT / "docs" / "images" / "scene.png"
COLOR = "Color of the main object:"


def test_five_lines_and_a_page_as_the_readme_shows(tmp_path: Path) -> None:
    done = vlmlens("look", SCENE, COLOR, "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"scene.png: {COLOR}"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for number, line in enumerate(lines[1:6], 1):
        assert line.startswith(f"{number}  ")
        assert line[:50] in readme
    assert "passes of the model" in done.stderr
    assert "nothing but drawn scenes" in done.stderr
    page = (tmp_path / "runs" / "demo-001" / "report.html").read_text(encoding="utf-8")
    assert "It rests on a part of the picture" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_json_of_several_questions_with_choices(tmp_path: Path) -> None:
    done = vlmlens(
        "look", SCENE, COLOR, "--prompt", "Shape of the main object:", "--choices",
        "red,blue,cube", "--set", "analysis.look.grid=3", "--out", "r", "--json", "-q",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answers"] == {"scene.png#1": "blue", "scene.png#2": "cube"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("none.png", "What?"), "does not exist"),
        (("https://example.org/a.png", "What?"), "nothing is downloaded"),
        (("a.png", ""), "question is empty"),
        (("a.png", "What?", "--against", "a.png"), "nothing differs"),
        (("a.png", "What?", "--choices", "red"), "two or more"),
        (("a.png", "What?", "--set", "analysis.look.max_passes=3"), "max_passes"),
        (("a.png",), "QUESTION"),
    ],
)
def test_bad_input_is_one_message(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    picture(16, 16, seed=1).save(tmp_path / "a.png")
    done = vlmlens("look", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
