"""Tiny checkpoints in the layout of the hub's, with random weights and small tokenizers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vlmlens.testing.tiny import (
    byte_tokenizer,
    drawn_weights,
    sentencepiece_model,
    state_shapes,
    write_checkpoint_files,
)
from vlmlens_adapter_minicpm.older.config import Generation, sliced_config
from vlmlens_adapter_minicpm.older.model import MiniCpmSlicedForConditionalGeneration
from vlmlens_adapter_minicpm.older.tokenizers import (
    CHAT_TEMPLATE,
    END_OF_TEXT,
    END_OF_TURN,
    MARKS,
    TURN,
    UNKNOWN,
)

_EMBEDDINGS = r"(embed_tokens|position_embedding)\.weight$|(pos_embed|query)$"
_TEXT = (
    "What is this? Name the colour of the largest thing, please: Compare them:",
    "Hello, who are you? Hm? yes perhaps no 用户 AI",
    "".join(chr(code) for code in range(33, 127)),
)
_SHARED: Mapping[str, Any] = {
    "hidden_size": 256, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 2048, "query_num": 3, "patch_size": 4, "slice_mode": True,
    "hidden_act": "silu", "tie_word_embeddings": False, "torch_dtype": "float32",
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_SLICES = {"max_slice_nums": 4, "scale_resolution": 24, "patch_size": 4}
_HEARD = {
    "apm.conv1.weight": (8, 4, 3), "apm.layers.0.fc1.weight": (8, 8),
    "audio_projection_layer.linear1.bias": (8,),
    "tts.head_code.0.parametrizations.weight.original0": (8, 1),
}  # fmt: skip


def tiny_config(generation: Generation, vocabulary: int) -> dict[str, Any]:
    """A config.json: patches of 4 pixels, slices of about 24 x 24, two layers on each side.

    Args:
        generation: Which one.
        vocabulary: Number of tokens.
    """
    tower = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 3, "patch_size": 4}
    if generation is Generation.V2:
        return {
            **_SHARED, "architectures": ["MiniCPMV"], "model_type": "minicpmv",
            "vocab_size": vocabulary, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
            "vision_encoder": "vit_so400m_patch14_siglip_384.webli",
            "drop_vision_last_layer": True, "image_size": 24, "dim_model_base": 64,
            "scale_depth": 1.4, "scale_emb": 12, **_SLICES,
            "vision_config": {**tower, "mlp_ratio": 2.0, "image_size": 26},
        }  # fmt: skip
    spoken = generation is Generation.O26
    return {
        **_SHARED, "architectures": ["MiniCPMO" if spoken else "MiniCPMV"],
        "model_type": "minicpmo" if spoken else "minicpmv", "version": 2.6,
        "vocab_size": vocabulary, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
        "rope_theta": 1e6, "drop_vision_last_layer": True, "slice_config": _SLICES,
        "vision_config": {**tower, "intermediate_size": 40, "image_size": 40},
    }  # fmt: skip


def tiny_weights(config: Mapping[str, Any], generation: Generation) -> dict[str, torch.Tensor]:
    """Random weights under upstream's names, which are those of the model here."""
    made = sliced_config(config, generation, "tiny")
    shapes = state_shapes(lambda: MiniCpmSlicedForConditionalGeneration(made))
    shapes |= _HEARD if generation is Generation.O26 else {}
    return drawn_weights(shapes, embeddings=_EMBEDDINGS)


def tiny_pieces() -> bytes:
    """A SentencePiece model as MiniCPM-V 2's: with a dummy prefix, and bytes for the unknown."""
    return sentencepiece_model(
        _TEXT * 4, vocab_size=400, hard_vocab_limit=False, character_coverage=1.0,
        user_defined_symbols=[*MARKS, "\n"], unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
    )  # fmt: skip


def write_checkpoint(folder: Path, generation: Generation) -> Path:
    """A whole checkpoint of a generation."""
    folder.mkdir(parents=True, exist_ok=True)
    count = _pieces(folder) if generation is Generation.V2 else _bytes(folder)
    config = tiny_config(generation, count)
    return write_checkpoint_files(folder, tiny_weights(config, generation), config=config)


def _pieces(folder: Path) -> int:
    import sentencepiece

    pieces = tiny_pieces()
    (folder / "tokenizer.model").write_bytes(pieces)
    return int(sentencepiece.SentencePieceProcessor(model_proto=pieces).get_piece_size())


def _bytes(folder: Path) -> int:
    specials = [END_OF_TEXT, TURN, END_OF_TURN, UNKNOWN, *MARKS, "<image_id>", "</image_id>"]
    tokenizer = byte_tokenizer(specials)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    template = {"chat_template": CHAT_TEMPLATE, "tokenizer_class": "MiniCPMVTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(template), encoding="utf-8")
    images = {
        **_SLICES, "image_feature_size": _SHARED["query_num"], "slice_mode": True,
        "use_image_id": True, "norm_mean": [0.5] * 3, "norm_std": [0.5] * 3, "version": 2.6,
        "image_processor_type": "MiniCPMVImageProcessor", "processor_class": "MiniCPMVProcessor",
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(images), encoding="utf-8")
    return len(tokenizer)
