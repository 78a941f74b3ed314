"""The original layout of `OpenGVLab/InternVL2_5-*`, read without its remote code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers.utils.hub import cached_file

from vlmlens.errors import CheckpointError
from vlmlens_adapter_internvl.chat import END_OF_TURN, IMAGE_CONTEXT, check_chat
from vlmlens_adapter_internvl.keys import native_weights
from vlmlens_adapter_internvl.tokenizer import load_tokenizer

_INDEXED = ("model.safetensors", "pytorch_model.bin")
_NOT_OF_THE_MODEL = {
    "architectures", "auto_map", "attn_implementation", "model_type", "tie_word_embeddings",
    "torch_dtype", "transformers_version",
}  # fmt: skip
_LISTED = 40


def read_json(model: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config of a checkpoint in the original layout; None for any other.

    Raises:
        OSError: There is no config.
    """
    revision = arguments.get("revision")
    said, _ = transformers.PreTrainedConfig.get_config_dict(model, revision=revision)
    return dict(said) if said.get("model_type") == "internvl_chat" else None


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

    Weights stay on disk until they are placed, one after the other; only InternLM2's fused
    attention matrices are copied before.

    Raises:
        CheckpointError: Weights are missing, left over, or of another shape.
    """
    tokenizer = load_tokenizer(model, arguments)
    config.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT)
    weights = {
        name: part
        for file in _files(model, arguments)
        for key, tensor in _stored(file)
        for name, part in native_weights(key, tensor, config.text_config)
    }
    _check(weights, config, model)
    settings = {k: v for k, v in arguments.items() if k not in {"revision", "trust_remote_code"}}
    module = transformers.InternVLForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=weights, **settings
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


def _files(model: str, arguments: Mapping[str, Any]) -> list[Path]:
    """The weight files, safetensors where there are any."""
    for name in _INDEXED:
        index = _cached(model, f"{name}.index.json", arguments)
        if index is not None:
            listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            found = [_cached(model, shard, arguments, needed=True) for shard in sorted({*listed})]
            return [file for file in found if file is not None]
        whole = _cached(model, name, arguments)
        if whole is not None:
            return [whole]
    raise CheckpointError(
        f"{model!r} has no weights.", subject=model, hint=f"It needs {' or '.join(_INDEXED)}."
    )


def _cached(
    model: str, file: str, arguments: Mapping[str, Any], *, needed: bool = False
) -> Path | None:
    path = cached_file(
        model,
        file,
        revision=arguments.get("revision"),
        _raise_exceptions_for_missing_entries=needed,
    )
    return None if path is None else Path(path)


def _stored(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a file, mapped into memory and not read yet."""
    if file.suffix == ".bin":
        yield from _pickled(file).items()
        return
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118  it is no mapping
            yield name, opened.get_tensor(name)


def _pickled(file: Path) -> dict[str, torch.Tensor]:
    try:
        return dict(torch.load(file, map_location="cpu", mmap=True, weights_only=True))
    except UnpicklingError as error:
        raise CheckpointError(
            f"{file.name} holds more than tensors, and is not opened.",
            subject=str(file),
            hint="It could run code; use a checkpoint with safetensors.",
        ) from error


def _check(weights: Mapping[str, torch.Tensor], config: Any, model: str) -> None:
    with torch.device("meta"):
        expected = transformers.InternVLForConditionalGeneration(config).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = [
        f"{name} {shapes[name]} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in shapes and shapes[name] != tuple(tensor.shape)
    ]
    problems = {
        "missing": sorted(set(expected) - set(shapes)),
        "left over": sorted(set(shapes) - set(expected)),
        "of another shape": wrong,
    }
    told = [f"{what}: {_list(names)}" for what, names in problems.items() if names]
    if told:
        raise CheckpointError(
            f"The weights of {model!r} do not fit its config. " + "; ".join(told) + ".",
            subject=model,
            hint="The files are incomplete, or of another architecture.",
        )


def _list(names: list[str]) -> str:
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
