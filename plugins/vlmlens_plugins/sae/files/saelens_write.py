"""SAELens folders, written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vlmlens._disk import disk_errors
from vlmlens._files import expanded, replacing, write_bytes
from vlmlens.errors import DataError
from vlmlens_plugins._tensor_files import save_tensors
from vlmlens_plugins.sae.activations import Gated, JumpRelu, Relu, TopK
from vlmlens_plugins.sae.files.record import as_record
from vlmlens_plugins.sae.sae import Sae

WEIGHTS, CONFIG, SPARSITY = "sae_weights.safetensors", "cfg.json", "sparsity.safetensors"
OURS = "vlmlens"
"""The key of our own record in the metadata."""
OWN = "vlmlens_"
"""How architectures begin that SAELens does not have, so that it refuses them."""
_VERSION = "6.0.0"
_LEAST_RATE = 1e-10


def save_sae(
    folder: str | Path, sae: Sae, *, sparsity: Sequence[float] | torch.Tensor | None = None
) -> Path:
    """Write an SAE as a folder that SAELens 6 loads, with what it knows about itself.

    What SAELens has no form for (`not_in_sae_lens`) is written with an architecture that it
    refuses by name, and that vlmlens reads.

    The folder appears whole or not at all; a folder of an earlier `save_sae` is replaced. Equal
    SAEs give equal files. Files: `sae_weights.safetensors`, `cfg.json` (our own record is its
    `metadata.vlmlens`), and with `sparsity` `sparsity.safetensors`.

    Args:
        folder: The folder; folders above it are made.
        sae: The SAE.
        sparsity: In which share of the rows each feature fires, `[features]`.

    Returns:
        The folder, as an absolute path.

    Raises:
        DataError: The folder holds something else, or what the SAE is to keep is no JSON.
        FileError: The disk is full, or may not be written to.
    """
    path = _free(expanded(folder))
    config, tensors = _config(sae), _tensors(sae)
    rates = None if sparsity is None else _rates(sae, sparsity)
    with disk_errors():
        _written(path, config, tensors, rates)
    return path


def _written(
    path: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    rates: torch.Tensor | None,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as made:
        made.mkdir()
        _write_tensors(made / WEIGHTS, tensors)
        if rates is not None:
            _write_tensors(made / SPARSITY, {"sparsity": rates})
        text = json.dumps(config, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        write_bytes(made / CONFIG, text.encode() + b"\n")
        if path.is_dir():
            path.rename(made.with_name("before"))


def _free(path: Path) -> Path:
    """The path without `..` and links in front; an error if anything but an SAE is there."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise _taken(path)
    whole = path.resolve()
    others = {each.name for each in whole.iterdir()} if whole.is_dir() else set()
    if others - {WEIGHTS, CONFIG, SPARSITY} or whole in (Path.cwd(), Path(whole.anchor)):
        raise _taken(path)
    return whole


def _taken(path: Path) -> DataError:
    return DataError(
        f"{str(path)!r} holds something else than an SAE.",
        subject=str(path),
        hint="Name a new folder.",
    )


def not_in_sae_lens(sae: Sae) -> str:
    """Why only vlmlens reads the file of an SAE, in a sentence; "" if SAELens reads it too."""
    reason = _missing(sae)
    return f"SAELens has no form for this SAE, only vlmlens reads it: {reason}." if reason else ""


def _missing(sae: Sae) -> str:
    """What SAELens lacks for an SAE."""
    of = sae.activation
    if isinstance(of, TopK) and not of.rectified:
        return "its TopK keeps negative numbers"
    if not crosses(sae):
        return ""
    if sae.subtract or sae.layer_norm:
        return "it is a transcoder that does not take its rows as they are"
    return "" if isinstance(of, Relu | JumpRelu) else f"it is a transcoder with {sae.architecture}"


def crosses(sae: Sae) -> bool:
    """Whether it writes other rows than it reads: a transcoder."""
    return sae.W_skip is not None or sae.inputs != sae.outputs or bool(sae.about.target)


def _config(sae: Sae) -> dict[str, Any]:
    of = sae.activation
    found: dict[str, Any] = {
        "architecture": _architecture(sae),
        "d_in": sae.inputs,
        "d_sae": sae.features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract,
        "normalize_activations": "layer_norm" if sae.layer_norm else "none",
        "reshape_activations": "none",
        "metadata": _metadata(sae),
    }
    if crosses(sae):
        found["d_out"] = sae.outputs
    if isinstance(of, TopK):
        found |= {"k": of.k, "rescale_acts_by_decoder_norm": of.by_norm, "rectified": of.rectified}
    return found


def _architecture(sae: Sae) -> str:
    """The name that SAELens has for such an SAE, or one that it does not know and refuses."""
    if not_in_sae_lens(sae):
        return OWN + sae.architecture
    if not crosses(sae):
        return sae.architecture
    words = ["jumprelu"] if isinstance(sae.activation, JumpRelu) else []
    return "_".join([*words, *(["skip"] if sae.W_skip is not None else []), "transcoder"])


def _metadata(sae: Sae) -> dict[str, Any]:
    about = sae.about
    found: dict[str, Any] = {
        "sae_lens_version": _VERSION,
        "sae_lens_training_version": None,
        "model_name": about.model.get("checkpoint") or about.trained.get("model_name"),
        "hook_name": about.column or about.trained.get("hook_name"),
        OURS: as_record(about),
    }
    if about.target:
        found["hook_name_out"] = about.target
    notes = [_crosscoder(about.scales) if about.scales else "", not_in_sae_lens(sae)]
    return found | ({"note": " ".join(filter(None, notes))} if any(notes) else {})


def _crosscoder(scales: Mapping[str, tuple[int, float]]) -> str:
    """What SAELens cannot know: how the rows are put together."""
    parts = ", ".join(f"{name} ({width}) x {scale:.9g}" for name, (width, scale) in scales.items())
    return f"A crosscoder: its rows are those of several columns side by side, scaled: {parts}."


def _tensors(sae: Sae) -> dict[str, torch.Tensor]:
    """Its tensors by the names of SAELens."""
    found = sae.tensors()
    if isinstance(sae.activation, Gated):
        del found["b_enc"]
    if "W_skip" in found:
        found["W_skip"] = found["W_skip"].T
    return found


def _rates(sae: Sae, sparsity: Sequence[float] | torch.Tensor) -> torch.Tensor:
    rates = torch.as_tensor(sparsity, dtype=torch.float64)
    fit = tuple(rates.shape) == (sae.features,) and bool(((rates >= 0) & (rates <= 1)).all())
    if not fit:
        raise DataError(
            f"sparsity has the shape {tuple(rates.shape)}.",
            subject="sparsity",
            hint=f"Expected: {sae.features} numbers from 0 to 1, one of each feature.",
        )
    return (rates + _LEAST_RATE).log10().float()


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    plain = {name: each.detach().float().cpu().contiguous() for name, each in tensors.items()}
    seen: set[int] = set()
    for name, each in plain.items():  # safetensors refuses tensors that share memory
        if each.untyped_storage().data_ptr() in seen:
            plain[name] = each.clone()
        seen.add(each.untyped_storage().data_ptr())
    save_tensors(path, plain)
