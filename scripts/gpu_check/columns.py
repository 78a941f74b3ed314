"""Rows of a model at its sites, from plain traces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from vlmlens import ModelAdapter
    from vlmlens.samples import Sample


def all_sites(vlm: ModelAdapter) -> list[str]:
    """The blocks that are read, of the tower and of the language model, and the projector."""
    blocks = [name for name in vlm.sites.canonical if _is_block(name) and name not in vlm.unread]
    return [*blocks, "projector"]


def some_sites(vlm: ModelAdapter) -> list[str]:
    """A few of them: the last block that is read of the tower, the projector, five of the rest."""
    every = all_sites(vlm)
    tower = [name for name in every if name.startswith("vision.")]
    blocks = [name for name in every if name.startswith("llm.")]
    step = max(1, (len(blocks) - 1) // 4)
    chosen = [*blocks[::step], blocks[-1]]
    return [tower[-1], "projector", *dict.fromkeys(chosen)]


def last_block(vlm: ModelAdapter) -> str:
    """The last block of the language model."""
    return max(
        (name for name in all_sites(vlm) if name.startswith("llm.")),
        key=lambda name: int(name.rpartition(".")[2]),
    )


def rows(
    vlm: ModelAdapter, samples: Sequence[Sample], sites: Iterable[str], *, batch: int | None = None
) -> dict[str, list[torch.Tensor]]:
    """All rows of samples at some sites.

    Args:
        vlm: The model.
        samples: The samples.
        sites: Names of sites.
        batch: Samples per pass; None: all in one.

    Returns:
        By site, a tensor `[rows, width]` for each sample, on the model's device.
    """
    wanted = list(sites)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in wanted}
    step = batch or len(samples)
    for start in range(0, len(samples), step):
        trace = vlm.trace(vlm.encode(samples[start : start + step]), wanted)
        for name in wanted:
            found[name] += list(trace.select(f"{name}/all"))
    return found


def _is_block(name: str) -> bool:
    stack, _, number = name.rpartition(".")
    return stack in ("vision.block", "llm.block") and number.isdigit()
