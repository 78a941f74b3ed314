"""`--tuned` in runs and analyses: checked first, part of the fingerprint, the same in workers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import vlmlens
from vlmlens import Run
from vlmlens.abc import Options
from vlmlens.abc.engine import Engine, Work
from vlmlens.cli._app import app
from vlmlens.errors import (
    CheckpointError,
    CompositionError,
    FingerprintMismatch,
    MissingDependency,
    ResultExists,
    SpecError,
    UntrustedRun,
)
from vlmlens.runner.changes import Changes
from vlmlens.runner.execution import analyze
from vlmlens.runs.trust import reach_of, with_whole_paths
from vlmlens.spec.model import make_spec, read_yaml
from vlmlens.tuned import peft_package
from vlmlens_plugins.demo.shortcut import LORA, merge

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
COLUMN = "llm.block.2/last"
SETTINGS: dict[str, Any] = {
    "data": "demo:shortcut", "limit": 4, "sites": COLUMN, "device": "cpu", "batch_size": 4,
    "options": {"dataset": {"scenes": 2}},
}  # fmt: skip


class OneWorker(Engine):
    """Runs everything in a worker that is made as those of other processes are."""

    def run(self, work: Work) -> None:
        worker = work.begin()
        for name in work.open():
            lease = json.loads(json.dumps(work.take(name)))
            work.finish(name, json.loads(json.dumps(worker(lease, lambda done: None))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuned")


@pytest.fixture(scope="module")
def base(folder: Path) -> Run:
    return vlmlens.extract(**SETTINGS, out=folder / "base")


@pytest.fixture(scope="module")
def tuned(folder: Path) -> Iterator[Run]:
    """A run of the tuned model, whose LoRA was named from the working folder."""
    shutil.copytree(LORA, folder / "lora", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield vlmlens.extract(**SETTINGS, peft="lora", out=folder / "tuned-run")


def test_loading_gives_the_merged_model(tmp_path: Path) -> None:
    """The same weights as `merge` computes without peft; the rest of the model is untouched."""
    own = vlmlens.load("demo", tuned=LORA, device="cpu").module.state_dict()
    theirs = vlmlens.load("demo", model=merge(tmp_path / "m"), device="cpu").module.state_dict()
    plain = vlmlens.load("demo", device="cpu").module.state_dict()
    assert own.keys() == theirs.keys()
    for name, value in own.items():
        one = torch.finfo(torch.float16).eps * theirs[name].abs() + 1e-6  # the file has 16 bits
        assert bool(((value - theirs[name]).abs() <= one).all()), name
    assert sum(not torch.equal(own[name], plain[name]) for name in own) > 10


def test_a_run_of_the_tuned_model(base: Run, tuned: Run, folder: Path) -> None:
    said = tuned.info["model"]["tuned"]
    assert (said["kind"], said["merged"], len(said["digest"])) == ("lora", True, 64)
    assert "tuned" not in base.info["model"]
    assert tuned.spec.tuned == str(folder / "lora")
    columns = [run.activations[COLUMN] for run in (base, tuned)]
    assert np.abs(np.asarray(columns[0]) - np.asarray(columns[1])).max() > 0.1
    shown = CliRunner().invoke(app, ["show", str(tuned.path)])
    words = " ".join(shown.output.split())
    assert f"lora, merged, {said['digest'][:12]}" in words
    assert "with lora on demo:shortcut" in words


@pytest.mark.parametrize("changed", [{}, {"tuned": None}, {"merge_tuned": False}, {"tuned": "b"}])
def test_columns_of_different_models_are_never_mixed(
    tuned: Run, folder: Path, changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    if not (folder / "b").exists():
        shutil.copytree(folder / "lora", folder / "b")
        path = folder / "b" / "adapter_model.safetensors"
        save_file({name: value * 2 for name, value in load_file(path).items()}, path)
    again = {**SETTINGS, "tuned": "lora", "out": tuned.path, "mode": "resume", **changed}
    if not changed:
        assert vlmlens.extract(**again).info["state"] == "finished"
        return
    with pytest.raises(FingerprintMismatch, match="tuned"):
        vlmlens.extract(**again)


def test_a_worker_puts_the_same_in(base: Run, tuned: Run) -> None:
    """The base run with --tuned, in a worker, answers as the run of the tuned model; it says so."""
    own = vlmlens.analyze(tuned, "blind-test")["blind-test"]
    asked, engine = {"blind-test:there": {}}, OneWorker(Options())
    changes = Changes(tuned=str(LORA))
    (there,) = analyze(base, asked, base.registry, engine=engine, changes=changes)
    assert [finding.text for finding in there.findings] == [f.text for f in own.findings]
    assert there.table("blind-answers").rows() == own.table("blind-answers").rows()
    assert there.notes[0].startswith(f"The model was changed: tuned = {LORA}. Stored columns are")
    assert base.info["edited"]["blind-test:there"] == changes.texts
    assert changes.texts == [f"tuned {tuned.info['model']['tuned']['digest'][:16]}"]
    with pytest.raises(ResultExists, match="edits"):
        vlmlens.analyze(base, "blind-test:there", tuned=LORA, merge_tuned=False)


@pytest.mark.parametrize(
    ("analysis", "settings", "error", "message"),
    [
        ("blind-test", {"tuned": LORA}, SpecError, "needs a label"),
        ((), {"tuned": LORA}, SpecError, "analyses that are named"),
        ("probe:x", {"tuned": LORA}, CompositionError, "'probe' does not run the model"),
        ("blind-test:x", {"tuned": "no/where/at/all"}, CheckpointError, "There is no folder"),
        ("blind-test:x", {"merge_tuned": False}, SpecError, "merge_tuned is about"),
    ],
)
def test_what_an_analysis_cannot_be_given(
    base: Run, analysis: Any, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        vlmlens.analyze(base, analysis, **settings)
    with pytest.raises((CompositionError, CheckpointError, SpecError)):
        vlmlens.analyze(base.path / "columns", "probe", **settings)


def test_mistakes_are_told_before_weights_are_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_weights(*_: object, **__: object) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr("vlmlens_plugins.demo.adapter.DemoAdapter.load", no_weights)
    bad = tmp_path / "bad"
    shutil.copytree(LORA, bad, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    path = bad / "adapter_model.safetensors"
    found = load_file(path)
    first = next(iter(found))
    save_file(
        {k.replace("layers", "blocks") if k == first else k: v for k, v in found.items()}, path
    )
    for settings, message in (
        ({"tuned": bad}, "1 of .* modules that the model does not have"),
        ({"tuned": tmp_path}, "holds nothing that was tuned"),
    ):
        with pytest.raises(CheckpointError, match=message):
            vlmlens.run(**SETTINGS, **settings, out=tmp_path / "run")
        with pytest.raises(CheckpointError, match=message):
            vlmlens.load("demo", **settings)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(peft_package, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency) as caught:
        vlmlens.load("demo", tuned=LORA)
    assert "vlmlens[tune]" in caught.value.hint


# ------------------------------------------------------------------------ spec, trust


def test_two_names_of_one_setting(tmp_path: Path) -> None:
    for values in ({"peft": "a/b"}, {"tuned": "a/b"}, {"peft": "a/b", "tuned": "a/b"}):
        assert make_spec(values).tuned == "a/b"
    assert make_spec({"peft": None}).tuned is None
    assert make_spec({"peft": "~/x"}).tuned == str(Path("~/x").expanduser())
    with pytest.raises(SpecError, match="two names of one setting"):
        make_spec({"peft": "a", "tuned": "b"})
    with pytest.raises(SpecError, match="merge_tuned is about what tuned names"):
        make_spec({"merge_tuned": False})
    spec = make_spec({"tuned": "a/b", "merge_tuned": False})
    (tmp_path / "spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    assert make_spec(read_yaml(tmp_path / "spec.yaml")) == spec


def test_a_run_of_others_does_not_reach_the_network(
    tuned: Run, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (in_tmp / "here").mkdir()
    assert with_whole_paths(make_spec({"tuned": "here"})).tuned == str(in_tmp / "here")
    assert reach_of(make_spec({"tuned": "here"})) == {}
    assert reach_of(make_spec({"tuned": "some/lora"})) == {"tuned": "some/lora"}
    shutil.copytree(tuned.path, in_tmp / "theirs")
    spec = in_tmp / "theirs" / "spec.yaml"
    spec.write_text(spec.read_text().replace(str(tuned.spec.tuned), "some/lora"), encoding="utf-8")
    with pytest.raises(UntrustedRun, match="some/lora"):
        vlmlens.analyze(in_tmp / "theirs", "blind-test")
