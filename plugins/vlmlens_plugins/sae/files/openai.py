"""State dicts of OpenAI's sparse_autoencoder, one file each."""

from __future__ import annotations

from vlmlens_plugins.sae.about import About
from vlmlens_plugins.sae.activations import Activation, Relu, TopK
from vlmlens_plugins.sae.files.place import Config, Place
from vlmlens_plugins.sae.files.tensors import mentions, of_torch, tensors_in
from vlmlens_plugins.sae.files.weights import Weights
from vlmlens_plugins.sae.sae import Sae

_STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
_TIED = "decoder.linear.weight"


def is_openai(place: Place) -> bool:
    """Whether the file named has the tensors of this format."""
    named = place.weights if place.weights and place.has(place.weights) else ""
    return bool(named) and mentions(place, named, "pre_bias", "latent_bias")


def read_openai(place: Place) -> Sae:
    """The SAE of a state dict; with TopK, its rows are layer-normalised.

    Raises:
        DataError: It is damaged, or its activation is not known.
    """
    if not place.weights:
        raise place.refused("it is a folder", "Name the file itself.")
    found = of_torch(place, place.weights)
    settings = Config(place, {name: found.pop(name, None) for name in _SETTINGS})
    activation = _activation(settings)
    tensors = tensors_in(place, found, place.weights)
    tensors.spare(*_STATISTICS)
    encoder = tensors.turned("encoder.weight")
    decoder = tensors.take(_TIED) if _TIED in tensors else tensors.turned("decoder.weight")
    bias, before = tensors.take("latent_bias"), tensors.take("pre_bias")
    tensors.done()
    return Weights(encoder, bias, decoder, before).sae(
        activation, layer_norm=isinstance(activation, TopK), about=About(source="openai")
    )


_SETTINGS = ("activation", "activation_state_dict")


def _activation(settings: Config) -> Activation:
    kind = settings.text("activation", "ReLU")
    if kind == "ReLU":
        return Relu()
    if kind != "TopK":
        raise settings.place.refused(f"its activation is {kind!r}", "Known are: ReLU, TopK.")
    inner = settings.part("activation_state_dict")
    after = inner.text("postact_fn", "ReLU")
    if after not in ("ReLU", "Identity"):
        raise settings.place.refused(f"its TopK is followed by {after!r}")
    return TopK(inner.whole("k"), rectified=after == "ReLU")
