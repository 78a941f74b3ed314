"""Whole weights of a component: checked against a model, and copied into it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vlmlens.errors import CheckpointError, CompositionError, SiteError, SpecError
from vlmlens.tuned.components import parameters_of
from vlmlens.tuned.folder_files import shapes_in

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.tuned.record import Tuned

_SHOWN = 3


def check_fits(vlm: ModelAdapter, tuned: Tuned, *, merge: bool) -> None:
    """Check weights against a model or its skeleton: they are those of their component.

    Raises:
        CheckpointError: A name or a shape is not the model's, or weights are missing.
    """
    del merge
    there = {
        name: shape for path in files_in(tuned.path) for name, shape in shapes_in(path).items()
    }
    own = {name: tuple(value.shape) for name, value in vlm.module.named_parameters()}
    wrong = [
        f"{name} {list(shape)} instead of {list(own[name])}"
        for name, shape in there.items()
        if name in own and own[name] != shape
    ]
    problems = {
        "that the model does not have": sorted(set(there) - set(own)),
        "missing in the files": sorted(_needed(vlm, tuned) - set(there)),
        "of another shape": wrong,
    }
    told = [f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names]
    if told or not there:
        raise CheckpointError(
            f"The weights in {str(tuned.path)!r} do not fit the model. "
            f"{'; '.join(told) or 'There are none'}. The model has {_some(list(own))}.",
            subject=str(tuned.path),
            hint="They were made for another model, or the files are incomplete.",
        )


def put_in(vlm: ModelAdapter, tuned: Tuned, *, merge: bool) -> None:
    """Copy weights into a model, in the types that its weights have.

    Raises:
        CheckpointError: They do not fit the model.
        CompositionError: The model's weights are quantized, or not in memory.
    """
    from safetensors.torch import load_file

    check_fits(vlm, tuned, merge=merge)
    own = dict(vlm.module.named_parameters())
    with torch.no_grad():
        for path in files_in(tuned.path):
            for name, value in load_file(path).items():
                _check_can_take(name, own[name])
                _check_finite(name, value, tuned)
                own[name].data.copy_(value)


def files_in(folder: Path) -> list[Path]:
    """The files that hold the weights."""
    return sorted(folder.glob("*.safetensors"))


def _needed(vlm: ModelAdapter, tuned: Tuned) -> set[str]:
    """The names of all weights of the component that was tuned."""
    if not tuned.component:
        return set()
    try:
        return set(parameters_of(vlm, tuned.component))
    except (SpecError, SiteError) as error:
        raise CheckpointError(
            f"{str(tuned.path)!r} holds the weights of the component {tuned.component!r}. "
            f"{error.message}",
            subject=tuned.component,
            hint="They were made for another model.",
        ) from error


def _check_can_take(name: str, weight: torch.Tensor) -> None:
    if weight.is_meta or not weight.is_floating_point():
        raise CompositionError(
            f"The weight {name!r} of the model is quantized, or not in memory, so another one "
            "cannot be copied to it.",
            subject=name,
            hint="Load the model without --quantization and --device-map.",
        )


def _check_finite(name: str, value: torch.Tensor, tuned: Tuned) -> None:
    if not bool(torch.isfinite(value).all()):
        raise CheckpointError(
            f"The weight {name!r} in {str(tuned.path)!r} holds values that are not finite.",
            subject=name,
            hint="Its training diverged, or the file is damaged.",
        )


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
