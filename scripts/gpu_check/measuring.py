"""Measuring: distances of rows, seconds, peaks of memory, synchronisations."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

_SYNCED = "called a synchronizing"
"""Of torch's warning. Turning them on gives another one, once."""

Rows = Mapping[str, Sequence[torch.Tensor]]
"""By site or column, a tensor `[rows, width]` for each sample."""


def apart(one: Rows, other: Rows) -> dict[str, float]:
    """How far rows are from those that they should equal, by site.

    Returns:
        The largest distance of two rows as a share of the norm of the second one; infinite where a
        number is not finite, or where shapes differ.
    """
    if set(one) != set(other):
        return dict.fromkeys(set(one) | set(other), float("inf"))
    return {
        name: max(_apart(a, b) for a, b in zip(one[name], other[name], strict=True))
        for name in other
    }


def typical(one: Rows, other: Rows) -> dict[str, float]:
    """Likewise, but the mean over rows, not the farthest one."""
    return {
        name: float(torch.cat(list(map(_distances, one[name], other[name]))).mean())
        for name in other
    }


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(_distances(one, other).max())


def _distances(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Of each row, its distance from the other one as a share of that one's norm."""
    if one.shape != other.shape:
        return torch.full((1,), float("inf"))
    a, b = one.detach().to(other.device, torch.float32), other.detach().float()
    found = (a - b).norm(dim=-1) / b.norm(dim=-1).clamp_min(1e-30)
    return torch.where(found.isfinite(), found, torch.inf)


def finite(rows: Rows) -> bool:
    """Whether all numbers are finite."""
    return all(bool(each.isfinite().all()) for kept in rows.values() for each in kept)


def wait(device: str) -> None:
    """Wait until the device has done everything."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(device: str, run: Callable[[], Any], *, times: int = 1) -> float:
    """How long something takes on a device, on average."""
    wait(device)
    begun = time.perf_counter()
    for _ in range(times):
        run()
    wait(device)
    return (time.perf_counter() - begun) / times


@contextmanager
def flags(matmul: bool, convolutions: bool) -> Iterator[None]:
    """Allow or forbid TF32 inside, in products of matrices and in convolutions."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = matmul
    torch.backends.cudnn.allow_tf32 = convolutions
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class Syncs:
    """How often the program waited for the GPU.

    Args:
        count: How often.
        places: In which lines of code, the most frequent ones first.
    """

    def __init__(self) -> None:
        self.count = 0
        self.places: dict[str, int] = {}

    def add(self, found: Iterable[warnings.WarningMessage]) -> None:
        """Count the warnings that torch gave."""
        for each in found:
            if _SYNCED in str(each.message):
                self.count += 1
                place = f"{'/'.join(each.filename.split('/')[-3:])}:{each.lineno}"
                self.places[place] = self.places.get(place, 0) + 1
        self.places = dict(sorted(self.places.items(), key=lambda item: -item[1]))


@contextmanager
def counting_syncs() -> Iterator[Syncs]:
    """Count synchronisations with the GPU inside, in all threads."""
    found = Syncs()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found.add(caught)


def gib(count: float) -> float:
    """Bytes as GiB."""
    return count / 2**30


def weights_of(module: torch.nn.Module) -> int:
    """How many bytes the weights of a module have."""
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())
