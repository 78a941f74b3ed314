"""Model work: which rows of the input drive a coordinate, and what is left without some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from vlmlens.abc import ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.errors import CompositionError, SelectorError, SiteShapeError, SiteSilent
from vlmlens.passes.batch import Batch
from vlmlens.passes.edits import Edit, EditedRows
from vlmlens.passes.gradients import Metric
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Site
from vlmlens.tokens import Column, select

Kind = Literal["image", "words"]
_VISION = ("vision", "projector", "qformer")
_UNKNOWN = (SiteSilent, SelectorError, SiteShapeError, CompositionError)


class DrivingOptions(Options):
    """What units refer to by name, what rows are compared with, and where gradients are taken."""

    directions: dict[str, list[float]] = Field(
        default_factory=dict, description="Directions, by the text of their coordinate."
    )
    means: dict[str, list[float]] = Field(
        default_factory=dict, description="What a row is compared with, by column; default: zero."
    )
    steps: int = Field(1, ge=1, description="1: gradients at the rows; more: on the way to them.")


def sources(vlm: ModelAdapter, site: Site) -> dict[Kind, str]:
    """Where the input of a site is read, by kind: the columns of its patches and of its words.

    Patches are read at the projector (for sites before its end, at the first block of the vision
    tower), words at the input of the first block of the stack that reads the prompt.
    """
    known, side = vlm.sites.canonical, site.name.partition(".")[0]
    if side in _VISION or site.axis in (Axis.VISION, Axis.PROJECTOR):
        return {"image": "vision.block.0:in/image"} if "vision.block.0" in known else {}
    found: dict[Kind, str] = {}
    if side == "llm" and "projector" in known:
        found["image"] = "projector/image"
    for stack in ("llm.encoder", side):
        if f"{stack}.block.0" in known:
            first = f"{stack}.block.0:in"
            if side == "llm":
                found.setdefault("image", f"{first}/image")
            return {**found, "words": f"{first}/text"}
    return found


class Driving(ModelWork):
    """Gradient x input, or integrated gradients, of a coordinate at the rows of its input.

    Arguments: "column", with one row per sample; "number" of the coordinate, or None and the
    "name" of its direction. Result: "value", the coordinate; "image" and "words", for each row of
    the patches and of the text (mean of) gradient . (row - what it is compared with), where the
    sample has such rows; or "unknown", why the model cannot be asked.
    """

    Options: ClassVar[type[Options]] = DrivingOptions
    options: DrivingOptions
    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        """See `ModelWork.run`."""
        found: dict[int, dict[str, JSON]] = {}
        for numbers in _alike(units):
            own = [units[i] for i in numbers]
            try:
                told = self._together(vlm, own)
            except _UNKNOWN as error:
                told = [{"unknown": error.message}] * len(own)
            found |= zip(numbers, told, strict=True)
        return [found[i] for i in range(len(units))]

    def _together(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        batch = vlm.encode([unit.sample for unit in units])
        column, site = _place(vlm, units)
        wanted = {
            kind: name
            for kind, name in sources(vlm, site).items()
            if kind != "image" or units[0].sample.images
        }

        def metric(activation: torch.Tensor) -> torch.Tensor:
            return self._values(activation, column, site, batch, units)

        sites = list(dict.fromkeys(name.partition("/")[0] for name in wanted.values()))
        found = vlm.gradients(batch, sites, metric, logits="none", at=site)
        told: list[dict[str, JSON]] = [{"value": value} for value in found.value.tolist()]
        for kind, name in wanted.items():
            gradients = [each.float() for each in found.select(name)]
            if self.options.steps > 1:
                gradients = self._on_the_way(vlm, batch, name, site, metric)
            rows = found.select(name, of="activations")
            for one, gradient, own in zip(told, gradients, rows, strict=True):
                apart = own.float() - _compared(self.options, name, own)
                one[kind] = (gradient * apart).sum(-1).tolist()
        return told

    def _on_the_way(
        self, vlm: ModelAdapter, batch: Batch, name: str, site: Site, metric: Metric
    ) -> list[torch.Tensor]:
        """The mean of gradients at points between the rows and what they are compared with."""
        at, steps, sums = Column.parse(name), self.options.steps, list[torch.Tensor]()
        for step in range(steps):
            moved = _Moved((step + 0.5) / steps, self.options.means.get(name))
            edit = Edit(at.site, at.selector, moved, f"{name} = moved", strict=False)
            with vlm.edited([edit]):
                found = vlm.gradients(batch, at.site, metric, logits="none", at=site)
            own = [each.float() / steps for each in found.select(name)]
            sums = [a + b for a, b in zip(sums, own, strict=True)] if sums else own
        return sums

    def _values(
        self,
        activation: torch.Tensor,
        column: Column,
        site: Site,
        batch: Batch,
        units: Sequence[WorkUnit],
    ) -> torch.Tensor:
        """float32 `[samples]`: the coordinate of each unit."""
        rows = select(activation, column.selector, batch.layouts[site.axis], site)
        if not isinstance(rows, torch.Tensor):
            raise TypeError(f"{column} has several rows per sample")
        width = rows.shape[-1]
        vectors = torch.stack([_vector(self.options, unit, width) for unit in units])
        return (rows.float() * vectors.to(rows.device)).sum(-1)


class Masking(Driving):
    """A coordinate in a pass in which some rows of the input are replaced.

    Arguments: those of `Driving`; "at", the column whose rows are replaced; "rows", which of them,
    by their number. Result: "value", or "unknown".
    """

    def _together(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        named = [replace(unit.sample, id=str(i)) for i, unit in enumerate(units)]
        batch = vlm.encode(named)  # one sample can be there several times
        column, site = _place(vlm, units)
        at = Column.parse(units[0].arguments["at"])
        replaced = _Replaced(
            {str(i): list(unit.arguments["rows"]) for i, unit in enumerate(units)},
            self.options.means.get(str(at)),
        )
        edit = Edit(at.site, at.selector, replaced, f"{at} = replaced", strict=False)
        trace = vlm.trace(batch, [site], edits=[edit])
        values = self._values(trace.activations[site.name], column, site, batch, units)
        return [{"value": value} for value in values.tolist()]


class _Alone:
    """The part of an operation that says that it needs nothing but the rows."""

    needs: Literal["nothing"] = "nothing"

    def donor(self, sample: Sample, others: Sequence[Sample]) -> Sample | None:
        """See `Operation.donor`."""
        del sample, others
        return None


@dataclass(frozen=True)
class _Replaced(_Alone):
    """Replaces some rows of each sample by one row.

    Args:
        rows: By sample id, the numbers of the rows.
        row: What replaces them; None: zero.
    """

    rows: Mapping[str, Sequence[int]]
    row: Sequence[float] | None

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Operation.change`."""
        changed = rows.clone()
        for number in self.rows[about.sample.id]:
            changed[number] = 0.0 if self.row is None else torch.tensor(self.row).to(rows)
        return changed

    def describe(self) -> Mapping[str, Any]:
        """See `Operation.describe`."""
        return {"rows": {name: list(rows) for name, rows in self.rows.items()}, "row": self.row}


