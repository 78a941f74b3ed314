"""Config files of VLM-Lens on tiny checkpoints of every family, against plain hooks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests._program import vlmlens

from vlmlens.abc import ModelAdapter
from vlmlens.cli._options import SpecFlags
from vlmlens.compose.plan import Plan, compose
from vlmlens.extraction.dry_pass import silent_columns
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.sites import Axis
from vlmlens.spec.vlm_lens import adapter_of
from vlmlens.testing._rounding import close
from vlmlens.testing.tiny import picture

MODULES = {
    "aya-vision": ["language_model.model.layers.1.input_layernorm"],
    "blip2": ["language_model.lm_head", "vision_model.post_layernorm"],
    "clip": ["visual_projection", "text_projection"],
    "cogvlm": ["model.vision.transformer.layers.1", "lm_head"],
    "glamm": ["model.layers.1.post_attention_layernorm"],
    "internlm-xcomposer": ["model.layers.1", "vit.vision_tower.vision_model.encoder.layers.0"],
    "internvl": ["vision_model.encoder.layers.1", "language_model.output"],
    "janus": ["model.language_model.layers.1.post_attention_layernorm"],
    "llava": ["vision_tower.vision_model.encoder.layers.0.layer_norm2", ".*language_model.*"],
    "llavanext": ["language_model.*"],
    "minicpm": ["llm.lm_head", "vpm.encoder.layers.0"],
    "molmo": ["model.transformer.blocks.0"],
    "paligemma": ["language_model.lm_head", "multi_modal_projector"],
    "pixtral": ["layers.1.attention_norm"],
    "plm": [r"model.language_model.layers.\d.post_attention_layernorm"],
    "qwen": ["lm_head", "visual.blocks.0", "model.layers.*.self_attn.q_proj"],
}
"""Per architecture, module names as its users wrote them for transformers 4."""


def checkpoint(architecture: str) -> str:
    registry = Registry.default()
    names = {entry.name for entry in registry.entries(PluginKind.ADAPTER)}
    if adapter_of(architecture) not in names:
        pytest.skip("its adapter is not installed")
    manifest = registry.find(PluginKind.ADAPTER, adapter_of(architecture))
    module, _, name = str(manifest.checks).partition(":")
    return str(getattr(import_module(module), name)[0]().checkpoint)


def written(folder: Path, architecture: str, **more: Any) -> Path:
    """A config file and its images."""
    photos = folder / "photos"
    photos.mkdir(exist_ok=True)
    for seed, size in enumerate(((64, 48), (40, 60))):
        picture(*size, seed=seed).save(photos / f"{seed}.png")
    path = folder / "config.yaml"
    values = {
        "architecture": architecture,
        "model_path": checkpoint(architecture),
        "model": [{"torch_dtype": "auto"}],
        "input_dir": str(photos),
        "prompt": "Describe the color in this image in one word.",
        "output_db": str(folder / "out.db"),
        "modules": MODULES[architecture],
        **more,
    }
    path.write_text(yaml.safe_dump({key: v for key, v in values.items() if v is not None}))
    return path


def composed(path: Path) -> Plan:
    flags = SpecFlags({"device": "cpu", "storage": "lmdb", "dtype": "float32"}, str(path), ())
    plan = compose(flags.spec(), Registry.default(), analyse=False, notes=flags.notes)
    assert list(plan.notes)[: len(flags.notes)] == flags.notes
    return plan


@contextmanager
def plain_hooks(vlm: ModelAdapter) -> Iterator[Mapping[str, list[torch.Tensor]]]:
    """The first tensor of every output of every module, by module path."""
    seen: dict[str, list[torch.Tensor]] = {}

    def hook(path: str, output: Any) -> None:
        items = [output] if isinstance(output, torch.Tensor) else output
        items = list(items.values()) if isinstance(items, dict) else items
        found = [item for item in items or () if isinstance(item, torch.Tensor)]
        if found:
            seen.setdefault(path, []).append(found[0])

    handles = [
        module.register_forward_hook(lambda _m, _i, output, path=path: hook(path, output))
        for path, module in vlm.module.named_modules()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("architecture", MODULES)
def test_columns_equal_a_plain_hook(architecture: str, tmp_path: Path) -> None:
    plan = composed(written(tmp_path, architecture))
    vlm = plan.load()
    plan = plan.without(silent_columns(vlm, plan.spec.sites, plan.columns, plan.samples))
    batch = vlm.encode(plan.samples[:1])
    values = plan.extractor(vlm).extract(batch)
    with plain_hooks(vlm) as seen, torch.inference_mode():
        heads = any(name.startswith("llm.head") for name in values)
        vlm.forward(vlm.encode(plan.samples[:1]), logits="all" if heads else "none")
    assert len(values) >= len(MODULES[architecture])
    for name, column in values.items():
        site = vlm.sites.resolve(name.partition("/")[0])[0]
        raw = seen[site.path][site.call or 0]
        flat = raw.reshape(-1, raw.shape[-1]).numpy()
        rows = column.per_sample()[0] if column.ragged else column.numpy()
        if site.axis is Axis.LLM and len(rows) == len(flat):
            assert np.array_equal(rows, flat), name
        else:
            assert {row.tobytes() for row in rows} <= {row.tobytes() for row in flat}, name


def test_a_whole_language_model(tmp_path: Path) -> None:
    """`language_model.*` is everything of it that gives rows, the head (now outside) included."""
    plan = composed(written(tmp_path, "llavanext", pooling_method="mean"))
    vlm = plan.load()
    silent = silent_columns(vlm, plan.spec.sites, plan.columns, plan.samples)
    kept = [name for name in plan.columns if name not in silent]
    assert {"llm.block.0/mean", "llm.block.1.mlp.down_proj/mean", "llm.head/mean"} <= set(kept)
    assert all(name.endswith("/mean") for name in kept)
    assert any("did not run" in reason for reason in silent.values())
    assert not any(name.startswith(("vision.", "projector")) for name in plan.columns)


def test_the_mean_leaves_padding_out(tmp_path: Path) -> None:
    """In a batch of unequal prompts, each sample's mean is that of its own pass."""
    path = written(tmp_path, "qwen", pooling_method="mean", modules=["model.layers.1"])
    plan = composed(path)
    vlm = plan.load()
    extractor = plan.extractor(vlm)
    together = extractor.extract(vlm.encode(plan.samples))["llm.block.1/mean"].numpy()
    for i, sample in enumerate(plan.samples):
        alone = vlm.encode([sample])
        with plain_hooks(vlm) as seen, torch.inference_mode():
            vlm.forward(alone)
        (site,) = vlm.sites.resolve("llm.block.1")
        rows = seen[site.path][0][0]
        close(together[i], rows.mean(0), scale=float(rows.abs().max()))


def test_from_the_command_line(tmp_path: Path) -> None:
    path = written(tmp_path, "llava", forward=[{"max_new_tokens": 5}], device="cpu")
    command = ["run", "-c", path, "--storage", "lmdb", "--dry-run", "--json"]
    done = vlmlens(*command, cwd=tmp_path, strict=False, NO_COLOR="1", COLUMNS="300")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["spec"]["adapter"] == "llava"
    assert "vision.block.0.layer_norm2/all" in document["columns"]
    assert f"{path} is a config file of VLM-Lens" in document["notes"][0]
    assert any("every generated token" in note for note in document["notes"])
    assert "architecture: llava is the adapter llava." in done.stderr
    assert "VLM-Lens skips the module" in done.stderr.replace("\n", " ")
