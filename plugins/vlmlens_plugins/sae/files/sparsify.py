"""Folders of sparsify (EleutherAI), and of tools built on it."""

from __future__ import annotations

import re

from vlmlens_plugins.sae.about import About
from vlmlens_plugins.sae.activations import TopK
from vlmlens_plugins.sae.files.origin import origin
from vlmlens_plugins.sae.files.place import Config, Place
from vlmlens_plugins.sae.files.tensors import of_safetensors
from vlmlens_plugins.sae.files.weights import Weights
from vlmlens_plugins.sae.sae import Sae

_WEIGHTS, _CONFIG = "sae.safetensors", "cfg.json"
_EXPANSION = 32
_K = 32
_HOOK = re.compile(r"\w\.\d+")
"""Folders are named after the module that is read, `layers.24`."""
_KEPT = ("k", "expansion_factor", "num_latents", "multi_topk", "transcode")


def is_sparsify(place: Place) -> bool:
    """Whether these are the files of sparsify."""
    return place.weights in ("", _WEIGHTS, _CONFIG) and place.has(_WEIGHTS) and place.has(_CONFIG)


def read_sparsify(place: Place) -> Sae:
    """The SAE of a sparsify folder: the k largest of `ReLU((x - b_dec) E^T + b)`.

    A transcoder does not take `b_dec` away; a skip adds `x W_skip^T`. The decoder lies as
    `[features, width]`, so it is not transposed.

    Raises:
        DataError: It is damaged, or its activation is not the k largest.
    """
    config = Config(place, place.record(_CONFIG))
    activation = config.text("activation", "topk")
    if activation != "topk" or config.flag("signed"):
        raise place.refused(
            f"its activation is {'signed' if config.flag('signed') else activation!r}",
            "Only topk can be read.",
        )
    tensors = of_safetensors(place, _WEIGHTS)
    skip = tensors.turned("W_skip") if config.flag("skip_connection") else None
    encoder, bias = tensors.turned("encoder.weight"), tensors.take("encoder.bias")
    found = Weights(encoder, bias, tensors.take("W_dec"), tensors.take("b_dec"))
    tensors.done()
    sae = found.sae(
        TopK(config.whole("k", _K)),
        subtract=not config.flag("transcode"),
        skip=skip,
        about=_about(place, config),
    )
    config.must_be("d_in", sae.inputs)
    if config.values.get("num_latents"):
        config.must_be("num_latents", sae.features)
    else:
        config.must_expand("expansion_factor", sae.inputs, sae.features, _EXPANSION)
    return sae


def _about(place: Place, config: Config) -> About:
    name = place.folder.resolve().name
    return origin("sparsify", config, _KEPT, name if _HOOK.search(name) else "")
