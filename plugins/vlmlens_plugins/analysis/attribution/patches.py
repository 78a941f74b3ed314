"""Which patches move the answer: integrated gradients, and what heads take from each patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from vlmlens.abc import ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.errors import CompositionError
from vlmlens.passes.contributions import LogitReader
from vlmlens.passes.others import rows_of
from vlmlens.passes.residual import head_writes
from vlmlens.sites import Axis, Site
from vlmlens.tokens import Selector, TokenKind
from vlmlens_plugins.analysis._attribution.node_work import is_sum
from vlmlens_plugins.analysis._attribution.patches import metric_of, patch_site
from vlmlens_plugins.analysis._attribution.putting import Put
from vlmlens_plugins.analysis._sweeps.work import encoded

Floats = npt.NDArray[np.float64]
_IMAGE = Selector.parse("image")


class PatchOptions(Options):
    """How the gradient is integrated."""

    steps: int = Field(20, ge=1, description="Points on the way from the mean patch.")


class PatchWork(ModelWork):
    """Integrated gradients of a sample's image rows: Sundararajan et al. 2017, arXiv 1703.01365.

    The way goes straight from the mean of the image's rows to each row; gradients are taken at the
    middles of equal steps. Arguments: "prefix" and "tokens", see `Asked`. Result: "patches", one
    number per image row, in logit difference; "image" and "mean", the logit difference with the
    image and with its mean row everywhere. Their difference is what all patches should sum to.
    """

    Options: ClassVar[type[Options]] = PatchOptions
    options: PatchOptions
    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        """See `ModelWork.run`."""
        return [self._one(vlm, unit) for unit in units]

    def _one(self, vlm: ModelAdapter, unit: WorkUnit) -> dict[str, JSON]:
        given = unit.arguments
        batch = encoded(vlm, [unit.sample], [given["prefix"]])
        site, metric = patch_site(vlm), metric_of([given["tokens"]])
        replay = vlm.replay(batch)
        (rows,) = replay.rows(site, _IMAGE)
        mean = rows.mean(0, keepdim=True)
        places = torch.from_numpy(_IMAGE.rows(batch.layouts[site.axis].samples[0]))
        total = torch.zeros(rows.shape, dtype=torch.float64)
        for step in range(self.options.steps):
            share = (step + 0.5) / self.options.steps
            mixed = Put(places, mean + share * (rows - mean))
            with vlm.edited({site.name: mixed}), replay.before([site]):
                found = vlm.gradients(batch, [site], metric)
            (slope,) = rows_of(found[site.name], site, _IMAGE, batch)
            total += slope.double().cpu() / self.options.steps
        patches = ((rows - mean).double().cpu() * total).sum(-1)
        blank = replay.edited({site.name: Put(places, mean.expand_as(rows))})  # type: ignore[arg-type]
        assert replay.logits is not None  # noqa: S101
        assert blank is not None  # noqa: S101
        return {
            "patches": patches.tolist(),
            "image": float(metric(replay.logits)[0]),
            "mean": float(metric(blank)[0]),
        }


class SourceOptions(Options):
    """Of which heads."""

    heads: list[str] = Field(default_factory=list, description="Sites of single heads.")


class SourceWork(ModelWork):
    """What heads take from each row, as it adds to the logit difference directly.

    A head gives the sum over rows of weight times value, so what it adds at the last row splits
    into what it takes from each. Arguments: as of `PatchWork`. Result: "heads", for each head one
    number per row of the sample, or null where weights times values are not what the head gives,
    or what the head writes with others is not known; "image", which rows are of the image, none
    where self-attention does not read it.
    """

    Options: ClassVar[type[Options]] = SourceOptions
    options: SourceOptions
    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        """See `ModelWork.run`."""
        return [self._one(vlm, unit) for unit in units]

    def _one(self, vlm: ModelAdapter, unit: WorkUnit) -> dict[str, JSON]:
        given = unit.arguments
        batch = encoded(vlm, [unit.sample], [given["prefix"]])
        layout = batch.layouts[Axis.LLM].samples[0]
        last = int(Selector.parse("last").positions(layout)[0])
        signs = torch.tensor([1.0, -1.0], dtype=torch.float64)[: len(given["tokens"])]
        (row,) = vlm.trace(batch, [_last_block(vlm)]).values()
        rows = row.reshape(-1, row.shape[-1])[layout.rows[last]][None]
        reader = LogitReader.of(vlm, rows, [given["tokens"]])
        told: list[list[float] | None] = []
        for name in self.options.heads:
            (site,) = vlm.sites.resolve(name)
            attention = vlm.attention(batch, name.partition(".heads")[0])
            (own,) = (each.of(layout) for each in attention.values())
            low, high = site.columns or (0, 0)
            head = low // (high - low)
            (gives,) = vlm.trace(batch, [site]).select(f"{site.name}/last")
            taken = own.weights[head, last].double()[:, None] * own.values[head].double()
            if not is_sum(taken.sum(0), gives):
                told.append(None)
                continue
            try:
                writes = head_writes(vlm, batch, site, taken.to(gives.dtype))
            except CompositionError:
                told.append(None)
                continue
            told.append((reader.added(writes[:, None])[:, 0] @ signs.to(writes.device)).tolist())
        return {"heads": told, "image": layout.positions(TokenKind.IMAGE).tolist()}


def _last_block(vlm: ModelAdapter) -> Site:
    return vlm.sites.resolve("llm.block.*")[-1]
