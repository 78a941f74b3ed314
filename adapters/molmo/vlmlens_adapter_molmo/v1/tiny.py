"""Tiny checkpoints in upstream's layout, with random weights, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from vlmlens.testing.tiny import (
    Shapes,
    byte_tokenizer,
    drawn_weights,
    linear,
    norm,
    write_checkpoint_files,
)

Kind = Literal["qwen2", "olmo2", "olmoe"]
ADDED = 128
"""Rows of the table of additional tokens."""

_SPECIALS = (
    "<|endoftext|>", "<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<|image|>",
)  # fmt: skip
_VISION = {
    "image_default_input_size": [48, 48], "image_patch_size": 8, "image_pos_patch_size": 8,
    "image_emb_dim": 32, "image_num_heads": 4, "image_num_key_value_heads": 4,
    "image_num_layers": 4, "image_head_dim": 8, "image_mlp_dim": 64,
    "image_mlp_activations": "quick_gelu", "image_num_pos": 37, "image_norm_eps": 1e-5,
}  # fmt: skip
_IMAGES = {
    "auto_map": {"AutoProcessor": "preprocessing_molmo.MolmoProcessor"},
    "base_image_input_size": [48, 48], "do_normalize": True, "image_padding_mask": True,
    "image_patch_size": 8, "image_processor_type": "MolmoImageProcessor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_token_length_h": 3, "image_token_length_w": 3, "max_crops": 4,
    "overlap_margins": [2, 2], "processor_class": "MolmoProcessor",
}  # fmt: skip


def write_checkpoint(folder: Path, kind: Kind) -> None:
    """A whole checkpoint: config, weights, tokenizer, image settings.

    Args:
        folder: An empty one.
        kind: Of the language model: that of 7B-D and 72B, of 7B-O, or of MolmoE.
    """
    tokenizer = byte_tokenizer(_SPECIALS, eos="<|endoftext|>", pad="<|endoftext|>")
    tokenizer.save_pretrained(folder)
    config = molmo_json(kind, tokenizer.convert_tokens_to_ids("<im_start>"))
    weights = molmo_weights(config)
    write_checkpoint_files(folder, weights, config=config, preprocessor_config=_IMAGES)


def molmo_json(kind: Kind, vocabulary: int) -> dict[str, Any]:
    """A config.json; crops of 6 x 6 patches, of which neighbours share four.

    Args:
        kind: Of the language model.
        vocabulary: Number of tokens without the image's.
    """
    config = {
        "architectures": ["MolmoForCausalLM"], "model_type": "molmo", "torch_dtype": "float32",
        "auto_map": {"AutoModelForCausalLM": "modeling_molmo.MolmoForCausalLM"},
        "embedding_size": vocabulary, "vocab_size": vocabulary, "clip_qkv": None,
        "layer_norm_eps": 1e-5, "layer_norm_type": "rms", "max_position_embeddings": 2048,
        "rope_theta": 1e4, "use_position_ids": True, "weight_tying": False,
        "vision_backbone": _VISION, "vit_layers": [-2, -4], "additional_vocab_size": ADDED,
        "norm_after": kind == "olmo2", "qkv_bias": kind == "qwen2",
        "attention_layer_norm": kind != "qwen2",
    }  # fmt: skip
    if kind == "olmoe":
        return config | {
            "d_model": 32, "n_layers": 3, "n_heads": 4, "n_kv_heads": None, "mlp_ratio": 1,
            "mlp_hidden_size": None, "block_type": "moe", "moe_num_experts": 8, "moe_top_k": 3,
        }  # fmt: skip
    return config | {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2 if kind == "qwen2" else None, "intermediate_size": 96,
    }  # fmt: skip


def molmo_weights(config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Random weights under upstream's names."""
    return drawn_weights(molmo_shapes(config), embeddings=r"(embedding|pad_embed)$")


