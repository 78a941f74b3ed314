"""Model work: what the vision tower, the projector and the language model hold of a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from vlmlens.abc import ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.passes.tracing import hooked
from vlmlens.sites import Site
from vlmlens.tokens import TokenKind, TokenLayout
from vlmlens_plugins.analysis._statistics import generator

TOWER, PROJECTOR = "vision tower", "projector"
IMAGE_ROWS, LAST_ROW = "language model, image rows", "language model, last row"
STAGES = (TOWER, PROJECTOR, IMAGE_ROWS, LAST_ROW)
"""The stages that a picture passes on its way to the answer, in order."""

_HANDED_OVER = ("projector", "qformer.block.*", "qformer")
_DIGITS = 5
Share = Annotated[float, Field(gt=0, le=1)]


class StageOptions(Options):
    """Options of `Stages`."""

    tower_depths: tuple[Share, ...] = Field(
        (0.5, 0.75, 1.0), description="After which share of the vision tower's blocks to read."
    )
    depths: tuple[Share, ...] = Field(
        (0.25, 0.5, 0.75, 1.0),
        description="After which share of the language model's blocks to read.",
    )
    coordinates: int = Field(
        1024, ge=1, description="Of wider rows, so many coordinates are kept, drawn at random."
    )


class Stages(ModelWork):
    """The states of each stage in the pass that answers a question; no arguments.

    Result: for each stage that the model has, the states by site: the mean over image rows, or the
    last row of the prompt.
    """

    Options: ClassVar[type[Options]] = StageOptions
    options: StageOptions
    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        """See `ModelWork.run`."""
        batch = vlm.encode([unit.sample for unit in units])
        where = stage_sites(vlm, self.options)
        sites = {site.name: site for each in where.values() for site in each}
        found: list[dict[str, Any]] = [{} for _ in units]

        def visit(site: Site, hidden: torch.Tensor) -> None:
            flat = hidden.flatten(0, -2)
            axis = batch.layouts[site.axis].at(len(flat))
            for stage in (stage for stage, own in where.items() if site in own):
                for i, layout in enumerate(axis.samples if axis else ()):
                    rows = torch.from_numpy(_rows(layout, stage)).to(flat.device)
                    if len(rows):
                        pooled = self._numbers(flat[rows].float().mean(0))
                        found[i].setdefault(stage, {})[site.name] = pooled

        with torch.inference_mode(), hooked(vlm.module, sites.values(), visit):
            vlm.forward(batch, logits="none")
        return found

    def _numbers(self, row: torch.Tensor) -> list[float]:
        """A row as JSON; of a wide one, always the same coordinates."""
        values = row.cpu().numpy()
        if len(values) > self.options.coordinates:
            rng = generator(0, "bottleneck", "coordinates", str(len(values)))
            values = values[np.sort(rng.permutation(len(values))[: self.options.coordinates])]
        return [float(f"{value:.{_DIGITS}g}") for value in values]


def stage_sites(vlm: ModelAdapter, options: StageOptions) -> dict[str, list[Site]]:
    """The sites that are read, by stage; a stage that the model does not have is left out.

    Args:
        vlm: The model, or its skeleton.
        options: Depths.
    """
    handed = next(filter(None, (vlm.sites.matching(name) for name in _HANDED_OVER)), [])
    blocks = _at(vlm.sites.matching("llm.block.*"), options.depths)
    found = {
        TOWER: _at(vlm.sites.matching("vision.block.*"), options.tower_depths),
        PROJECTOR: handed[-1:],
        IMAGE_ROWS: blocks,
        LAST_ROW: blocks,
    }
    return {stage: sites for stage, sites in found.items() if sites}


def _rows(layout: TokenLayout, stage: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The row numbers that are averaged: image rows, or the last row."""
    if stage == LAST_ROW:
        return layout.rows[-1:]
    image = layout.rows[layout.positions(TokenKind.IMAGE)]
    return layout.rows if not len(image) and stage != IMAGE_ROWS else image


def _at(blocks: Sequence[Site], depths: Sequence[float]) -> list[Site]:
    """The blocks after which so large a share of them has run; each once."""
    last = len(blocks) - 1
    numbers = {min(max(round(depth * len(blocks)) - 1, 0), last) for depth in depths}
    return [blocks[number] for number in sorted(numbers)] if blocks else []
