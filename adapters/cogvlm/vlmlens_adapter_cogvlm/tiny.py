"""Tiny checkpoints in CogVLM's own layout, with random weights, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vlmlens.testing.tiny import (
    byte_tokenizer,
    drawn_weights,
    state_shapes,
    write_checkpoint_files,
)
from vlmlens_adapter_cogvlm.config import cogvlm_config
from vlmlens_adapter_cogvlm.model import CogVLMForConditionalGeneration

_EMBEDDINGS = r"(embed_tokens|embedding)\.weight$|cls_embedding$|\.[be]oi$"


def tiny_config(vocabulary: int, *, bos: int, eos: int, pad: int) -> dict[str, Any]:
    """What a config.json says: images of 32 pixels, patches of 8, two layers on each side.

    Args:
        vocabulary: Number of tokens.
        bos: Id of the begin-of-text token.
        eos: Id of the end-of-text token.
        pad: Id of the padding token.
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


def tiny_weights(config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Random weights under CogVLM's names, which are those of the model here."""
    made = cogvlm_config(config, "tiny")
    shapes = state_shapes(lambda: CogVLMForConditionalGeneration(made))
    return drawn_weights(shapes, embeddings=_EMBEDDINGS) | _angles(config)


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
    return write_checkpoint_files(folder, tiny_weights(config), config=config)


def _angles(config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The rotary angles, which real checkpoints carry too."""
    head = config["hidden_size"] // config["num_attention_heads"]
    angles = 10000.0 ** (-torch.arange(0, head, 2).float() / head)
    layers = range(config["num_hidden_layers"])
    return {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": angles.clone() for i in layers}
