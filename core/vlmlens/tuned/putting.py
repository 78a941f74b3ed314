"""Putting what was tuned into a model, whatever its kind; and the checks that need no weights."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vlmlens.errors import CheckpointError, CompositionError
from vlmlens.tuned.record import Kind, Tuned

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter

_MODULES: Mapping[Kind, str] = {
    "lora": "vlmlens.tuned.lora",
    "weights": "vlmlens.tuned.weights",
    "prompt": "vlmlens.tuned.prompt",
}
"""By kind, a module with two functions, which take the model, the `Tuned`, and `merge` as keyword:
`check_fits` for checks of names and shapes, also of a skeleton, and `put_in`."""
_IDENTITY = ("digest", "revision")


def put_in(vlm: ModelAdapter, tuned: Tuned, *, merge: bool = True) -> None:
    """Put what was tuned into a model for good. `describe` then says so.

    Args:
        vlm: The loaded model.
        tuned: From `open_tuned`.
        merge: Whether LoRA is added to the weights; other kinds have only one way.

    Raises:
        CheckpointError: It does not fit the model, or was made from another checkpoint.
        CompositionError: The model holds something tuned already, or LoRA cannot be merged.
        MissingDependency: peft is not installed.
    """
    if vlm.holds:
        raise CompositionError(
            "Something that was tuned is in the model already.",
            subject=str(tuned.path),
            hint="Load the model again to put another one in.",
        )
    check_fits(vlm, tuned, merge=merge)
    import_module(_MODULES[tuned.kind]).put_in(vlm, tuned, merge=merge)
    said = described(tuned, merge=merge)
    vlm.holds.append(lambda: said)


def check_fits(
    vlm: ModelAdapter, tuned: Tuned, *, merge: bool = True, quantized: bool = False
) -> None:
    """Check what was tuned against a model or its skeleton, which stays as it is.

    Args:
        vlm: The model or its skeleton.
        tuned: From `open_tuned`.
        merge: Whether LoRA is to be added to the weights.
        quantized: Whether the weights will be quantized while they are loaded.

    Raises:
        CheckpointError: It does not fit the model, or was made from another checkpoint.
        CompositionError: LoRA cannot be merged.
        MissingDependency: peft is not installed.
    """
    _check_base(vlm, tuned)
    if quantized or _is_quantized(vlm.module):
        _check_quantized(tuned, merge)
    import_module(_MODULES[tuned.kind]).check_fits(vlm, tuned, merge=merge)


def described(tuned: Tuned, *, merge: bool) -> dict[str, Any]:
    """What a model says of something tuned that is in it: part of the fingerprint of its columns.

    Args:
        tuned: From `open_tuned`.
        merge: Whether LoRA is added to the weights.
    """
    return {
        "kind": tuned.kind,
        "component": tuned.component,
        "digest": tuned.digest,
        "merged": merge and tuned.kind == "lora",
    }


def made_for_another(tuned: Tuned, model: str | None) -> str:
    """A note if a LoRA says that it was made for a model of another name; else nothing.

    Args:
        tuned: From `open_tuned`.
        model: The name of the checkpoint, hub id or folder.
    """
    said = str(tuned.about.get("base_model_name_or_path") or "")
    same = _last(said) == _last(model or "")
    if tuned.base or not said or same:
        return ""
    return (
        f"The LoRA says that it was made for {said!r}, and the model is "
        f"{model or 'the default one'!r}. Names and shapes fit; nothing else can be compared."
    )


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


def _check_base(vlm: ModelAdapter, tuned: Tuned) -> None:
    """Raise if it is known to have been made from another checkpoint."""
    if not tuned.base:
        return
    own = vlm.describe()
    before = tuned.base.get("tuned")
    if before:
        raise CheckpointError(
            f"{str(tuned.path)!r} was trained on a model into which something else that was tuned "
            "had been put; two of them cannot be put into one model.",
            subject=str(tuned.path),
            hint="Merge the first one into the model, save it, and train on that.",
        )
    known = [key for key in _IDENTITY if tuned.base.get(key) and own.get(key)]
    if any(tuned.base[key] != own[key] for key in known):
        raise CheckpointError(
            f"{str(tuned.path)!r} was made from {tuned.base.get('checkpoint')!r} "
            f"({known[0]} {str(tuned.base[known[0]])[:12]}), and the model is "
            f"{own.get('checkpoint')!r} ({known[0]} {str(own[known[0]])[:12]}).",
            subject=str(tuned.path),
            hint="Choose the checkpoint from which it was made, with --model and --revision.",
        )


def _is_quantized(module: Any) -> bool:
    config = getattr(module, "config", None)
    said = getattr(config, "quantization_config", None)
    return bool(getattr(module, "is_quantized", False)) or said is not None


def _check_quantized(tuned: Tuned, merge: bool) -> None:
    if tuned.kind == "lora" and merge:
        raise CompositionError(
            "LoRA cannot be added to quantized weights.",
            subject=str(tuned.path),
            hint="Use --no-merge-tuned, or leave --quantization out.",
        )
    if tuned.kind == "weights":
        raise CompositionError(
            "Whole weights cannot be put into a model whose weights are quantized.",
            subject=str(tuned.path),
            hint="Leave --quantization out.",
        )
