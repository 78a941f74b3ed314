"""Attention columns by the command line: a whole run, and refusals before weights are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import vlmlens
from tests import _program
from vlmlens.compose.plan import compose
from vlmlens.errors import CheckpointError, CompositionError
from vlmlens.registry import Registry
from vlmlens.runs.run import Run
from vlmlens.spec.model import make_spec
from vlmlens.testing._rounding import close
from vlmlens_plugins.demo.adapter import CHECKPOINT

ATTENTION = ("--extractor", "attention", "--sites", "llm.block.*.attn/last", "--device", "cpu")


@pytest.fixture
def weightless(tmp_path: Path) -> Path:
    """The demo checkpoint without its weights: whatever reads them fails."""
    folder = tmp_path / "weightless"
    skip = shutil.ignore_patterns("*.safetensors", "*.bin")
    shutil.copytree(CHECKPOINT, folder, ignore=skip)
    return folder


def test_a_run(in_tmp: Path) -> None:
    """Default analyses that read activations are left out; the others run."""
    options = ("--set", "options.extractor.heads=[0,3]", "--limit", "20", "--out", "run")
    regions = ("--set", "options.extractor.regions=[image,text,special]")
    done = _program.vlmlens("run", *ATTENTION, "--attention", "eager", *options, *regions)
    assert done.returncode == 0, done.stderr
    run = Run(in_tmp / "run")
    assert run.info["state"] == "finished"
    assert any("logit-lens" in warning for warning in run.info["warnings"])
    assert "blind-test" in run.results
    assert list(run.activations) == [f"llm.block.{i}.attn/last" for i in range(6)]
    for name in run.activations:
        weights = run.activations[name].reshape(20, 2, 3)
        close(weights.sum(-1), 1)
    assert run.spec.options.extractor["heads"] == [0, 3]


def test_batches_do_not_matter(in_tmp: Path) -> None:
    """One by one, in padded batches, and with questions on the same image."""
    settings = {"extractor": "attention", "attention": "eager", "limit": 15, "device": "cpu"}
    found = []
    for size in (1, 7, "auto"):
        out = str(in_tmp / str(size))
        run = vlmlens.run(**settings, batch_size=size, analysis=["blind-test"], out=out)
        found.append(run.activations["llm.block.5.attn/last"])
    for other in found[1:]:
        close(other, found[0], scale=1)


def test_sdpa_is_refused_before_weights_are_read(weightless: Path, in_tmp: Path) -> None:
    out = ("--adapter", "demo", "--model", str(weightless), "--limit", "4", "--out", "run")
    for attention in ((), ("--attention", "sdpa")):
        done = _program.vlmlens("run", *ATTENTION, *out, *attention)
        assert done.returncode == 2
        assert "attention weights, and the model runs with 'sdpa' attention" in done.stderr
        assert "--attention eager" in done.stderr
        assert not (in_tmp / "run").exists()
    composed = _program.vlmlens(
        "run", *ATTENTION, *out, "--attention", "eager", "--dry-run", "--json"
    )
    assert composed.returncode == 0, composed.stderr
    assert "llm.block.5.attn/last" in json.dumps(json.loads(composed.stdout))


def test_the_folder_really_lacks_weights(weightless: Path) -> None:
    values = {
        "adapter": "demo", "model": str(weightless), "extractor": "attention",
        "attention": "eager", "limit": 4,
    }  # fmt: skip
    plan = compose(make_spec(values), Registry.default())
    with pytest.raises(CheckpointError):
        plan.load()


def test_analyses_of_activations_are_refused() -> None:
    values = {"extractor": "attention", "attention": "eager", "limit": 60}
    plan = compose(make_spec(values), Registry.default())
    assert "reads activations" in plan.left_out["logit-lens"]
    with pytest.raises(CompositionError, match="'attention' does not give"):
        compose(make_spec({**values, "analysis": ["logit-lens"]}), Registry.default())
