"""Tiny checkpoints in CogVLM's own layout, with random weights, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vlmlens.testing.tiny import byte_tokenizer

_EMBEDDINGS = ("embed_tokens.weight", "embedding.weight", "cls_embedding", ".boi", ".eoi")


def tiny_config(vocabulary: int, *, bos: int, eos: int, pad: int) -> dict[str, Any]:
    """What a config.json says: images of 32 pixels, patches of 8, two layers on each side.

    Args:
        vocabulary: Number of tokens.
        bos: Id of the token that begins a text.
        eos: Of the one that ends it.
        pad: Of the one that fills up.
    """
    vision = {
        "dropout_prob": 0.0, "hidden_act": "gelu", "hidden_size": 32, "image_size": 32,
        "in_channels": 3, "intermediate_size": 48, "layer_norm_eps": 1e-6, "num_heads": 4,
        "num_hidden_layers": 2, "num_positions": 17, "patch_size": 8,
    }  # fmt: skip
    return {
        "architectures": ["CogVLMForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_cogvlm.CogVLMConfig",
            "AutoModelForCausalLM": "modeling_cogvlm.CogVLMForCausalLM",
        },
        "bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad, "hidden_act": "silu",
        "hidden_size": 32, "initializer_range": 0.02, "intermediate_size": 48,
        "max_position_embeddings": 2048, "num_attention_heads": 4, "num_hidden_layers": 2,
        "rms_norm_eps": 1e-5, "template_version": "chat", "tie_word_embeddings": False,
        "torch_dtype": "float32", "use_cache": True, "vision_config": vision,
        "vocab_size": vocabulary,
    }  # fmt: skip


def tiny_weights(config: Mapping[str, Any], *, seed: int = 3) -> dict[str, torch.Tensor]:
    """Random weights under CogVLM's names, large enough that everything matters."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in _shapes(config).items():
        drawn = torch.randn(shape, generator=generator)
        if name.endswith(("norm.weight", "norm1.weight")):
            weights[name] = drawn * 0.1 + 1
        elif name.endswith(_EMBEDDINGS):
            weights[name] = drawn * 0.5
        elif len(shape) == 1:
            weights[name] = drawn * 0.1
        else:
            weights[name] = drawn * 1.2 / torch.Size(shape[1:]).numel() ** 0.5
    return weights | _angles(config)


def write_checkpoint(folder: Path) -> Path:
    """A whole checkpoint, with a tokenizer of bytes."""
    tokenizer = byte_tokenizer(["<unk>", "<s>", "</s>"], bos="<s>", eos="</s>", pad="<unk>")
    config = tiny_config(
        len(tokenizer),
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tiny_weights(config), folder / "model.safetensors")
    return folder


def _angles(config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The rotary angles, which real checkpoints carry too."""
    head = config["hidden_size"] // config["num_attention_heads"]
    angles = 10000.0 ** (-torch.arange(0, head, 2).float() / head)
    layers = range(config["num_hidden_layers"])
    return {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": angles.clone() for i in layers}


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width, words = config["hidden_size"], config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (words, width),
        "model.norm.weight": (width,),
        "lm_head.weight": (words, width),
    }
    for i in range(config["num_hidden_layers"]):
        shapes.update(_layer(f"model.layers.{i}", width, config["intermediate_size"]))
    return shapes | _vision(config)


def _layer(prefix: str, width: int, inner: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        f"{prefix}.input_layernorm.weight": (width,),
        f"{prefix}.post_attention_layernorm.weight": (width,),
    }
    for expert in ("vision", "language"):
        shapes |= {
            f"{prefix}.self_attn.{expert}_expert_query_key_value.weight": (3 * width, width),
            f"{prefix}.self_attn.{expert}_expert_dense.weight": (width, width),
            f"{prefix}.mlp.{expert}_mlp.gate_proj.weight": (inner, width),
            f"{prefix}.mlp.{expert}_mlp.up_proj.weight": (inner, width),
            f"{prefix}.mlp.{expert}_mlp.down_proj.weight": (width, inner),
        }
    return shapes


def _vision(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    vision, width = config["vision_config"], config["hidden_size"]
    wide, patch = vision["hidden_size"], vision["patch_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.vision.patch_embedding.proj.weight": (wide, 3, patch, patch),
        "model.vision.patch_embedding.proj.bias": (wide,),
        "model.vision.patch_embedding.cls_embedding": (1, wide),
        "model.vision.patch_embedding.position_embedding.weight": (vision["num_positions"], wide),
        "model.vision.linear_proj.linear_proj.weight": (width, wide),
        "model.vision.linear_proj.norm1.weight": (width,),
        "model.vision.linear_proj.norm1.bias": (width,),
        "model.vision.linear_proj.dense_h_to_4h.weight": (config["intermediate_size"], width),
        "model.vision.linear_proj.gate_proj.weight": (config["intermediate_size"], width),
        "model.vision.linear_proj.dense_4h_to_h.weight": (width, config["intermediate_size"]),
        "model.vision.boi": (1, 1, width),
        "model.vision.eoi": (1, 1, width),
    }
    for i in range(vision["num_hidden_layers"]):
        block = f"model.vision.transformer.layers.{i}"
        for name, outputs, inputs in (
            ("attention.query_key_value", 3 * wide, wide),
            ("attention.dense", wide, wide),
            ("mlp.fc1", vision["intermediate_size"], wide),
            ("mlp.fc2", wide, vision["intermediate_size"]),
        ):
            shapes[f"{block}.{name}.weight"] = (outputs, inputs)
            shapes[f"{block}.{name}.bias"] = (outputs,)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{block}.{norm}.weight"] = shapes[f"{block}.{norm}.bias"] = (wide,)
    return shapes
