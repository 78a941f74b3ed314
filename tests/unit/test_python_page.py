"""The examples of docs/python.md run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import vlmlens

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        exec(compile(block, "python.md", "exec"), names)
    assert (tmp_path / "compare.html").exists()
    assert vlmlens.Run("runs/frame").samples[0].label == "red"


def test_every_function_is_named() -> None:
    for name in (
        "run",
        "extract",
        "analyze",
        "compare",
        "export",
        "open",
        "load",
        "look",
        "tune",
        "push",
        "pull",
    ):
        assert f"vlmlens.{name}" in PAGE or f"`{name}`" in PAGE
