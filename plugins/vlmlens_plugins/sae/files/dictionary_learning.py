"""Files of dictionary_learning: `ae.pt` beside `config.json`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from vlmlens_plugins.sae.about import About
from vlmlens_plugins.sae.activations import Gated, JumpRelu, Relu, TopK
from vlmlens_plugins.sae.files.origin import origin
from vlmlens_plugins.sae.files.place import Config, Place
from vlmlens_plugins.sae.files.tensors import Tensors, of_torch, tensors_in
from vlmlens_plugins.sae.files.weights import Weights
from vlmlens_plugins.sae.sae import Sae

_WEIGHTS, _CONFIG, _CHECKPOINTS = "ae.pt", "config.json", "checkpoints"
_KEPT = ("dict_class", "trainer_class", "lm_name", "layer", "submodule_name", "k", "steps", "lr",
         "seed")  # fmt: skip


def is_dictionary_learning(place: Place) -> bool:
    """Whether a configuration of dictionary_learning lies beside weights."""
    there = _configured(place)
    named = place.weights.endswith(".pt") or (not place.weights and place.has(_WEIGHTS))
    return named and there.has(_CONFIG) and "trainer" in there.record(_CONFIG)


def read_dictionary_learning(place: Place) -> Sae:
    """The SAE of a file of dictionary_learning, whose codes are those of its own loader.

    Raises:
        DataError: It is damaged, or its class is not known.
    """
    there = _configured(place)
    config = Config(there, there.record(_CONFIG)).part("trainer")
    kind = config.text("dict_class")
    if kind not in _READERS:
        raise place.refused(f"its dict_class is {kind!r}", f"Known are: {', '.join(_READERS)}.")
    name = place.weights or _WEIGHTS
    tensors = tensors_in(place, of_torch(place, name), name)
    sae = _READERS[kind](config, tensors)
    tensors.done()
    config.must_be("activation_dim", sae.inputs, sae.inputs)
    config.must_be("dict_size", sae.features, sae.features)
    return replace(sae, about=_about(config, *sae.about.notes))


def _configured(place: Place) -> Place:
    """Where the configuration lies: for checkpoints, in the folder above theirs."""
    above = place.folder.name == _CHECKPOINTS and not place.has(_CONFIG)
    return Place(place.given, place.folder.parent) if above else place


def _about(config: Config, *notes: str) -> About:
    place = config.text("submodule_name")
    layer = config.values.get("layer")
    if layer is not None:
        place = f"{place} of layer {layer}" if place else f"layer {layer}"
    return origin("dictionary-learning", config, _KEPT, place, *notes)


def _plain(config: Config, tensors: Tensors) -> Sae:
    """Codes are multiplied by the norms of the decoder, as its loader does since January 2025."""
    del config
    found = Weights.linear(tensors, "bias")
    norms = found.W_dec.norm(dim=1)
    if not torch.allclose(norms, torch.ones_like(norms)):
        found = found.folded(
            "Its directions were brought to length 1, and its codes scaled to match, as the "
            "loader of dictionary_learning does."
        )
    return found.sae(Relu())


def _april(config: Config, tensors: Tensors) -> Sae:
    del config
    return Weights.linear(tensors, "decoder.bias").sae(Relu(), subtract=False)


def _gated(config: Config, tensors: Tensors) -> Sae:
    del config
    inner = Gated(*(tensors.take(name) for name in ("gate_bias", "mag_bias", "r_mag")))
    return Weights.linear(tensors, "decoder_bias", encoder_bias="").sae(inner)


def _topk(config: Config, tensors: Tensors) -> Sae:
    tensors.spare("threshold")
    return Weights.linear(tensors, "b_dec").sae(TopK(_k(config, tensors)))


def _batchtopk(config: Config, tensors: Tensors) -> Sae:
    return _thresholded(config, tensors, Weights.linear(tensors, "b_dec"))


def _matryoshka(config: Config, tensors: Tensors) -> Sae:
    tensors.spare("group_sizes")
    return _thresholded(config, tensors, Weights.plain(tensors))


def _jumprelu(config: Config, tensors: Tensors) -> Sae:
    """The decoder's bias is not taken from the rows."""
    del config
    activation = JumpRelu(tensors.take("threshold").clamp(min=0))
    return Weights.plain(tensors).sae(activation, subtract=False)


def _k(config: Config, tensors: Tensors) -> int:
    """The k of the tensors, which the configuration must repeat if it says one."""
    if "k" not in tensors:
        return config.whole("k")
    found = tensors.whole("k")
    config.must_be("k", found, found)
    return found


def _thresholded(config: Config, tensors: Tensors, found: Weights) -> Sae:
    """The threshold stands for the k largest of a batch; before it is set, k per row are kept."""
    k = _k(config, tensors)
    threshold = tensors.number("threshold") if "threshold" in tensors else -1.0
    if threshold >= 0:
        return found.sae(JumpRelu(torch.full_like(found.b_enc, threshold)))
    note = f"Its threshold was not set yet: the {k} largest features of each row are kept."
    return found.sae(TopK(k), about=About(notes=(note,)))


_READERS: dict[str, Callable[[Config, Tensors], Sae]] = {
    "AutoEncoder": _plain,
    "AutoEncoderNew": _april,
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": _batchtopk,
    "MatryoshkaBatchTopKSAE": _matryoshka,
    "MatroyshkaBatchTopKSAE": _matryoshka,
    "GatedAutoEncoder": _gated,
    "JumpReluAutoEncoder": _jumprelu,
}
