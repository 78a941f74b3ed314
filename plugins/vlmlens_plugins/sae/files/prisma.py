"""Folders of ViT-Prisma: `weights.pt` beside `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmlens_plugins.sae.about import About
from vlmlens_plugins.sae.activations import Activation, Gated, Relu, TopK
from vlmlens_plugins.sae.files.origin import origin
from vlmlens_plugins.sae.files.place import Config, Place
from vlmlens_plugins.sae.files.tensors import of_torch, tensors_in
from vlmlens_plugins.sae.files.weights import Weights
from vlmlens_plugins.sae.sae import Sae

_WEIGHTS, _CONFIG = "weights.pt", "config.json"
_KEPT = ("model_name", "hook_point_layer", "layer_subtype", "expansion_factor", "context_size",
         "cls_token_only", "use_patches_only", "l1_coefficient", "dataset_name")  # fmt: skip
_CONVERT = (
    "Opening it could run code. With Prisma: sae = SparseAutoencoder.load_from_pretrained(FILE), "
    "torch.save(sae.state_dict(), 'weights.pt'), sae.cfg.save_config('config.json')."
)


def is_prisma(place: Place) -> bool:
    """Whether a configuration of Prisma lies beside weights."""
    named = place.weights.endswith(".pt") or (not place.weights and place.has(_WEIGHTS))
    return named and place.has(_CONFIG) and "hook_point_layer" in place.record(_CONFIG)


def read_prisma(place: Place) -> Sae:
    """The SAE of a Prisma folder.

    Raises:
        DataError: It is damaged, holds objects, or is a transcoder.
    """
    config = Config(place, place.record(_CONFIG))
    gated = _form(config)
    name = place.weights or _WEIGHTS
    tensors = tensors_in(place, _state(of_torch(place, name, hint=_CONVERT)), name)
    if gated:
        tensors.spare("b_enc")
    found = Weights.plain(tensors, bias="" if gated else "b_enc")
    activation: Activation = _activation(config)
    if gated:
        activation = Gated(*(tensors.take(each) for each in ("b_gate", "b_mag", "r_mag")))
    tensors.done()
    norm = config.text("normalize_activations", "none") == "layer_norm"
    sae = found.sae(activation, layer_norm=norm, about=_about(config))
    config.must_be("d_in", sae.inputs)
    if "expansion_factor" in config.values:
        config.must_expand("expansion_factor", sae.inputs, sae.features, None)
    return sae


def _state(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors, also of a file that holds a configuration beside them."""
    inner = found.get("state_dict")
    return inner if isinstance(inner, dict) else found


def _form(config: Config) -> bool:
    """Whether it is gated; other forms than this and the plain one are refused."""
    architecture = config.text("architecture", "standard")
    normalised = config.text("normalize_activations", "none")
    if architecture not in ("standard", "gated"):
        raise config.place.refused(
            f"its architecture is {architecture!r}", "Known are: standard, gated."
        )
    if config.flag("is_transcoder"):
        raise config.place.refused("it is a transcoder", "Only SAEs of Prisma can be read.")
    if normalised not in ("none", "layer_norm"):
        raise config.place.refused(f"its rows are normalised by {normalised!r}")
    if architecture == "gated" and not isinstance(_activation(config), Relu):
        raise config.place.refused("it is gated, and not with ReLU")
    return architecture == "gated"


def _activation(config: Config) -> Relu | TopK:
    kind = config.text("activation_fn_str", "relu")
    if kind == "relu":
        return Relu()
    if kind == "topk":
        return TopK(config.part("activation_fn_kwargs").whole("k"))
    raise config.place.refused(f"its activation is {kind!r}", "Known are: relu, topk.")


def _about(config: Config) -> About:
    hook = f"blocks.{config.values.get('hook_point_layer')}.{config.text('layer_subtype', '?')}"
    notes = []
    if config.flag("cls_token_only"):
        notes.append("It was trained on the class token alone.")
    if config.flag("use_patches_only"):
        notes.append("It was trained on patches, without the class token.")
    return origin("prisma", config, _KEPT, hook, *notes)
