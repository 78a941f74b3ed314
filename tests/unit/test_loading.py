"""Loading: which commit a hub checkpoint is of, and an attention that there is not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from transformers import LlavaForConditionalGeneration

import vlmlens
from vlmlens.compose.plan import compose
from vlmlens.errors import CompositionError, MissingDependency, SpecError
from vlmlens.hf.checkpoints import checkpoint_identity
from vlmlens.registry import Registry
from vlmlens.spec.model import make_spec
from vlmlens_plugins.demo.adapter import CHECKPOINT

MAIN, TAGGED = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with two commits of a checkpoint: `main` and `v1`."""
    folder = tmp_path / "models--acme--tiny"
    for commit in (MAIN, TAGGED):
        shutil.copytree(CHECKPOINT, folder / "snapshots" / commit)
    refs = folder / "refs"
    refs.mkdir()
    (refs / "main").write_text(MAIN)
    (refs / "v1").write_text(TAGGED)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return folder


@pytest.mark.parametrize(
    ("revision", "commit"), [(None, MAIN), ("main", MAIN), ("v1", TAGGED), (TAGGED, TAGGED)]
)
def test_a_hub_checkpoint_is_known_by_its_commit(
    cache: Path, revision: str | None, commit: str
) -> None:
    described = vlmlens.load("demo", "acme/tiny", revision=revision, device="cpu").describe()
    assert (described["checkpoint"], described["revision"]) == ("acme/tiny", commit)


def test_a_commit_comes_from_the_config_first_and_never_from_elsewhere(cache: Path) -> None:
    known = type("Config", (), {"_commit_hash": "c" * 40})()
    assert checkpoint_identity("acme/tiny", known)["revision"] == "c" * 40
    assert checkpoint_identity("acme/tiny", object())["revision"] == MAIN
    assert checkpoint_identity("acme/tiny", object(), "v2")["revision"] is None
    assert checkpoint_identity("acme/other", object())["revision"] is None
    (cache / "snapshots" / MAIN / "config.json").rename(cache / "snapshots" / MAIN / "params.json")
    assert checkpoint_identity("acme/tiny", object())["revision"] == MAIN


def composed(attention: str) -> Any:
    spec = make_spec({"limit": 5, "attention": attention})
    return compose(spec, Registry.default(), analyse=False)


def loaded(attention: str) -> Any:
    return vlmlens.load("demo", attention=attention, device="cpu")


@pytest.mark.parametrize("through", [composed, loaded])
def test_an_attention_that_there_is_not(through: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="no attention 'eagre'") as unknown:
        through("eagre")
    assert unknown.value.hint.startswith("Did you mean eager? Known: eager, ")
    assert "sdpa" in unknown.value.hint
    monkeypatch.setattr(LlavaForConditionalGeneration, "_supports_flex_attn", False)
    with pytest.raises(CompositionError, match="cannot run with 'flex_attention'") as refused:
        through("flex_attention")
    assert "--attention eager" in refused.value.hint
    with pytest.raises(MissingDependency, match="FlashAttention2") as missing:
        through("flash_attention_2")
    assert "leave --attention flash_attention_2 out" in missing.value.hint