def molmo_shapes(config: Mapping[str, Any]) -> Shapes:
    """The shape of every weight, from a config that includes the vision side."""
    moe = config.get("block_type") == "moe"
    width = config["d_model"] if moe else config["hidden_size"]
    table = "model.transformer.wte."
    shapes: Shapes = {
        table + "embedding": (config["embedding_size"], width),
        table + "new_embedding": (ADDED, width),
        "model.transformer.ln_f.weight": (width,),
        ("lm_head.weight" if moe else "model.transformer.ff_out.weight"): (
            config["embedding_size"],
            width,
        ),
    }
    for i in range(config["n_layers"] if moe else config["num_hidden_layers"]):
        block = f"model.transformer.blocks.{i}."
        shapes.update(_moe_block(block, config) if moe else _block(block, config))
    inner = (width if moe else config["intermediate_size"]) // 2
    return {**shapes, **_vision(config, width, inner)}


def _block(block: str, config: Mapping[str, Any]) -> Shapes:
    width, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    keys = width // heads * (config["num_key_value_heads"] or heads)
    shapes: Shapes = {
        block + "attn_norm.weight": (width,),
        block + "ff_norm.weight": (width,),
        block + "att_proj.weight": (width + 2 * keys, width),
        block + "attn_out.weight": (width, width),
        block + "ff_proj.weight": (inner, width),
        block + "ff_out.weight": (width, inner // 2),
    }
    if config["qkv_bias"]:
        shapes[block + "att_proj.bias"] = (width + 2 * keys,)
    if config["attention_layer_norm"]:
        shapes |= {block + "q_norm.weight": (width,), block + "k_norm.weight": (keys,)}
    return shapes


def _moe_block(block: str, config: Mapping[str, Any]) -> Shapes:
    width, experts = config["d_model"], config["moe_num_experts"]
    shapes: Shapes = {
        block + "attn.att_proj.weight": (3 * width, width),
        block + "attn.attn_out.weight": (width, width),
        block + "mlp.gate.weight": (experts, width),
        block + "mlp.ff_norm.weight": (width,),
    }
    for name in ("attn_norm", "q_norm", "k_norm"):
        shapes[f"{block}attn.{name}.weight"] = (width,)
    for expert in range(experts):
        head = f"{block}mlp.experts.{expert}."
        shapes[head + "gate_proj.weight"] = shapes[head + "up_proj.weight"] = (width // 2, width)
        shapes[head + "down_proj.weight"] = (width, width // 2)
    return shapes


def _vision(config: Mapping[str, Any], width: int, inner: int) -> Shapes:
    vision = config["vision_backbone"]
    wide, between = vision["image_emb_dim"], vision["image_mlp_dim"]
    features = wide * len(config["vit_layers"])
    head, tower = "model.vision_backbone.", "model.vision_backbone.image_vit."
    shapes: Shapes = {
        head + "pad_embed": (2, features),
        head + "image_projector.w1.weight": (inner, wide),
        head + "image_projector.w2.weight": (width, inner),
        head + "image_projector.w3.weight": (inner, wide),
        tower + "class_embedding": (wide,),
        tower + "positional_embedding": (vision["image_num_pos"], wide),
        tower + "patch_embedding.weight": (wide, 3 * vision["image_patch_size"] ** 2),
        **norm(tower + "pre_ln", wide),
        **_attention(head + "image_pooling_2d", wide, features),
    }
    for i in range(vision["image_num_layers"]):
        block = f"{tower}transformer.resblocks.{i}."
        shapes.update(_attention(block + "attention", wide, wide))
        shapes.update({**norm(block + "attention_norm", wide), **norm(block + "ffn_norm", wide)})
        shapes.update(linear(block + "feed_forward.w1", between, wide))
        shapes.update(linear(block + "feed_forward.w2", wide, between))
    return shapes


def _attention(name: str, wide: int, inputs: int) -> Shapes:
    parts = [linear(f"{name}.{part}", wide, inputs) for part in ("wq", "wk", "wv")]
    whole = linear(f"{name}.wo", wide, wide)
    return {**parts[0], **parts[1], **parts[2], **whole}
