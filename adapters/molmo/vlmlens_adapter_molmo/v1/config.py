"""The config of Molmo, from a checkpoint's config.json and without the class that it names.

There are two dialects: that of 7B-D, 7B-O and 72B, which leaves the vision side out, and that of
MolmoE. Goldens and trained variants may say more than the first dialect does; then that is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from transformers import (
    AutoConfig,
    CLIPVisionConfig,
    Olmo2Config,
    OlmoeConfig,
    PreTrainedConfig,
    Qwen2Config,
)
from transformers.configuration_utils import SubConfigSpec

from vlmlens.errors import CheckpointError

POOLED = 2
"""Patches along a side of what becomes one token."""

_MOLMOE_NAMES = {
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
}
_KNOWN = {
    "activation_type": "swiglu", "alibi": False,
    "attention_layer_norm_with_affine": True, "attn_logit_softcapping": None,
    "bias_for_layer_norm": False, "clip_qkv": None, "final_logit_softcapping": None,
    "head_dim": None, "image_padding_embed": "pad_and_partial_pad",
    "image_pooling_2d": "attention-meanq", "image_pooling_h": POOLED, "image_pooling_w": POOLED,
    "image_projector": "mlp", "include_bias": False, "layer_norm_type": "rms",
    "layer_norm_with_affine": True, "moe_interleave": False, "moe_shared_expert": False,
    "multi_query_attention": None, "normalize_input_embeds": False, "rope": True,
    "rope_impl": "llama", "scale_logits": False, "tie_word_embeddings": False,
    "use_cls_feature": False, "use_position_ids": True, "weight_tying": False,
}  # fmt: skip
"""Fields that change the model, with the one value for which it is written here."""

_VISION = {
    "image_default_input_size": (336, 336), "image_patch_size": 14, "image_emb_dim": 1024,
    "image_num_heads": 16, "image_num_layers": 23, "image_mlp_dim": 4096,
    "image_mlp_activations": "quick_gelu", "image_norm_eps": 1e-5,
}  # fmt: skip
_VIT_LAYERS = (-2, -9)
_ADDED_TOKENS = 128


class MolmoConfig(PreTrainedConfig):
    """A vision tower of CLIP's kind, and a language model of Qwen2's, Olmo2's or Olmoe's."""

    model_type = "molmo"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(config_class=CLIPVisionConfig),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2"),
    }

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    vit_layers: Sequence[int] = _VIT_LAYERS
    """The blocks of the tower whose outputs are the features of a patch, one after the other."""
    head_size: int = 152064
    """Tokens that the head knows; the embedding table has `text_config.vocab_size` rows."""
    projector_size: int = 18944
    """Inner width of the projector."""
    tie_word_embeddings: bool = False


def molmo_config(said: Mapping[str, Any], model: str) -> MolmoConfig:
    """The config of a checkpoint of Molmo.

    Args:
        said: Its config.json.
        model: Hub id or folder, named in errors.

    Raises:
        CheckpointError: It is not a Molmo, or differs in a way that is not known here.
    """
    if said.get("model_type") != "molmo":
        raise _unknown(model, "model_type", said.get("model_type"), "molmo")
    for name, value in _KNOWN.items():
        if said.get(name, value) != value:
            raise _unknown(model, name, said[name], value)
    try:
        config = MolmoConfig(
            vision_config=_vision_config(said, model),
            text_config=_text_config(said, model),
            vit_layers=list(said.get("vit_layers") or _VIT_LAYERS),
            head_size=said["embedding_size"],
            projector_size=_fused_width(said) // 2,
            dtype=said.get("torch_dtype") or said.get("dtype"),
        )
    except KeyError as error:
        raise CheckpointError(
            f"The config of {model!r} lacks {error.args[0]!r}.", subject=model
        ) from error
    _check_layers(config, model)
    return config


def _vision_config(said: Mapping[str, Any], model: str) -> CLIPVisionConfig:
    found = {**_VISION, **(said.get("vision_backbone") or {})}
    size, patch = tuple(found["image_default_input_size"]), int(found["image_patch_size"])
    if size[0] != size[1] or size[0] % (POOLED * patch):
        known = f"a square of {POOLED * patch}s"
        raise _unknown(model, "image_default_input_size", list(size), known)
    return CLIPVisionConfig(
        hidden_size=found["image_emb_dim"],
        intermediate_size=found["image_mlp_dim"],
        num_hidden_layers=found["image_num_layers"],
        num_attention_heads=found["image_num_heads"],
        image_size=size[0],
        patch_size=patch,
        hidden_act=found["image_mlp_activations"],
        layer_norm_eps=found["image_norm_eps"],
    )


def _text_config(said: Mapping[str, Any], model: str) -> PreTrainedConfig:
    """The language model's; its embedding table holds the additional tokens too."""
    shared: dict[str, Any] = {name: _said(said, name) for name in _MOLMOE_NAMES}
    shared |= {
        "vocab_size": said["embedding_size"] + said.get("additional_vocab_size", _ADDED_TOKENS),
        "rms_norm_eps": said["layer_norm_eps"],
        "rope_parameters": {"rope_type": "default", "rope_theta": said["rope_theta"]},
        "max_position_embeddings": said["max_position_embeddings"],
        "tie_word_embeddings": False,
        "pad_token_id": None,
        "eos_token_id": None,
    }
    kind = (
        bool(said.get("moe_num_experts")) and said.get("block_type") == "moe",
        bool(said.get("qkv_bias")),
        bool(said.get("attention_layer_norm")),
        bool(said.get("norm_after")),
    )
    inner = _fused_width(said) // 2
    if kind == (False, True, False, False):
        return Qwen2Config(**shared, intermediate_size=inner)
    if kind == (False, False, True, True):
        return Olmo2Config(**shared, intermediate_size=inner)
    if kind == (True, False, True, False):
        return OlmoeConfig(
            **shared,
            intermediate_size=inner,
            num_experts=said["moe_num_experts"],
            num_experts_per_tok=said["moe_top_k"],
            norm_topk_prob=False,
        )
    names = "experts, qkv_bias, attention_layer_norm, norm_after"
    raise _unknown(model, names, kind, "that of 7B-D, 7B-O, 72B or MolmoE")


def _fused_width(said: Mapping[str, Any]) -> int:
    """Columns of the gate and the up projection together."""
    found = said.get("intermediate_size") or said.get("mlp_hidden_size")
    return int(found or said["mlp_ratio"] * said["d_model"])


def _said(said: Mapping[str, Any], name: str) -> Any:
    other = _MOLMOE_NAMES[name]
    return said[other] if other in said else said[name]


def _check_layers(config: MolmoConfig, model: str) -> None:
    blocks = config.vision_config.num_hidden_layers  # type: ignore[union-attr]
    if not all(-blocks <= layer < blocks for layer in config.vit_layers):
        raise _unknown(model, "vit_layers", config.vit_layers, f"numbers of {blocks} blocks")


def _unknown(model: str, what: str, found: object, known: object) -> CheckpointError:
    return CheckpointError(
        f"{model!r} has {what} = {found!r} in its config; only {known!r} is known.",
        subject=model,
        hint="The adapter reads Molmo-7B-D, 7B-O, 72B and MolmoE-1B (0924).",
    )
