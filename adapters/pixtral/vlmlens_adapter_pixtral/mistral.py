"""Mistral's own layout: consolidated.safetensors, params.json and tekken.json.

The names are those of mistral-inference. Its rotary embedding turns neighbouring pairs of a head's
dimensions, transformers' turns pairs half a head apart: the rows of the query and key weights
change places accordingly, in the vision tower as in the language model.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils.hub import cached_file, extract_commit_hash

from vlmlens.errors import CheckpointError, MissingDependency
from vlmlens.hf.processors import transformers_class
from vlmlens.hf.renames import renames_below
from vlmlens.hf.weights import StoredTensor, place_weights, renamed, stored_tensors
from vlmlens.sites import Rename

RENAMES = (
    Rename(r"^vision_encoder(?=\.|$)", "model.vision_tower"),
    *renames_below("model.vision_tower.transformer.layers.{i}", {
        "attention.w([qkvo])": r"attention.\2_proj", "feed_forward.w1": "feed_forward.gate_proj",
        "feed_forward.w2": "feed_forward.down_proj", "feed_forward.w3": "feed_forward.up_proj",
    }),
    Rename(r"^vision_language_adapter(?=\.|$)", "model.multi_modal_projector"),
    *renames_below(
        "model.multi_modal_projector", {"w_in": "linear_1", "gelu": "act", "w_out": "linear_2"}
    ),
    Rename(r"^tok_embeddings(?=\.|$)", "model.language_model.embed_tokens"),
    Rename(r"^(norm|layers)(?=\.|$)", r"model.language_model.\1"),
    Rename(r"^output(?=\.|$)", "lm_head"),
    *renames_below("model.language_model.layers.{i}", {
        "attention": "self_attn", "self_attn.w([qkvo])": r"self_attn.\2_proj",
        "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
        "feed_forward": "mlp", "mlp.w1": "mlp.gate_proj", "mlp.w2": "mlp.down_proj",
        "mlp.w3": "mlp.up_proj",
    }),
)  # fmt: skip
"""Names of mistral-inference, of modules and (with `.weight` or `.bias`) of weights alike."""

CHAT_TEMPLATE = (
    "{{ '<s>' }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST]' }}"
    "{% for part in message['content'] %}"
    "{{ '[IMG]' if part['type'] == 'image' else part['text'] }}{% endfor %}{{ '[/INST]' }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{{ '</s>' }}"
    "{% endif %}{% endfor %}"
)
"""The prompt format of version 3 of Mistral's tokenizers (tekken), which Pixtral 12B uses."""

_VISION_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
)
_TEXT_SIZES = {
    "vocab_size": "vocab_size",
    "dim": "hidden_size",
    "hidden_dim": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "norm_eps": "rms_norm_eps",
}


@dataclass(frozen=True, slots=True)
class Files:
    """A checkpoint in this layout.

    Args:
        model: Hub id or folder.
        params: Its params.json.
        arguments: For every download: the revision.
    """

    model: str
    params: Path
    arguments: Mapping[str, Any]

    def path(self, name: str) -> Path:
        """A file of the checkpoint, downloaded if need be.

        Raises:
            OSError: There is no such file.
        """
        found = cached_file(self.model, name, **self.arguments)
        if found is None:
            raise OSError(f"there is no {name}")
        return Path(found)


def find(model: str, arguments: Mapping[str, Any]) -> Files | None:
    """The checkpoint's files, if it is in this layout: it has a params.json and no config.json."""
    where = {"revision": arguments["revision"]} if "revision" in arguments else {}
    if _present(model, "config.json", where):
        return None
    params = _present(model, "params.json", where)
    return Files(model, Path(params), where) if params else None


def config(files: Files) -> Any:
    """The native class's config of a params.json.

    The layout does not name its dtype; it is bfloat16.

    Raises:
        CheckpointError: It is not a model like Pixtral 12B.
    """
    params = json.loads(files.params.read_text(encoding="utf-8"))
    vision = params.get("vision_encoder") or {}
    if not vision or params.get("moe") or vision.get("spatial_merge_size", 1) != 1:
        raise CheckpointError(
            f"{files.model!r} is in Mistral's layout, but is no Pixtral 12B.",
            subject=files.model,
            hint="Look for the same model in transformers' layout, and use --adapter hf.",
        )
    made = transformers.LlavaConfig(
        vision_config=_vision_config(vision),
        text_config=_text_config(params),
        image_token_index=vision.get("image_token_id", 10),
        image_seq_length=1,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        multimodal_projector_bias=vision.get("adapter_bias", True),
        dtype="bfloat16",
    )
    made._commit_hash = extract_commit_hash(str(files.params), None)
    return made


