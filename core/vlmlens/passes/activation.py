"""The activation in what a module gives or is given, and putting an edited one in its place.

A module can return a tensor; a tuple or model output whose first tensor is the activation (a
decoder layer's hidden states, an attention's output); or a list of tensors, one per image, which
are read as one. The input of a module is the first tensor of floats among its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, TypeAlias

import torch

from vlmlens.errors import SiteSilent, VlmlensError
from vlmlens.sites import Axis, Site

Edit: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""A function from an activation to the tensor of the same shape that replaces it."""

Arguments: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"
"""The positional and keyword arguments of a module's call."""


def activation_of(output: Any, site: Site) -> torch.Tensor:
    """The activation in a module's output.

    That is the tensor itself, or the first tensor in a tuple, list or model output. A list of
    `[rows, width]` tensors of equal width (one per image) is concatenated.

    Raises:
        SiteSilent: The output contains no tensor.
    """
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if _in_pieces(output):
        return torch.cat(output)
    if isinstance(output, (tuple, list)):
        for item in output:
            if isinstance(item, torch.Tensor):
                return item
    raise SiteSilent(
        f"The site {site.name!r} gave {type(output).__name__}, which holds no tensor.",
        subject=site.name,
        hint="Choose a module inside or around it.",
    )


def input_of(arguments: Arguments, site: Site) -> torch.Tensor:
    """The activation among a module's arguments.

    Raises:
        SiteSilent: There is none.
    """
    where = _place(arguments)
    if where is None:
        raise SiteSilent(
            f"The module of {site.name!r} ({site.path}) is given no tensor of floats.",
            subject=site.name,
            hint="Choose the output of the module before it.",
        )
    args, kwargs = arguments
    found: torch.Tensor = args[where] if isinstance(where, int) else kwargs[where]
    return found


def part_of(activation: torch.Tensor, site: Site, module: torch.nn.Module) -> torch.Tensor:
    """What a site means of an activation: its columns, times its scale.

    Args:
        activation: `[..., width]`.
        site: The site.
        module: The model.
    """
    if site.scale:
        activation = activation * scale_of(site, module)
    if site.columns is not None:
        activation = activation[..., slice(*site.columns)]
    return activation


def replaced_activation(
    output: Any, site: Site, edit: Edit, module: torch.nn.Module | None = None
) -> Any:
    """A module's output with its activation edited, in its original form (tensor, tuple, ...).

    Args:
        output: What the module returned.
        site: The site that is edited.
        edit: The edit.
        module: The model; needed for sites with a scale.

    Raises:
        VlmlensError: The edit changes the shape.
    """
    before = activation_of(output, site)
    after = _edited(before, site, edit, module)
    if output is before:
        return after
    if _in_pieces(output):
        return list(after.split([len(piece) for piece in output]))
    if isinstance(output, Mapping):
        key = next(name for name, value in output.items() if value is before)
        output[key] = after  # type: ignore[index]
        return output
    return type(output)(after if item is before else item for item in output)


def replaced_input(
    arguments: Arguments, site: Site, edit: Edit, module: torch.nn.Module
) -> Arguments:
    """A module's arguments with the activation edited.

    Raises:
        SiteSilent: There is none among them.
        VlmlensError: The edit changes the shape.
    """
    after = _edited(input_of(arguments, site), site, edit, module)
    (args, kwargs), where = arguments, _place(arguments)
    if isinstance(where, int):
        return (*args[:where], after, *args[where + 1 :]), kwargs
    return args, {**kwargs, str(where): after}


def check_axis(site: Site, known: Iterable[Axis]) -> None:
    """Raise an error if a batch has no layout for a site's axis."""
    if site.axis not in set(known):
        raise SiteSilent(
            f"The site {site.name!r} lies on the {site.axis.value} axis, which this batch lacks.",
            subject=site.name,
            hint="Samples without an image have no vision side.",
        )


def scale_of(site: Site, module: torch.nn.Module) -> Any:
    """The number or vector by which the model multiplies a site's activation; 1 if by none."""
    return attrgetter(site.scale)(module) if site.scale else 1


def _edited(
    whole: torch.Tensor, site: Site, edit: Edit, module: torch.nn.Module | None
) -> torch.Tensor:
    """An activation with the part that a site means edited."""
    before = whole if module is None else part_of(whole, site, module)
    after = edit(before)
    if after.shape != before.shape:
        raise VlmlensError(
            f"The edit at {site.name!r} changed the shape from {tuple(before.shape)} to "
            f"{tuple(after.shape)}.",
            subject=site.name,
            hint="An edit must return a tensor of the same shape.",
        )
    if site.columns is not None:
        low, high = site.columns
        return torch.cat([whole[..., :low], after.to(whole.dtype), whole[..., high:]], -1)
    if site.scale and module is not None:
        return _unscaled(whole, before, after, site, module)
    return after


def _unscaled(
    whole: torch.Tensor, before: torch.Tensor, after: torch.Tensor, site: Site, module: Any
) -> torch.Tensor:
    """What a module must give for the model to use `after` once it has scaled it."""
    scale = torch.as_tensor(scale_of(site, module), device=after.device)
    changed = after != before
    if bool((changed & (scale == 0)).any()):
        raise VlmlensError(
            f"The edit at {site.name!r} has no effect where the model multiplies it by 0 "
            f"({site.scale}).",
            subject=site.name,
            hint="Edit the block itself instead.",
        )
    return torch.where(changed, (after / scale).to(whole.dtype), whole)


def _place(arguments: Arguments) -> int | str | None:
    """Where the activation stands: a position or a keyword; None if there is none."""
    args, kwargs = arguments
    for number, value in enumerate(args):
        if _is_activation(value):
            return number
    return next((name for name, value in kwargs.items() if _is_activation(value)), None)


def _is_activation(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim > 1


def _in_pieces(output: Any) -> bool:
    if not isinstance(output, list) or not output:
        return False
    return (
        all(isinstance(piece, torch.Tensor) and piece.ndim == 2 for piece in output)
        and len({piece.shape[-1] for piece in output}) == 1
    )
