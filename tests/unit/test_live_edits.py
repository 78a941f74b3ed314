"""Edits from the browser name no code and no file outside the open runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from vlmlens.errors import EditError
from vlmlens.passes.edits import WrittenEdit
from vlmlens.view.live.directions import directions
from vlmlens.view.live.edits import checked
from vlmlens_plugins.analysis.steering.files import Aim, Direction, save_direction


def shown(folder: Path, number: int = 0) -> Any:
    return SimpleNamespace(run=SimpleNamespace(path=folder), number=number, name=folder.name)


@pytest.fixture
def run(tmp_path: Path) -> Any:
    results = tmp_path / "run" / "results"
    results.mkdir(parents=True)
    aim = Aim("color", "color", "red", ("blue",), "red")
    vector = np.arange(1, 5, dtype=np.float32)
    made = Direction(vector, "llm.block.3", "last", "mean-difference", aim)
    save_direction(results / "steering.red.safetensors", made)
    np.save(tmp_path / "secret.npy", vector)
    return shown(tmp_path / "run")


PLAIN = (
    "llm.block.3/image = zero",
    "llm.block.3/image = scale(0.5)",
    "llm.block.3/image = noise(2, seed=1)",
    "llm.block.[2-4].attn / last <- image = cut",
    "llm.block.*.attn.heads[2]/last = cut(renormalise=false)",
    "llm.block.3/image = clamp(low=-1e3, high=.5)",
)


@pytest.mark.parametrize("text", PLAIN)
def test_edits_without_files_stay(text: str, run: Any) -> None:
    assert WrittenEdit.parse(checked([text], [run])[0]) == WrittenEdit.parse(text)


def test_a_file_of_a_run_is_named_as_in_its_addresses(run: Any) -> None:
    text = "llm.block.3/last = add(runs/0/results/steering.red.safetensors, 4)"
    (found,) = checked([text], [run])
    named = WrittenEdit.parse(found).positional[0]
    assert named == str(run.run.path / "results" / "steering.red.safetensors")
    column = checked(["llm.block.3/last = mean(runs/0@llm.block.3/last)"], [run])[0]
    assert WrittenEdit.parse(column).positional[0] == f"{run.run.path}@llm.block.3/last"


@pytest.mark.parametrize(
    "value",
    [
        "secret.npy",
        "/etc/passwd",
        "..",
        ".",
        "~",
        "~/direction.npy",
        "runs/0/../secret.npy",
        "runs/0/results/../../secret.npy",
        "runs/0//etc/passwd",
        "runs/0/results/link.npy",
        "runs/1/results/steering.red.safetensors",
        "runs/00000000000/x",
        "runs/-1/results/x",
        "runs/0@../other@llm.block.3/last",
        "https://example.org/sae",
        "org/sae-on-a-hub",
        "\\\\server\\share",
        "e",
        "1_0",
        "\u0661",
    ],
)
def test_other_files_are_refused(value: str, run: Any) -> None:
    (run.run.path / "results" / "link.npy").symlink_to(run.run.path.parent / "secret.npy")
    for text in (
        f'llm.block.3/last = add("{value}", 4)',
        f'llm.block.3/last = add(file="{value}")',
    ):
        with pytest.raises(EditError, match="only name files of the open runs"):
            checked([text], [run])


def test_code_and_regular_expressions_are_refused(run: Any) -> None:
    with pytest.raises(EditError, match="Python code"):
        checked(["llm.block.3/last = ./evil.py:Evil"], [run])
    with pytest.raises(EditError, match="regular expression"):
        checked(["re:(a+)+$/last = zero"], [run])
    with pytest.raises(EditError):
        checked(["nothing at all"], [run])


def test_directions_of_a_run_can_be_used_as_edits(run: Any) -> None:
    (found,) = directions([run])
    assert found["site"] == "llm.block.3/last"
    assert "red" in found["name"]
    (edit,) = checked([found["edit"].replace("{strength}", "2.5")], [run])
    assert WrittenEdit.parse(edit).positional[1] == "2.5"
    named, again = directions([run, shown(run.run.path, 1)])
    assert named["name"] == f"{found['name']}, run (0)"
    assert again["name"] == f"{found['name']}, run (1)"


def test_features_of_a_run_are_listed(run: Any) -> None:
    results = run.run.path / "results"
    (results / "sae.x").mkdir()
    (results / "sae.x.features").mkdir()
    known = '{"column": "llm.block.3/image", "target": "", "trained": {"largest": [1.0]}}'
    (results / "sae.x" / "cfg.json").write_text(f'{{"metadata": {{"vlmlens": {known}}}}}')
    for number, name in ((12, ""), (3, "red things")):
        (results / "sae.x.features" / f"{number}.json").write_text(f'{{"name": "{name}"}}')
    first, second = [each for each in directions([run]) if "feature" in each["name"]]
    assert first["name"] == "feature 3 (red things) at llm.block.3/image"
    expected = "llm.block.3/image = sae.steer(runs/0/results/sae.x, 12, {strength}, unit=max)"
    assert second["edit"] == expected
    checked([second["edit"].replace("{strength}", "-1")], [run])


def test_what_is_no_direction_is_passed_over(run: Any) -> None:
    results = run.run.path / "results"
    save_file(
        {"a": np.zeros(3, np.float32), "b": np.zeros(3, np.float32)}, results / "2.safetensors"
    )
    save_file({"a": np.zeros(3, np.float32)}, results / "unnamed.safetensors")
    (results / "short.safetensors").write_bytes(b"\x01")
    (results / "long.safetensors").write_bytes(b"\xff" * 64)
    (results / "text.safetensors").write_bytes((9).to_bytes(8, "little") + b"[" * 9)
    (results / "out.safetensors").symlink_to(run.run.path.parent / "secret.npy")
    (results / "sae.y").mkdir()
    (results / "sae.y.features").mkdir()
    assert len(directions([run])) == 1
    assert directions([shown(run.run.path / "gone")]) == []
