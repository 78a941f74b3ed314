"""The configs of the older generations, from a checkpoint's config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

from transformers import AutoConfig, GraniteConfig, PreTrainedConfig, Qwen2Config
from transformers.configuration_utils import SubConfigSpec
from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig

from vlmlens.errors import CheckpointError


class Generation(StrEnum):
    """A generation that transformers does not have; the values are for people."""

    V2 = "MiniCPM-V 2"
    V26 = "MiniCPM-V 2.6"
    O26 = "MiniCPM-o 2.6"


HEAD = 128
"""Width of an attention head of the resampler."""

_MODEL_TYPES = {"minicpmv", "minicpmo"}
_TIMM = "vit_so400m_patch14_siglip_384.webli"
_TIMM_SIZES: Mapping[str, Any] = {
    "hidden_size": 1152, "num_attention_heads": 16, "num_hidden_layers": 27, "image_size": 384,
    "patch_size": 14, "intermediate_size": 4304,
}  # fmt: skip
"""What MiniCPM-V 2 takes of the name of its tower; layers are counted before one is dropped."""
_SHARED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "rms_norm_eps",
)  # fmt: skip
_NEEDED: Mapping[Generation, tuple[str, ...]] = {
    Generation.V2: (*_SHARED, "query_num", "patch_size", "slice_mode", "scale_resolution",
                    "max_slice_nums", "scale_emb", "dim_model_base", "scale_depth"),
    Generation.V26: (*_SHARED, "query_num", "patch_size", "num_key_value_heads", "vision_config"),
    Generation.O26: (*_SHARED, "query_num", "patch_size", "num_key_value_heads", "vision_config"),
}  # fmt: skip
_KNOWN: Mapping[str, Any] = {
    "tie_word_embeddings": False, "rope_scaling": None, "slice_mode": True, "hidden_act": "silu",
    "attention_bias": False, "use_sliding_window": False, "batch_vision_input": True,
}  # fmt: skip
"""Fields that change the model, with the one value for which it is written here."""
_TEXT = (
    *_SHARED, "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range",
)  # fmt: skip
_VISION = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size",
    "patch_size", "num_channels", "hidden_act", "layer_norm_eps",
)  # fmt: skip


class MiniCpmSlicedConfig(PreTrainedConfig):
    """A tower over slices, a resampler, and a language model of Granite's or Qwen2's kind.

    Args:
        generation: One of `Generation`.
        query_num: Tokens that a slice becomes.
        scale_emb: Text embeddings are multiplied by it; image tokens are not.
        head_divisor: The last hidden states are divided by it before the head.
        scale_resolution: Side of the square whose area a slice has about, in pixels (2 only).
        max_slice_nums: Largest number of slices beside the whole image (2 only).
    """

    model_type = "minicpm_sliced"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(config_class=Idefics2VisionConfig),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2"),
    }
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    generation: str = Generation.V26.value
    query_num: int = 64
    scale_emb: float = 1.0
    head_divisor: float = 1.0
    scale_resolution: int = 448
    max_slice_nums: int = 9
    tie_word_embeddings: bool = False


def generation_of(said: Mapping[str, Any], model: str) -> Generation | None:
    """The older generation that a checkpoint belongs to; None: transformers reads it.

    Args:
        said: Its config.json.
        model: Hub id or folder, named in errors.

    Raises:
        CheckpointError: It is a MiniCPM that neither transformers nor this package supports.
    """
    kind, version = said.get("model_type"), str(said.get("version"))
    if kind not in _MODEL_TYPES:
        return None
    if kind == "minicpmv" and "vision_encoder" in said and "slice_mode" in said:
        return Generation.V2
    if version == "2.6" and "vision_config" in said:
        return Generation.O26 if kind == "minicpmo" else Generation.V26
    named = "no version" if said.get("version") is None else f"version {version}"
    raise CheckpointError(
        f"{model!r} is a MiniCPM of model type {kind!r} with {named}, which is not known.",
        subject=model,
        hint=f"The adapter reads {', '.join(Generation)}, and MiniCPM-V 4.6 and 4.7.",
    )


def sliced_config(said: Mapping[str, Any], generation: Generation, model: str) -> Any:
    """The config of a checkpoint of one of the older generations.

    Args:
        said: Its config.json.
        generation: From `generation_of`.
        model: Hub id or folder, named in errors.

    Returns:
        A `MiniCpmSlicedConfig`.

    Raises:
        CheckpointError: Fields are missing, or differ in a way that is not known here.
    """
    lacking = [name for name in _NEEDED[generation] if said.get(name) is None]
    if lacking:
        raise _refusal(model, f"lacks {', '.join(lacking)} in its config.json")
    for name, value in _KNOWN.items():
        if said.get(name, value) != value:
            raise _refusal(model, f"has {name} = {said[name]!r}; only {value!r} is known")
    first = generation is Generation.V2
    config = MiniCpmSlicedConfig(
        generation=generation.value,
        vision_config=_timm_config(said, model) if first else _navit_config(said),
        text_config=_granite_config(said) if first else Qwen2Config(**_text(said)),
        query_num=said["query_num"],
        dtype=said.get("dtype", said.get("torch_dtype")),
        **(_of_first(said) if first else {}),
    )
    _check_sizes(config, int(said["patch_size"]), model)
    return config


def _text(said: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: said[name] for name in _TEXT if said.get(name) is not None}
    rope = {"rope_type": "default", "rope_theta": float(said.get("rope_theta", 10000.0))}
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    return {**given, **ends, "rope_parameters": rope, "tie_word_embeddings": False}


def _granite_config(said: Mapping[str, Any]) -> GraniteConfig:
    """A Granite with scaled residuals; embeddings and logits are scaled outside of it."""
    layers, head = said["num_hidden_layers"], said["hidden_size"] // said["num_attention_heads"]
    return GraniteConfig(
        **_text(said),
        residual_multiplier=said["scale_depth"] / layers**0.5,
        attention_multiplier=head**-0.5,
    )


def _of_first(said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "scale_emb": float(said["scale_emb"]),
        "head_divisor": said["hidden_size"] / said["dim_model_base"],
        "scale_resolution": said["scale_resolution"],
        "max_slice_nums": said["max_slice_nums"],
    }


def _timm_config(said: Mapping[str, Any], model: str) -> Idefics2VisionConfig:
    own = dict(said.get("vision_config") or {})
    if not own and said["vision_encoder"] != _TIMM:
        raise _refusal(model, f"has the tower {said['vision_encoder']!r}; only {_TIMM!r} is known")
    if "mlp_ratio" in own:
        own["intermediate_size"] = int(own["hidden_size"] * own["mlp_ratio"])
    return _vision({**_TIMM_SIZES, **own, "hidden_act": "gelu"}, said)


def _navit_config(said: Mapping[str, Any]) -> Idefics2VisionConfig:
    return _vision(said["vision_config"], said)


def _vision(sizes: Mapping[str, Any], said: Mapping[str, Any]) -> Idefics2VisionConfig:
    dropped = int(said.get("drop_vision_last_layer", True))
    given = {name: sizes[name] for name in _VISION if name in sizes}
    return Idefics2VisionConfig(
        **{**given, "num_hidden_layers": sizes["num_hidden_layers"] - dropped}
    )


def _check_sizes(config: MiniCpmSlicedConfig, patch: int, model: str) -> None:
    text: Any = config.text_config
    vision: Any = config.vision_config
    if text.hidden_size % HEAD:
        raise _refusal(model, f"has a width of {text.hidden_size}, no multiple of {HEAD}")
    for name, part in (("language model", text), ("vision tower", vision)):
        if part.hidden_size % part.num_attention_heads:
            raise _refusal(
                model,
                f"has a {name} of width {part.hidden_size}, "
                f"which {part.num_attention_heads} heads cannot share",
            )
    if vision.patch_size != patch:
        raise _refusal(model, f"cuts patches of {patch} for a tower of {vision.patch_size}")


def _refusal(model: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"{model!r} {why}.",
        subject=model,
        hint=f"The adapter reads {', '.join(Generation)} as openbmb published them.",
    )
