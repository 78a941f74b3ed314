"""Tiny checkpoints in the layout of the hub's, with random weights and a small tokenizer."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch

from vlmlens_adapter_internlm_xcomposer.chat import BEGIN, END
from vlmlens_adapter_internlm_xcomposer.config import ARCHITECTURE

_ABOUT_ONE = ("norm.weight", "norm1.weight", "norm2.weight", "layrnorm.weight")
_EMBEDDINGS = ("embeddings.weight", "embedding.weight", "embedding", "_GN")
_BRANCHES = {"Plora": "lora_r", "lora_sft": "lora_sft_r", "lora_dpo": "lora_dpo_r",
             "lora_web": "lora_web_r"}  # fmt: skip
_TOWER = "vit.vision_tower.vision_model"
_TEXT = (
    "What is this? Name the colour of the largest thing, please: Compare them:",
    "user\nassistant\nHello, who are you? Hm? yes perhaps no",
    "".join(chr(code) for code in range(33, 127)),
)


def tiny_config(vocabulary: int, **values: Any) -> dict[str, Any]:
    """A config.json: tiles of 28 pixels in patches of 7, two vision blocks, two layers.

    Args:
        vocabulary: Number of tokens.
        values: Fields that differ.
    """
    tower = {
        "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 3, "image_size": 28, "patch_size": 7,
    }  # fmt: skip
    ranks = {"lora_r": 6, "lora_alpha": 6, "lora_sft_r": 4, "lora_dpo_r": 3, "lora_web_r": 8}
    return {
        "architectures": [ARCHITECTURE], "model_type": "internlm2", "vocab_size": vocabulary,
        "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 2, "bias": False, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "rope_theta": 10000, "max_position_embeddings": 80,
        "rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_length": 16384,
        "torch_dtype": "float32", "golden_only": {"vision_tower": tower, **ranks},
        **values,
    }  # fmt: skip


def tiny_weights(config: Mapping[str, Any], *, seed: int = 3) -> dict[str, torch.Tensor]:
    """Random weights under the names of the hub's files, large enough that everything matters."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in _shapes(config).items():
        drawn = torch.randn(shape, generator=generator)
        if name.endswith(_ABOUT_ONE):
            weights[name] = drawn * 0.1 + 1
        elif name.endswith(_EMBEDDINGS):
            weights[name] = drawn * 0.5
        elif len(shape) == 1:
            weights[name] = drawn * 0.1
        else:
            weights[name] = drawn * 1.2 / torch.Size(shape[1:]).numel() ** 0.5
    return weights


def tiny_pieces() -> bytes:
    """A SentencePiece model as the checkpoint's: BPE with bytes, and with pieces around a turn."""
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXT * 4), model_writer=written, model_type="bpe",
        vocab_size=400, hard_vocab_limit=False, byte_fallback=True, character_coverage=1.0,
        add_dummy_prefix=False, remove_extra_whitespaces=False,
        normalization_rule_name="identity", user_defined_symbols=[END, BEGIN],
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2,
    )  # fmt: skip
    return written.getvalue()


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width, wide = config["hidden_size"], config["golden_only"]["vision_tower"]["hidden_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.tok_embeddings.weight": (config["vocab_size"], width),
        "output.weight": (config["vocab_size"], width),
        "model.norm.weight": (width,),
        "plora_glb_GN": (1, 1, 4 * wide),
        "plora_sub_GN": (1, 1, 1, 4 * wide),
        **_linear("vision_proj.0", width, 4 * wide),
        **_linear("vision_proj.2", width, width),
        **_tower(config["golden_only"]["vision_tower"]),
    }
    for i in range(config["num_hidden_layers"]):
        shapes.update(_layer(f"model.layers.{i}", config))
    return shapes


def _layer(prefix: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner, heads = (
        config[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads")
    )
    fused = width // heads * (heads + 2 * config["num_key_value_heads"])
    linear = {"attention.wqkv": (fused, width), "attention.wo": (width, width),
              "feed_forward.w1": (inner, width), "feed_forward.w3": (inner, width),
              "feed_forward.w2": (width, inner)}  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        f"{prefix}.attention_norm.weight": (width,),
        f"{prefix}.ffn_norm.weight": (width,),
    }
    for name, (outputs, inputs) in linear.items():
        shapes[f"{prefix}.{name}.weight"] = (outputs, inputs)
        if config["bias"] and name.startswith("attention"):
            shapes[f"{prefix}.{name}.bias"] = (outputs,)
        for branch, rank in _BRANCHES.items():
            shapes[f"{prefix}.{name}.{branch}_A.weight"] = (config["golden_only"][rank], inputs)
            shapes[f"{prefix}.{name}.{branch}_B.weight"] = (outputs, config["golden_only"][rank])
    return shapes


def _tower(vision: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    wide, inner, patch = (vision[k] for k in ("hidden_size", "intermediate_size", "patch_size"))
    shapes: dict[str, tuple[int, ...]] = {
        f"{_TOWER}.embeddings.class_embedding": (wide,),
        f"{_TOWER}.embeddings.patch_embedding.weight": (wide, 3, patch, patch),
        f"{_TOWER}.embeddings.position_embedding.weight": (
            (vision["image_size"] // patch) ** 2 + 1, wide,
        ),
        **_norm(f"{_TOWER}.pre_layrnorm", wide),
        **_norm(f"{_TOWER}.post_layernorm", wide),
    }  # fmt: skip
    for i in range(vision["num_hidden_layers"]):
        block = f"{_TOWER}.encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes.update(_linear(f"{block}.self_attn.{name}", wide, wide))
        shapes.update(_linear(f"{block}.mlp.fc1", inner, wide))
        shapes.update(_linear(f"{block}.mlp.fc2", wide, inner))
        shapes.update(
            {**_norm(f"{block}.layer_norm1", wide), **_norm(f"{block}.layer_norm2", wide)}
        )
    return shapes


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
