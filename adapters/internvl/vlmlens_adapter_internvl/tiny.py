"""Tiny checkpoints in the original layout, with random weights, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vlmlens.testing.tiny import Shapes, drawn_weights, linear, norm


def original_config(architecture: str, vocabulary: int) -> dict[str, Any]:
    """A config of the original layout: tiles of 32 pixels, patches of 8, three vision blocks.

    Args:
        architecture: "Qwen2ForCausalLM" or "InternLM2ForCausalLM".
        vocabulary: Number of tokens.
    """
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4, "image_size": 32, "patch_size": 8, "hidden_act": "gelu",
        "layer_norm_eps": 1e-6, "norm_type": "layer_norm", "qkv_bias": True,
        "qk_normalization": False,
    }  # fmt: skip
    text = {
        "architectures": [architecture], "vocab_size": vocabulary, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "bias": False,
        "max_position_embeddings": 2048, "hidden_act": "silu",
    }  # fmt: skip
    if architecture == "InternLM2ForCausalLM":
        text["rope_scaling"] = {"type": "dynamic", "factor": 2.0}
    else:
        del text["bias"]
    return {
        "architectures": ["InternVLChatModel"], "model_type": "internvl_chat",
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
        "downsample_ratio": 0.5, "dynamic_image_size": True, "force_image_size": 32,
        "min_dynamic_patch": 1, "max_dynamic_patch": 12, "ps_version": "v2", "select_layer": -1,
        "template": "internvl2_5", "torch_dtype": "float32", "use_thumbnail": True,
        "vision_config": vision, "llm_config": text,
    }  # fmt: skip


def original_weights(config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Random weights under the original's names."""
    return drawn_weights(
        _shapes(config),
        embeddings=r"(embeddings|embed_tokens)\.weight$|_embedding$",
        scales=r"\.ls[12]$",
    )


def _shapes(config: Mapping[str, Any]) -> Shapes:
    vision, text = config["vision_config"], config["llm_config"]
    wide, width = vision["hidden_size"], text["hidden_size"]
    shapes = {
        **linear("mlp1.1", width, 4 * wide),
        **linear("mlp1.3", width, width),
        **norm("mlp1.0", 4 * wide),
        **_tower(vision),
    }
    internlm = text["architectures"][0] == "InternLM2ForCausalLM"
    for i in range(text["num_hidden_layers"]):
        prefix = f"language_model.model.layers.{i}"
        shapes.update(_internlm2(prefix, text) if internlm else _qwen2(prefix, text))
    embeddings, head = ("tok_embeddings", "output") if internlm else ("embed_tokens", "lm_head")
    shapes[f"language_model.model.{embeddings}.weight"] = (text["vocab_size"], width)
    shapes[f"language_model.{head}.weight"] = (text["vocab_size"], width)
    shapes["language_model.model.norm.weight"] = (width,)
    return shapes


def _tower(vision: Mapping[str, Any]) -> Shapes:
    wide, patch = vision["hidden_size"], vision["patch_size"]
    places = (vision["image_size"] // patch) ** 2 + 1
    shapes: Shapes = {
        "vision_model.embeddings.class_embedding": (1, 1, wide),
        "vision_model.embeddings.position_embedding": (1, places, wide),
        "vision_model.embeddings.patch_embedding.weight": (wide, 3, patch, patch),
        "vision_model.embeddings.patch_embedding.bias": (wide,),
    }
    for i in range(vision["num_hidden_layers"]):
        block = f"vision_model.encoder.layers.{i}"
        shapes.update(linear(f"{block}.attn.qkv", 3 * wide, wide))
        shapes.update(linear(f"{block}.attn.proj", wide, wide))
        shapes.update(linear(f"{block}.mlp.fc1", vision["intermediate_size"], wide))
        shapes.update(linear(f"{block}.mlp.fc2", wide, vision["intermediate_size"]))
        shapes.update({**norm(f"{block}.norm1", wide), **norm(f"{block}.norm2", wide)})
        shapes.update({f"{block}.ls1": (wide,), f"{block}.ls2": (wide,)})
    return shapes


def _qwen2(prefix: str, text: Mapping[str, Any]) -> Shapes:
    width, inner = text["hidden_size"], text["intermediate_size"]
    head = width // text["num_attention_heads"]
    keys = head * text["num_key_value_heads"]
    return {
        **linear(f"{prefix}.self_attn.q_proj", width, width),
        **linear(f"{prefix}.self_attn.k_proj", keys, width),
        **linear(f"{prefix}.self_attn.v_proj", keys, width),
        f"{prefix}.self_attn.o_proj.weight": (width, width),
        f"{prefix}.mlp.gate_proj.weight": (inner, width),
        f"{prefix}.mlp.up_proj.weight": (inner, width),
        f"{prefix}.mlp.down_proj.weight": (width, inner),
        f"{prefix}.input_layernorm.weight": (width,),
        f"{prefix}.post_attention_layernorm.weight": (width,),
    }


def _internlm2(prefix: str, text: Mapping[str, Any]) -> Shapes:
    width, inner = text["hidden_size"], text["intermediate_size"]
    head = width // text["num_attention_heads"]
    fused = width + 2 * head * text["num_key_value_heads"]
    return {
        f"{prefix}.attention.wqkv.weight": (fused, width),
        f"{prefix}.attention.wo.weight": (width, width),
        f"{prefix}.feed_forward.w1.weight": (inner, width),
        f"{prefix}.feed_forward.w3.weight": (inner, width),
        f"{prefix}.feed_forward.w2.weight": (width, inner),
        f"{prefix}.attention_norm.weight": (width,),
        f"{prefix}.ffn_norm.weight": (width,),
    }
