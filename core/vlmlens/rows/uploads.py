"""Tensors from the host to the device where the model computes, without waiting for that device.

A copy from ordinary memory waits until the device has done everything before it. A copy from pinned
memory does not: it takes its place behind that work, and what comes later sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlmlens.rows.layouts import AxisLayout, Ints
from vlmlens.rows.selector import Selector

if TYPE_CHECKING:
    import torch


def pinned(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor in memory from which `device` copies without waiting; as it is for other devices."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor
    # torch cannot pin an expanded tensor: its rows lie in one place.
    return (tensor.contiguous() if 0 in tensor.stride() else tensor).pin_memory()


def uploaded(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device, for use in the current stream. Nothing is copied if it is there."""
    if tensor.device == device:
        return tensor
    beside = device.type == "cuda" and tensor.device.type == "cpu"
    return pinned(tensor, device).to(device, non_blocking=beside)


def uploaded_array(array: Ints, device: torch.device) -> torch.Tensor:
    """Like `uploaded`, of an array of numbers."""
    import torch

    return uploaded(torch.from_numpy(np.ascontiguousarray(array)), device)


def uploaded_arrays(arrays: Sequence[Ints], device: torch.device) -> list[torch.Tensor]:
    """Several arrays of numbers on a device, with one copy."""
    if device.type == "cpu" or not arrays:
        return [uploaded_array(array, device) for array in arrays]
    whole = uploaded_array(np.concatenate([array.reshape(-1) for array in arrays]), device)
    parts = whole.split([array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]


class KeptRows:
    """The rows that selectors keep of one batch: found once, and uploaded once per device."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, str], tuple[AxisLayout, Ints, list[int]]] = {}
        self._there: dict[tuple[int, str, torch.device], torch.Tensor] = {}

    def of(
        self, selector: Selector, layout: AxisLayout, device: torch.device
    ) -> tuple[torch.Tensor, Sequence[int]]:
        """The row numbers of all samples, one after the other, and how many each sample has.

        Raises:
            SelectorError: A sample has no such row.
        """
        key = (id(layout), str(selector))
        if key not in self._found:
            kept = [selector.rows(sample) for sample in layout.samples]
            numbers = np.concatenate(kept)
            # The layout is kept, so that no other one gets its id.
            self._found[key] = layout, numbers, [len(rows) for rows in kept]
        _, numbers, counts = self._found[key]
        if (*key, device) not in self._there:
            self._there[*key, device] = uploaded_array(numbers, device)
        return self._there[*key, device], counts
