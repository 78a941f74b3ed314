"""Recorded tensors with only some of their numbers, so that test data stays small.

A file holds the kept numbers of each tensor as `[rows, each]`, and the tensors' shapes as metadata.
Rows run along the last dimension. Each row keeps the same count of numbers at equal distances,
shifted by one column from row to row, so that every row and every column keeps some.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

NUMBERS = 512
"""The least count of numbers to keep of a tensor (if it has that many)."""
PER_ROW = 4
"""The least count of numbers to keep of each row."""


def write_thinned(
    tensors: Mapping[str, torch.Tensor], path: Path, *, whole: Collection[str] = ()
) -> None:
    """Write some numbers of each tensor; all of them for integers and for names in `whole`."""
    kept = {
        name: _thinned(tensor, all_of_it=name in whole or not tensor.is_floating_point())
        for name, tensor in tensors.items()
    }
    shapes = {name: json.dumps(list(tensor.shape)) for name, tensor in tensors.items()}
    save_file(kept, path, metadata=shapes)


def read_thinned(*paths: Path) -> dict[str, torch.Tensor]:
    """The tensors that `write_thinned` wrote, in their shapes, with NaN for the other numbers."""
    found = {}
    for path in paths:
        with safe_open(path, framework="pt") as file:
            for name, said in file.metadata().items():
                shape = json.loads(said)
                found[name] = _spread(file.get_tensor(name), shape[-1]).view(shape)
    return found


def kept_of(ours: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The kept numbers of `wanted`, and those of `ours` at the same places; both flat.

    Raises:
        AssertionError: If the shapes differ, or a row of `wanted` has no number left.
    """
    assert ours.shape == wanted.shape, (ours.shape, wanted.shape)
    known = ~wanted.isnan()
    assert bool(known.any(-1).all()), "a row has no number left"
    return ours[known], wanted[known]


def far(ours: torch.Tensor, wanted: torch.Tensor, *, rtol: float = 0.0, atol: float = 1.0) -> float:
    """The largest distance over the kept numbers, in units of `atol + rtol * |wanted|`.

    Raises:
        AssertionError: If the shapes differ, or a row of `wanted` has no number left.
    """
    mine, theirs = kept_of(ours, wanted)
    mine, theirs = mine.double(), theirs.double()
    return float(((mine - theirs).abs() / (atol + rtol * theirs.abs())).max())


def _places(rows: int, width: int, each: int) -> torch.Tensor:
    """The columns of the kept numbers: int64 `[rows, each]`, no column twice in a row."""
    return (torch.arange(rows)[:, None] + torch.arange(each) * width // each) % width


def _spread(kept: torch.Tensor, width: int) -> torch.Tensor:
    """`[rows, width]`: the kept numbers at their places, NaN at the others."""
    rows, each = kept.shape
    if each == width:
        return kept
    places = _places(rows, width, each)
    return kept.new_full((rows, width), torch.nan).scatter_(1, places, kept)


def _thinned(tensor: torch.Tensor, *, all_of_it: bool) -> torch.Tensor:
    """A copy of the kept numbers, `[rows, each]`."""
    flat = tensor.detach().reshape(-1, tensor.shape[-1])
    rows, width = flat.shape
    each = max(PER_ROW, -(-NUMBERS // rows), -(-width // rows))
    if all_of_it or each >= width:
        return flat.clone()
    return flat.gather(1, _places(rows, width, each))
