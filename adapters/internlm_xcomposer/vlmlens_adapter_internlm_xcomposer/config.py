"""The config of InternLM-XComposer 2.5, from a checkpoint's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from transformers import CLIPVisionConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from vlmlens.errors import CheckpointError

ARCHITECTURE = "InternLMXComposer2ForCausalLM"

_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "bias",
)  # fmt: skip
_OPTIONAL = ("hidden_act", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id")
_VISION: Mapping[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 560, "patch_size": 14, "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}  # fmt: skip
"""CLIP ViT-L/14 at 560 pixels: its sizes stand in upstream's code, not in config.json."""
_RANKS: Mapping[str, int] = {
    "lora_r": 256, "lora_alpha": 256, "lora_sft_r": 256, "lora_dpo_r": 256, "lora_web_r": 512,
}  # fmt: skip
"""Of the low-rank branches; likewise."""
_UPSTREAMS = "golden_only"
"""A field that only tiny test checkpoints have: other values for what upstream's code fixes."""


class XComposerConfig(PreTrainedConfig):
    """The language model's fields on top, those of its CLIP tower in `vision_config`.

    Args:
        rope_base: Base of the rotary frequencies.
        rope_type: "default", "linear" or "dynamic".
        rope_factor: Of the last two.
        longest: Positions that upstream keeps of a prompt.
        lora_alpha: The image branch is scaled by `lora_alpha / lora_r`.
        infer_mode: Which branches act on all tokens: none ("base"), "web", or those of "write".
    """

    model_type = "internlm_xcomposer2d5"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(config_class=CLIPVisionConfig)
    }
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    vocab_size: int = 92544
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    hidden_act: str = "silu"
    bias: bool = False
    rms_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    max_position_embeddings: int = 24576
    rope_base: float = 1e6
    rope_type: str = "default"
    rope_factor: float = 1.0
    longest: int = 16384
    lora_r: int = 256
    lora_alpha: int = 256
    lora_sft_r: int = 256
    lora_dpo_r: int = 256
    lora_web_r: int = 512
    infer_mode: str = "base"
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = 2
    tie_word_embeddings: bool = False

    @property
    def image_token_id(self) -> int:
        """The id at image positions: the first that is not in the vocabulary."""
        return self.vocab_size

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def merged_side(self) -> int:
        """Tokens along a side of a tile: 2 x 2 patches each."""
        vision: Any = self.vision_config
        return int(vision.image_size) // int(vision.patch_size) // 2


def xcomposer_config(said: Mapping[str, Any], model: str) -> XComposerConfig:
    """The config of a checkpoint.

    Args:
        said: Its config.json.
        model: Hub id or folder, named in errors.

    Raises:
        CheckpointError: It is of another architecture, or says something that is not known.
    """
    if ARCHITECTURE not in (said.get("architectures") or ()):
        raise refusal(model, f"has the architectures {said.get('architectures')}")
    lacking = [name for name in (*_SIZES, "rope_theta") if said.get(name) is None]
    if lacking:
        raise refusal(model, f"lacks {', '.join(lacking)} in its config.json")
    own = said.get(_UPSTREAMS, {})
    config = XComposerConfig(
        vision_config=CLIPVisionConfig(**{**_VISION, **own.get("vision_tower", {})}),
        longest=said.get("max_length") or XComposerConfig.longest,
        dtype=said.get("dtype", said.get("torch_dtype")),
        **{name: said[name] for name in _SIZES},
        **{name: said[name] for name in _OPTIONAL if said.get(name) is not None},
        **{name: own.get(name, rank) for name, rank in _RANKS.items()},
        **_rope(said, model),
    )
    _check_sizes(config, model)
    return config


def refusal(model: str, why: str) -> CheckpointError:
    """The error for a checkpoint that is not InternLM-XComposer 2.5."""
    return CheckpointError(
        f"{model!r} {why}; this adapter runs InternLM-XComposer 2.5 ({ARCHITECTURE}).",
        subject=model,
        hint="XComposer2 and XComposer2-4KHD are other models, which it does not know.",
    )


def _rope(said: Mapping[str, Any], model: str) -> dict[str, Any]:
    scaling = said.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in {"default", "linear", "dynamic"}:
        raise refusal(model, f"scales its rotary positions by {kind!r}, which is not known")
    return {
        "rope_base": float(said["rope_theta"]),
        "rope_type": kind,
        "rope_factor": float(scaling.get("factor", 1.0)),
    }


def _check_sizes(config: XComposerConfig, model: str) -> None:
    vision: Any = config.vision_config
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    if config.hidden_size % heads or heads % groups or config.head_dim % 2:
        raise refusal(
            model, f"divides a width of {config.hidden_size} into {heads} and {groups} heads"
        )
    if vision.image_size % (2 * vision.patch_size):
        raise refusal(
            model, f"has tiles of {vision.image_size} pixels in patches of {vision.patch_size}"
        )
