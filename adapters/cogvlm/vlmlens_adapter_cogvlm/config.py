"""The config of CogVLM, from a checkpoint's config.json and without the class that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from transformers import LlamaConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from vlmlens.errors import CheckpointError

TEMPLATES = {
    "base": "{}",
    "vqa": "Question: {} Short answer:",
    "chat": "Question: {} Answer:",
}
"""What is put around a question, by template version."""

SPECIAL_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")

_ARCHITECTURE = "CogVLMForCausalLM"
_TEXT_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps", "use_cache",
    *SPECIAL_TOKEN_IDS, "template_version",
)  # fmt: skip
_VISION_FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_heads", "num_positions",
    "image_size", "patch_size", "in_channels", "hidden_act", "layer_norm_eps", "dropout_prob",
)  # fmt: skip


class CogVLMVisionConfig(PreTrainedConfig):
    """The vision tower, EVA2-CLIP-E; field names are those of the checkpoint."""

    model_type = "cogvlm_vision"
    base_config_key = "vision_config"

    hidden_size: int = 1792
    intermediate_size: int = 15360
    num_hidden_layers: int = 63
    num_heads: int = 16
    num_positions: int = 1226
    image_size: int = 490
    patch_size: int = 14
    in_channels: int = 3
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    dropout_prob: float = 0.0


class CogVLMConfig(LlamaConfig):
    """The language model, a Llama with a vision expert in each layer, and its tower."""

    model_type = "cogvlm"
    base_model_tp_plan: ClassVar[dict[str, Any]] = {}
    base_model_pp_plan: ClassVar[dict[str, Sequence[list[str]]]] = {}
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(config_class=CogVLMVisionConfig)
    }

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    template_version: str = "chat"


def cogvlm_config(said: Mapping[str, Any], model: str) -> CogVLMConfig:
    """The config of a CogVLM checkpoint.

    Missing fields get upstream's defaults. The rotary base is always 10000, as in upstream's code,
    even if the file says otherwise.

    Args:
        said: Its config.json.
        model: Hub id or folder, named in errors.

    Raises:
        CheckpointError: It is not a CogVLM of the first version, or contradicts itself.
    """
    _check_kind(said, model)
    vision = said.get("vision_config")
    if not isinstance(vision, Mapping):
        _refuse(model, "has no vision_config")
    lacking = [name for name in _VISION_FIELDS if name not in vision]
    if lacking:
        _refuse(model, f"has a vision_config without {', '.join(lacking)}")
    config = CogVLMConfig(
        vision_config=CogVLMVisionConfig(**{name: vision[name] for name in _VISION_FIELDS}),
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        dtype=said.get("dtype", said.get("torch_dtype")),
        **{"pad_token_id": 0, **_given(said)},
    )
    _check_sizes(config, model)
    return config


def _given(said: Mapping[str, Any]) -> dict[str, Any]:
    return {name: said[name] for name in _TEXT_FIELDS if said.get(name) is not None}


def _check_kind(said: Mapping[str, Any], model: str) -> None:
    architectures = list(said.get("architectures") or ())
    if "num_multi_query_heads" in said:
        _refuse(model, "is a CogVLM2 (it has num_multi_query_heads), which is another architecture")
    if any("CogAgent" in name for name in architectures) or "cross_hidden_size" in said:
        _refuse(model, "is a CogAgent, which is another architecture")
    if _ARCHITECTURE not in architectures:
        _refuse(model, f"has the architectures {architectures}, not {_ARCHITECTURE}")


def _check_sizes(config: CogVLMConfig, model: str) -> None:
    vision: Any = config.vision_config
    places = (vision.image_size // vision.patch_size) ** 2 + 1
    if vision.num_positions != places:
        _refuse(
            model,
            f"has {vision.num_positions} positions in its vision tower, where images of "
            f"{vision.image_size} pixels in patches of {vision.patch_size} need {places}",
        )
    for what, width, heads in (
        ("language model", config.hidden_size, config.num_attention_heads),
        ("vision tower", vision.hidden_size, vision.num_heads),
    ):
        if width % heads:
            _refuse(model, f"has a {what} of width {width}, which {heads} heads cannot share")
    if config.template_version not in TEMPLATES:
        known = ", ".join(TEMPLATES)
        _refuse(model, f"has the template {config.template_version!r}, not one of {known}")


def _refuse(model: str, what: str) -> NoReturn:
    raise CheckpointError(
        f"{model!r} {what}.",
        subject=model,
        hint="This adapter runs CogVLM of the first version, such as THUDM/cogvlm-chat-hf.",
    )
