"""Runs whose analyses use no columns, or nothing of the model: nothing is loaded for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vlmlens
from vlmlens.abc import Engine, Part
from vlmlens.abc.observer import SilentObserver
from vlmlens.compose.plan import Plan, compose
from vlmlens.errors import CompositionError
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.runner.execution import execute
from vlmlens.spec.model import make_spec
from vlmlens_plugins.demo.adapter import DemoAdapter

OWN = '''
"""Asks nothing of the model, or a pass, or columns: what USES says."""

import os

from vlmlens.abc import Analysis
from vlmlens.abc.analysis import COLUMNS, MODEL
from vlmlens.results import Finding, Result


class Own(Analysis):
    def uses(self, samples):
        return frozenset(os.environ["USES"].split())

    def run(self, context):
        if "model" in os.environ["USES"]:
            context.model()
        names = ", ".join(column.name for column in context.columns())
        return Result("own", "Own", [Finding(f"Columns: {names or 'none'}.")])


class Old(Analysis):
    def run(self, context):
        return Result("old", "Old", [Finding(f"{len(context.columns())} columns.")])
'''


class Hearing(SilentObserver):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return str(path)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the model is not needed")

    monkeypatch.setattr(DemoAdapter, "load", fail)
    monkeypatch.setattr(DemoAdapter, "skeleton", fail)


def composed(*analyses: str, observer: SilentObserver | None = None, **values: Any) -> Plan:
    options = {"dataset": {"scenes": 3}} if "data" not in values else {}
    spec = {"limit": 3, "device": "cpu", "analysis": list(analyses), "options": options}
    return compose(make_spec({**spec, **values}), Registry.default(), observer=observer)


def test_nothing_is_opened_where_nothing_uses_it(
    own: str, tmp_path: Path, no_weights: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USES", "")
    plan = composed(f"{own}:Own", out=str(tmp_path / "run"))
    assert (plan.columns, plan.skeleton, plan.estimate.bytes) == ([], None, 0)
    run = execute(plan)
    assert run.results["own"].findings[0].text == "Columns: none."
    assert run.info["state"] == "finished"
    assert "model" not in run.info
    again = composed(f"{own}:Own", out=str(tmp_path / "run"))
    assert execute(again, mode="resume").results.keys() == {"own"}


def test_the_model_without_columns(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USES", "model")
    run = execute(composed(f"{own}:Own", out=str(tmp_path / "run")))
    assert run.results["own"].findings[0].text == "Columns: none."
    assert run.info["model"]
    later = execute(
        composed(f"{own}:Old", sites=["llm.block.1/last"], out=str(run.path)), mode="resume"
    )
    assert later.results["old"].findings[0].text != "0 columns."


@pytest.mark.parametrize(
    "asked",
    [
        {"sites": ["llm.block.1/last"]},
        {"generate": 2},
        {"extractor": "attention", "attention": "eager"},
    ],
)
def test_what_the_user_wants_recorded_is_recorded(
    asked: dict[str, Any], own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USES", "")
    plan = composed(f"{own}:Own", **asked)
    assert plan.columns
    assert plan.skeleton is not None


def test_analyses_that_do_not_say_what_they_use_get_everything(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USES", "")
    alone = composed(f"{own}:Own")
    both = composed(f"{own}:Own", f"{own}:Old")
    assert not alone.columns
    assert len(both.columns) > 3


def test_edits_of_a_model_that_nothing_runs_are_refused(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USES", "")
    with pytest.raises(CompositionError, match="would change nothing"):
        composed(f"{own}:Own", edits=["llm.block.1/image = zero"])
    monkeypatch.setenv("USES", "model")
    assert composed(f"{own}:Own", edits=["llm.block.1/image = zero"]).columns == []


def test_images_that_are_not_there_do_not_matter_where_nothing_looks(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rows = [{"image": f"{name}.png", "prompt": "What?"} for name in ("a", "b", "b")]
    table = tmp_path / "t.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("USES", "")
    heard = Hearing()
    plan = composed(f"{own}:Own", observer=heard, data=str(table), out=str(tmp_path / "run"))
    assert [len(sample.images) for sample in plan.samples] == [1, 0, 0]
    assert plan.samples[1].group == plan.samples[2].group == str(tmp_path / "b.png")
    assert "2 of 3 samples are kept without their images" in heard.notes[-1]
    run = execute(plan)
    assert run.samples[1].images == ()
    monkeypatch.setenv("USES", "model")
    with pytest.raises(vlmlens.VlmlensError, match=r"b\.png"):
        composed(f"{own}:Own", data=str(table))


def test_processes_that_share_an_extraction_are_told_that_there_is_none(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USES", "")
    plan = composed(f"{own}:Own", out=str(tmp_path / "run"))
    registry = Registry.default()
    engine: Engine = registry.load(registry.find(PluginKind.ENGINE, "environment"))(
        registry.options(registry.find(PluginKind.ENGINE, "environment"), {})
    )
    monkeypatch.setattr(engine, "part", lambda: Part(0, 2, "one start"))
    with pytest.raises(CompositionError, match="nothing is extracted"):
        execute(plan, engine=engine)


def test_torch_is_not_even_imported(own: str, tmp_path: Path) -> None:
    code = (
        "import sys; from vlmlens.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, "run", "--limit", "3", "--analysis", f"{own}:Own"]
    rows = [{"image": "a.png", "prompt": "What?"}] * 3
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command += ["--data", "t.jsonl", "--out", "run"]
    env = {**os.environ, "USES": ""}
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env
    )
    assert ran.stdout.splitlines()[-1] == "0 False", ran.stderr


def test_an_estimate_counts_no_columns_that_nothing_uses(in_tmp: Path) -> None:
    from tests._program import vlmlens

    asked = ("estimate", "--data", "demo:captions", "--set", "options.dataset.scenes=3", "--time")
    done = vlmlens(*asked, "--analysis", "benchmark", cwd=in_tmp)
    assert (done.returncode, "3 samples, no columns are stored" in done.stdout) == (0, True), done
    assert "extraction:" not in done.stdout