def module(files: Files, config: Any, arguments: Mapping[str, Any]) -> Any:
    """The native model with the checkpoint's weights.

    Raises:
        CheckpointError: Weights are missing, left over, or of another shape.
    """
    weights = native_weights(stored_tensors(files.path("consolidated.safetensors")), config)
    kind = transformers.LlavaForConditionalGeneration
    return place_weights(kind, config, weights, files.model, arguments)


def native_weights(weights: Mapping[str, StoredTensor], config: Any) -> dict[str, StoredTensor]:
    """The weights under the native class's names, in transformers' rotary order."""
    turned = {
        name: tensor.made(partial(half_split, heads=heads))
        for name, tensor in weights.items()
        if (heads := _heads(name, config))
    }
    return renamed({**weights, **turned}, RENAMES)


def half_split(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows `[heads * d, inputs]`, per head 0, 1, 2, ..., put as 0, 2, 4, ..., 1, 3, 5, ...

    Rows 2j and 2j + 1 make the j-th rotary pair in mistral-inference; in transformers, rows j and
    j + d / 2 do.
    """
    pairs = weight.view(heads, -1, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)


def processor(files: Files) -> Any:
    """The native processor, made from params.json and tekken.json.

    Raises:
        MissingDependency: The tokenizer needs mistral-common.
    """
    vision = json.loads(files.params.read_text(encoding="utf-8"))["vision_encoder"]
    patch, edge = vision["patch_size"], vision.get("max_image_size", vision["image_size"])
    backend = "" if importlib.util.find_spec("torchvision") else "Pil"
    images = getattr(transformers, f"PixtralImageProcessor{backend}")(
        size={"longest_edge": edge}, patch_size={"height": patch, "width": patch}
    )
    return transformers_class("PixtralProcessor")(
        images, tokenizer(files), patch_size=patch, chat_template=CHAT_TEMPLATE
    )


def tokenizer(files: Files) -> Any:
    """The tokenizer of a tekken.json.

    Raises:
        MissingDependency: The file does not list its special tokens; mistral-common knows them.
    """
    convert = importlib.import_module("transformers.integrations.mistral").convert_tekken_tokenizer
    try:
        return convert(str(files.path("tekken.json")), CHAT_TEMPLATE)
    except ImportError as error:
        raise MissingDependency(
            f"The tokenizer of {files.model!r} (tekken.json) needs mistral-common, "
            "which is not installed.",
            subject=files.model,
            hint="pip install mistral-common. Or use the same model in transformers' layout: "
            "mistral-community/pixtral-12b.",
        ) from error


def _vision_config(vision: Mapping[str, Any]) -> Any:
    theta = float(vision.get("rope_theta", 10_000))
    return transformers.PixtralVisionConfig(
        **{name: vision[name] for name in _VISION_SIZES},
        num_channels=vision.get("num_channels", 3),
        hidden_act="silu",
        rope_parameters={"rope_type": "axial", "rope_theta": theta},
    )


def _text_config(params: Mapping[str, Any]) -> Any:
    theta = float(params.get("rope_theta") or 1e6)
    return transformers.MistralConfig(
        **{native: params[name] for name, native in _TEXT_SIZES.items()},
        max_position_embeddings=params.get("max_position_embeddings", 131072),
        rope_parameters={"rope_type": "default", "rope_theta": theta},
        sliding_window=None,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=11,
    )


def _heads(name: str, config: Any) -> int:
    """How many heads a query or key weight has; 0 for any other."""
    part = name.split(".")[-2:]
    if part not in (["wq", "weight"], ["wk", "weight"]):
        return 0
    if name.startswith("vision_encoder."):
        return int(config.vision_config.num_attention_heads)
    text = config.text_config
    return int(text.num_attention_heads if part[0] == "wq" else text.num_key_value_heads)


def _present(model: str, name: str, arguments: Mapping[str, Any]) -> str | None:
    path: str | None = cached_file(
        model,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **arguments,
    )
    return path
