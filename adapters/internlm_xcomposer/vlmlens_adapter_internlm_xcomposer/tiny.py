"""Tiny checkpoints in the layout of the hub's, with random weights and a small tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vlmlens.testing.tiny import drawn_weights, sentencepiece_model, state_shapes
from vlmlens_adapter_internlm_xcomposer.chat import BEGIN, END
from vlmlens_adapter_internlm_xcomposer.config import ARCHITECTURE, xcomposer_config
from vlmlens_adapter_internlm_xcomposer.model import XComposerForConditionalGeneration

_EMBEDDINGS = r"embeddings?(\.weight)?$|_GN$"
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


def tiny_weights(config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Random weights under the names of the hub's files."""
    made = xcomposer_config(config, "tiny")
    shapes = state_shapes(lambda: XComposerForConditionalGeneration(made))
    stored = {name.replace(".base.", "."): shape for name, shape in shapes.items()}
    return drawn_weights(stored, embeddings=_EMBEDDINGS)


def tiny_pieces() -> bytes:
    """A SentencePiece model as the checkpoint's: with bytes, and with pieces around a turn."""
    return sentencepiece_model(
        _TEXT * 4, vocab_size=400, hard_vocab_limit=False, character_coverage=1.0,
        add_dummy_prefix=False, user_defined_symbols=[END, BEGIN], unk_id=0, bos_id=1, eos_id=2,
        pad_id=-1,
    )  # fmt: skip