@dataclass(frozen=True)
class _Moved(_Alone):
    """Moves all rows towards one row.

    Args:
        share: How much of each row stays.
        row: Where they move to; None: zero.
    """

    share: float
    row: Sequence[float] | None

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Operation.change`."""
        del about
        end = torch.zeros_like(rows[0]) if self.row is None else torch.tensor(self.row).to(rows)
        return end + self.share * (rows - end)

    def describe(self) -> Mapping[str, Any]:
        """See `Operation.describe`."""
        return {"share": self.share, "row": self.row}


def _alike(units: Sequence[WorkUnit]) -> list[list[int]]:
    """The numbers of units that can be in one pass: one column, and images in all or in none."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for i, unit in enumerate(units):
        key = (unit.arguments["column"], unit.arguments.get("at"), bool(unit.sample.images))
        found.setdefault(key, []).append(i)
    return list(found.values())


def _place(vlm: ModelAdapter, units: Sequence[WorkUnit]) -> tuple[Column, Site]:
    column = Column.parse(units[0].arguments["column"])
    (site,) = vlm.sites.resolve(column.site)
    return column, site


def _vector(options: DrivingOptions, unit: WorkUnit, width: int) -> torch.Tensor:
    number = unit.arguments["number"]
    if number is None:
        return torch.tensor(options.directions[unit.arguments["name"]], dtype=torch.float32)
    vector = torch.zeros(width)
    vector[number] = 1.0
    return vector


def _compared(options: DrivingOptions, column: str, like: torch.Tensor) -> torch.Tensor:
    mean = options.means.get(column)
    if mean is None:
        return torch.zeros(like.shape[-1], device=like.device)
    return torch.tensor(mean, dtype=torch.float32, device=like.device)
