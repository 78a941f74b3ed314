"""SAELens folders, read: version 6, version 5, and checkpoints of its training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from packaging.version import InvalidVersion, Version

from vlmlens_plugins.sae.about import About
from vlmlens_plugins.sae.activations import Activation, Gated, JumpRelu, Relu, TopK
from vlmlens_plugins.sae.files.place import Config, Place
from vlmlens_plugins.sae.files.record import from_record
from vlmlens_plugins.sae.files.saelens_write import CONFIG, OURS, OWN, SPARSITY, WEIGHTS
from vlmlens_plugins.sae.files.tensors import Tensors, of_safetensors
from vlmlens_plugins.sae.files.weights import Weights
from vlmlens_plugins.sae.sae import Sae

_FIRST = Version("6.0.0rc0")
_SCALER = "activation_scaler.json"
_TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
_TRAINING = ("batchtopk", "matryoshka_batchtopk")
_FORMS = ("standard", "topk", "jumprelu", "gated")
_KNOWN = (*_FORMS, *_TRANSCODERS, *_TRAINING)
_KEPT = ("model_name", "hook_name", "hook_name_out", "hook_head_index", "dataset_path",
         "context_size", "training_architecture", "neuronpedia_id")  # fmt: skip


def is_saelens(place: Place) -> bool:
    """Whether these are the files of SAELens."""
    return place.weights in ("", WEIGHTS, CONFIG) and place.has(WEIGHTS) and place.has(CONFIG)


def read_saelens(place: Place) -> Sae:
    """The SAE of a SAELens folder.

    Raises:
        DataError: It is damaged, of an unknown architecture, or needs scaled rows.
    """
    config, about, ours = _modern(Config(place, place.record(CONFIG)))
    architecture = config.text("architecture", "standard")
    if architecture.startswith(OWN):
        return replace(_own(config, architecture.removeprefix(OWN)), about=about)
    if architecture not in _KNOWN:
        raise place.refused(
            f"its architecture is {architecture!r}", f"Known are: {', '.join(_KNOWN)}."
        )
    layer_norm = _layer_norm(config)
    tensors = of_safetensors(place, WEIGHTS)
    _drop_ones(place, tensors)
    sae = _made(config, architecture, tensors, layer_norm, ours=ours)
    tensors.done()
    _check_widths(config, sae)
    return replace(_unscaled(config, sae), about=about)


def sparsity_of(path: str | Path) -> torch.Tensor | None:
    """In which share of the rows each feature fires, if a SAELens folder says so.

    Returns:
        float32 `[features]`, or None.

    Raises:
        DataError: The file is damaged.
    """
    place = Place.at(path)
    if not place.has(SPARSITY):
        return None
    tensors = of_safetensors(place, SPARSITY)
    rates = 10 ** tensors.take("sparsity")
    tensors.done()
    if rates.ndim != 1 or not bool(rates.isfinite().all()):
        raise place.refused(f"{SPARSITY!r} holds no rates")
    return (rates - 1e-10).clamp(0, 1)


def _modern(config: Config) -> tuple[Config, About, bool]:
    """The configuration in the words of version 6, what it says, and whether vlmlens wrote it."""
    metadata = config.part("metadata")
    version = config.text("sae_lens_version") or metadata.text("sae_lens_version")
    try:
        new = bool(version) and Version(version) >= _FIRST
    except InvalidVersion as error:
        raise config.place.refused(f"its sae_lens_version is {version!r}") from error
    if new:
        ours = _ours(metadata)
        heads = config.text("reshape_activations", "none") == "hook_z"
        return config, ours or _about(metadata, heads), ours is not None
    old = dict(config.values)
    for before, after in (("hook_point", "hook_name"), ("activation_fn_str", "activation_fn")):
        old[after] = old.pop(before, old.get(after))
    if old["activation_fn"] == "topk":
        k = Config(config.place, old).part("activation_fn_kwargs").whole("k")
        old |= {"architecture": "topk", "k": k}
    elif old["activation_fn"] not in (None, "relu"):
        raise config.place.refused(f"its activation is {old['activation_fn']!r}")
    if isinstance(normalised := old.get("normalize_activations"), bool):
        old["normalize_activations"] = "expected_average_only_in" if normalised else "none"
    found = Config(config.place, old)
    return found, _about(found, "hook_z" in found.text("hook_name")), False


def _ours(metadata: Config) -> About | None:
    """What vlmlens itself wrote, if it did."""
    record = metadata.values.get(OURS)
    if record is None:
        return None
    if not isinstance(record, dict):
        raise metadata.place.refused(f"its metadata.{OURS} is no object")
    try:
        return from_record(record)
    except ValueError as error:
        raise metadata.place.refused(f"its metadata.{OURS} cannot be read: {error}") from error


def _about(metadata: Config, heads: bool) -> About:
    said = metadata.said(*_KEPT)
    notes = []
    if "hook_name" in said or "model_name" in said:
        notes.append(
            f"Its file says that it reads {said.get('hook_name', 'an unnamed hook')!r} of "
            f"{said.get('model_name', 'an unnamed model')!r}."
        )
    if heads:
        notes.append("It reads the outputs of all heads of a block side by side (`attn.heads`).")
    if metadata.values.get("hook_head_index") is not None:
        notes.append(f"It reads attention head {metadata.values['hook_head_index']!r} alone.")
    return About(trained=said, source="sae-lens", notes=tuple(notes))


def _layer_norm(config: Config) -> bool:
    """Whether rows are normalised one by one; other ways are refused, or undone afterwards."""
    way = config.text("normalize_activations", "none")
    if way in ("none", "layer_norm"):
        return way == "layer_norm"
    if way == "expected_average_only_in" and config.place.has(_SCALER):
        return False
    hint = "Load it with SAELens, fold the normalisation into the weights, and save it again"
    if way == "expected_average_only_in":
        hint += ": sae.fold_activation_norm_scaling_factor(FACTOR), where FACTOR is sqrt(d_in) / "
        hint += "the mean norm of the rows"
    raise config.place.refused(f"its rows are normalised by {way!r}", f"{hint}.")


def _unscaled(config: Config, sae: Sae) -> Sae:
    """The SAE for rows as they are, if it was trained on rows times one number."""
    if config.text("normalize_activations", "none") != "expected_average_only_in":
        return sae
    factor = config.place.record(_SCALER).get("scaling_factor")
    if factor is None:  # it is folded already
        return sae
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not factor > 0:
        raise config.place.refused(f"{_SCALER!r} has scaling_factor = {factor!r}")
    return replace(
        sae, W_enc=sae.W_enc * factor, W_dec=sae.W_dec / factor, b_dec=sae.b_dec / factor
    )


def _drop_ones(place: Place, tensors: Tensors) -> None:
    """Leave out the factor of old files if it changes nothing."""
    if "scaling_factor" in tensors and not bool((tensors.take("scaling_factor") == 1).all()):
        raise place.refused(
            "its codes are multiplied by a fine-tuned scaling_factor",
            "Load it with SAELens 5, multiply W_dec by scaling_factor, and save it again.",
        )


def _made(
    config: Config, architecture: str, tensors: Tensors, layer_norm: bool, *, ours: bool
) -> Sae:
    crosses = architecture in _TRANSCODERS
    if crosses and (config.flag("apply_b_dec_to_input") or layer_norm):
        raise config.place.refused("it is a transcoder that changes its rows first")
    found = Weights.plain(tensors, bias="" if architecture == "gated" else "b_enc")
    skip = tensors.turned("W_skip") if "skip" in architecture else None
    subtract = not crosses and config.flag("apply_b_dec_to_input", True)
    rescaled = architecture in ("topk", *_TRAINING) and config.flag(
        "rescale_acts_by_decoder_norm", architecture in _TRAINING
    )
    activation = _activation(config, architecture, tensors, found.b_enc, ours and rescaled)
    if rescaled and not ours:
        found = found.folded()
    return found.sae(
        activation, subtract=subtract, layer_norm=layer_norm, skip=skip, crosses=crosses
    )


def _own(config: Config, form: str) -> Sae:
    """An SAE of a form that SAELens does not have; vlmlens alone writes such files."""
    place, tensors = config.place, of_safetensors(config.place, WEIGHTS)
    if form not in _FORMS:
        raise place.refused(f"its architecture is {OWN + form!r}")
    found = Weights.plain(tensors, bias="" if form == "gated" else "b_enc")
    skip = tensors.turned("W_skip") if "W_skip" in tensors else None
    by_norm = config.flag("rescale_acts_by_decoder_norm")
    activation = _activation(config, form, tensors, found.b_enc, by_norm)
    sae = found.sae(
        activation,
        subtract=config.flag("apply_b_dec_to_input", True),
        layer_norm=config.text("normalize_activations") == "layer_norm",
        skip=skip,
        crosses="d_out" in config.values,
    )
    tensors.done()
    _check_widths(config, sae)
    return sae


def _activation(
    config: Config, architecture: str, tensors: Tensors, like: torch.Tensor, by_norm: bool
) -> Activation:
    if architecture == "topk":
        return TopK(config.whole("k", 100), config.flag("rectified", True), by_norm)
    if architecture in _TRAINING:
        return JumpRelu(torch.full_like(like, max(0.0, tensors.number("topk_threshold"))))
    if architecture == "gated":
        return Gated(*(tensors.take(name) for name in ("b_gate", "b_mag", "r_mag")))
    if not architecture.startswith("jumprelu"):
        return Relu()
    log = "threshold" not in tensors and "log_threshold" in tensors
    found = tensors.take("log_threshold").exp() if log else tensors.take("threshold")
    return JumpRelu(found.clamp(min=0))


def _check_widths(config: Config, sae: Sae) -> None:
    wanted = {"d_in": sae.inputs, "d_sae": sae.features, "d_out": sae.outputs}
    for name, width in wanted.items():
        if name != "d_out" or name in config.values or width != sae.inputs:
            config.must_be(name, width)
