"""Without --adapter a checkpoint's config chooses; a wrong adapter is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vlmlens
from vlmlens.abc.adapter import LoadRequest
from vlmlens.compose.adapter_choice import check_adapter, with_adapter
from vlmlens.compose.plan import open_sites
from vlmlens.errors import CheckpointError, VlmlensError
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.spec.model import make_spec
from vlmlens.testing.model import write_tiny_llava
from vlmlens_plugins.hf.lm import TextAdapter
from vlmlens_plugins.hf.manifests import LM

CONFIGS: dict[str, dict[str, Any]] = {
    "aya_vision": {"model_type": "aya_vision"},
    "blip2": {"model_type": "blip-2", "architectures": ["Blip2ForConditionalGeneration"]},
    "clip": {"model_type": "siglip2"},
    "cogvlm": {"architectures": ["CogVLMForCausalLM"]},
    "glamm": {"model_type": "llava", "architectures": ["GLaMMForCausalLM"]},
    "internlm_xcomposer": {
        "model_type": "internlm2", "architectures": ["InternLMXComposer2ForCausalLM"],
    },
    "internvl": {"model_type": "internvl_chat", "architectures": ["InternVLChatModel"]},
    "janus": {"model_type": "janus"},
    "llava": {"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}},
    "llavanext": {"model_type": "llava_next"},
    "minicpm": {"model_type": "minicpmv"},
    "molmo": {"model_type": "molmo"},
    "molmo2": {"model_type": "molmo2"},
    "paligemma": {"model_type": "paligemma"},
    "pixtral": {"model_type": "llava", "vision_config": {"model_type": "pixtral"}},
    "plm": {"model_type": "perception_lm"},
    "qwen2vl": {"model_type": "qwen2_5_vl"},
    "smolvlm": {"model_type": "smolvlm"},
    "hf": {"model_type": "gemma3"},
    "lm": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
    "vit": {"model_type": "dinov2", "architectures": ["Dinov2ForImageClassification"]},
}  # fmt: skip


def folder(path: Path, config: Any) -> str:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(path)


def installed(name: str) -> None:
    try:
        Registry.default().find(PluginKind.ADAPTER, name)
    except VlmlensError:
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_config_chooses(tmp_path: Path, name: str) -> None:
    installed(name)
    model = folder(tmp_path / "ck", CONFIGS[name])
    spec, (note,) = with_adapter(make_spec({"model": model}), Registry.default())
    assert spec.adapter == name
    assert name in note


@pytest.mark.parametrize("name", CONFIGS)
def test_another_adapter_is_refused_and_the_right_one_named(tmp_path: Path, name: str) -> None:
    installed(name)
    registry = Registry.default()
    model = folder(tmp_path / "ck", CONFIGS[name])
    for entry in registry.entries(PluginKind.ADAPTER):
        manifest = entry.manifest
        if manifest is None or not entry.usable or not manifest.model_types:
            continue
        request = LoadRequest(model=model)
        if name == "hf" and manifest.name in {"lm", "vit"}:
            continue  # classes by pattern: the adapter looks itself, below
        takes_a_part = {("demo", "llava"), ("vit", "clip")}
        if manifest.name == name or (manifest.name, name) in takes_a_part:
            check_adapter(manifest, registry.load(manifest), request, registry)
            continue
        with pytest.raises(CheckpointError, match=f"the adapter '{manifest.name}'") as caught:
            check_adapter(manifest, registry.load(manifest), request, registry)
        assert f"--adapter {name}" in caught.value.hint


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "lm"),
        ({"model_type": "llama"}, "hf"),  # it says nothing of a class
        ({"model_type": "x", "architectures": ["XForCausalLM"], "vision_config": {}}, "hf"),
        ({"model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"]}, "llava"),
    ],
)
def test_a_pattern_of_classes_counts_least(
    tmp_path: Path, config: dict[str, Any], name: str
) -> None:
    installed("lm")
    installed(name)
    model = folder(tmp_path / "ck", config)
    assert with_adapter(make_spec({"model": model}), Registry.default())[0].adapter == name


def test_text_only_models_are_led_to_their_adapter(tmp_path: Path) -> None:
    model = folder(tmp_path / "ck", {"model_type": "gpt2"})
    registry = Registry.default()
    spec, _ = with_adapter(make_spec({"model": model}), registry)
    with pytest.raises(CheckpointError, match="reads images and text") as caught:
        registry.load(registry.find(PluginKind.ADAPTER, spec.adapter)).skeleton(LoadRequest(model))
    assert "--adapter lm" in caught.value.hint
    check_adapter(LM, TextAdapter, LoadRequest(model), registry)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "smolvlm"}, "reads images"),
        ({"model_type": "bart", "is_encoder_decoder": True}, "is an encoder-decoder"),
        ({"model_type": "vit"}, "is no causal language model that transformers knows"),
    ],
)
def test_what_is_no_text_only_model_is_refused(
    tmp_path: Path, config: dict[str, Any], why: str
) -> None:
    with pytest.raises(CheckpointError, match=f"{why}; the adapter 'lm' is for text-only"):
        TextAdapter.skeleton(LoadRequest(folder(tmp_path / "ck", config)))


def test_what_the_user_names_is_kept_and_nothing_named_is_the_demo() -> None:
    registry = Registry.default()
    assert with_adapter(make_spec({"adapter": "hf", "model": "x"}), registry)[1] == []
    assert with_adapter(make_spec({}), registry)[0].adapter == "demo"


@pytest.mark.parametrize("config", [{}, {"model_type": 3}, {"architectures": "x"}], ids=str)
def test_a_config_that_says_nothing_asks_for_an_adapter(tmp_path: Path, config: Any) -> None:
    model = folder(tmp_path / "ck", config)
    with pytest.raises(CheckpointError, match="says no model type") as caught:
        with_adapter(make_spec({"model": model}), Registry.default())
    assert "--adapter" in caught.value.hint


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_config_that_is_no_config_is_a_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        with_adapter(make_spec({"model": str(tmp_path)}), Registry.default())


def test_load_and_sites_choose_alike(tmp_path: Path) -> None:
    installed("llava")
    write_tiny_llava(tmp_path)
    assert type(vlmlens.load(model=tmp_path, device="cpu")).__name__ == "LlavaAdapter"
    sites, _, _ = open_sites(make_spec({"model": str(tmp_path)}), Registry.default())
    assert "llm.block.0" in sites.canonical
    installed("qwen2vl")
    with pytest.raises(CheckpointError, match="the adapter 'qwen2vl' does not read"):
        vlmlens.load("qwen2vl", tmp_path, device="cpu")
