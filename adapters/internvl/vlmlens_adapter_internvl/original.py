"""The original layout of `OpenGVLab/InternVL2_5-*`, read without its remote code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers

from vlmlens.errors import CheckpointError
from vlmlens.hf.checkpoints import read_config_json
from vlmlens.hf.weights import place_weights, stored_weights
from vlmlens_adapter_internvl.chat import END_OF_TURN, IMAGE_CONTEXT, check_chat
from vlmlens_adapter_internvl.keys import native_weights
from vlmlens_adapter_internvl.tokenizer import load_tokenizer

_NOT_OF_THE_MODEL = {
    "architectures", "auto_map", "attn_implementation", "model_type", "tie_word_embeddings",
    "torch_dtype", "transformers_version",
}  # fmt: skip


def read_json(model: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config of a checkpoint in the original layout; None for any other.

    Raises:
        OSError: There is no config.
    """
    said = read_config_json(model, arguments)
    return said if said.get("model_type") == "internvl_chat" else None


def native_config(said: Mapping[str, Any], model: str) -> Any:
    """The transformers config of a model in the original layout.

    Raises:
        CheckpointError: It differs from InternVL 2.5 in a way that the class does not know.
    """
    check_chat(said, model)
    if said.get("ps_version") != "v2":
        raise _unknown(model, "ps_version", said.get("ps_version"), "v2")
    config = transformers.InternVLConfig(
        vision_config=_vision_config(said["vision_config"]),
        text_config=_text_config(said["llm_config"], model),
        downsample_ratio=said["downsample_ratio"],
        vision_feature_layer=said["select_layer"],
        tie_word_embeddings=False,
        dtype=said.get("torch_dtype"),
    )
    config._commit_hash = said.get("_commit_hash")
    return config


def load(model: str, config: Any, arguments: Mapping[str, Any]) -> Any:
    """The transformers class with the checkpoint's weights.

    Raises:
        CheckpointError: Weights are missing, left over, or of another shape.
    """
    tokenizer = load_tokenizer(model, arguments)
    config.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT)
    weights = {
        name: part
        for key, tensor in stored_weights(model, arguments).items()
        for name, part in native_weights(key, tensor, config.text_config)
    }
    module = place_weights(
        transformers.InternVLForConditionalGeneration, config, weights, model, arguments
    )
    module.generation_config = transformers.GenerationConfig(
        eos_token_id=tokenizer.convert_tokens_to_ids(END_OF_TURN)
    )
    return module


def _vision_config(said: Mapping[str, Any]) -> Any:
    same = (
        "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "hidden_act", "norm_type", "layer_norm_eps", "image_size", "patch_size", "num_channels",
    )  # fmt: skip
    return transformers.InternVLVisionConfig(
        attention_bias=said["qkv_bias"],
        use_qk_norm=said["qk_normalization"],
        **{name: said[name] for name in same if name in said},
    )


def _text_config(said: Mapping[str, Any], model: str) -> Any:
    architecture = said["architectures"][0]
    given = {
        name: value
        for name, value in said.items()
        if name not in _NOT_OF_THE_MODEL and not name.startswith("_") and value is not None
    }
    if architecture == "InternLM2ForCausalLM":
        given["attention_bias"] = given.pop("bias", True)
        return transformers.LlamaConfig(**given, tie_word_embeddings=False)
    if architecture == "Qwen2ForCausalLM":
        return transformers.Qwen2Config(**given, tie_word_embeddings=False)
    raise _unknown(model, "language model", architecture, "InternLM2ForCausalLM, Qwen2ForCausalLM")


def _unknown(model: str, what: str, found: object, known: str) -> CheckpointError:
    return CheckpointError(
        f"{model!r} has the {what} {found!r}; of the original layout only {known} is known.",
        subject=model,
        hint='Use a checkpoint in transformers\' layout (its name ends in "-hf").',
    )
