"""What makes the difference to another picture or question: rows of one run in the other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np

from vlmlens.abc import AnalysisContext, ModelAdapter
from vlmlens.errors import DataError, SelectorError
from vlmlens.regions import ATTRIBUTE
from vlmlens.samples import Sample
from vlmlens.tokens import Selector, TokenKind
from vlmlens_plugins.analysis._blank_images import image_sizes
from vlmlens_plugins.analysis._sweeps import Cell, Item
from vlmlens_plugins.analysis._sweeps.sweeping import answer_tokens
from vlmlens_plugins.analysis.look.answers import Answer
from vlmlens_plugins.analysis.look.components import run_cells
from vlmlens_plugins.analysis.look.evidence import Evidence
from vlmlens_plugins.analysis.look.options import LookOptions
from vlmlens_plugins.analysis.patching import grid

KEY = "evidence"
"""The name of the region on which the answer rests."""
KEY_ROWS = f"image.region({KEY})"

_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Traced:
    """What rows carry of the difference between two runs.

    Args:
        other: What the model answers to the other question.
        own_margin: In this run, the logit of its answer less that of the other one.
        other_margin: Likewise in the other run.
        shares: By (site, rows): the share of the way from the other run to this one that these
            rows go when they are put there; empty where there is nothing to trace.
        left_out: Groups of rows that have not as many rows in both.
    """

    other: Answer
    own_margin: float
    other_margin: float
    shares: dict[tuple[str, str], float]
    left_out: tuple[str, ...] = ()

    def handover(self) -> tuple[str, str | None, str] | None:
        """The first group of rows, the last site where it carries half, and where `last` begins to.

        None: the last row does not carry half at the last site, or nothing else was exchanged.
        """
        rows = [name for name in dict.fromkeys(name for _, name in self.shares) if name != "last"]
        sites = [site for site, name in self.shares if name == "last"]
        reach = list(takewhile(lambda site: self.shares[site, "last"] >= _HALF, reversed(sites)))
        if not rows or not reach:
            return None
        carry = [s for (s, name), v in self.shares.items() if name == rows[0] and v >= _HALF]
        return rows[0], carry[-1] if carry else None, reach[-1]


def check_rows(skeleton: ModelAdapter, own: Sample, other: Sample) -> None:
    """Raise an error if two pictures become other numbers of rows.

    Raises:
        DataError: They do.
    """
    layouts = skeleton.encode([own, other]).layouts
    for axis in layouts.values():
        counts = [int((one.kinds == TokenKind.IMAGE).sum()) for one in axis.samples]
        if counts[0] != counts[1]:
            raise DataError(
                f"The pictures of {own.id!r} and {other.id!r} become {counts[0]} and {counts[1]} "
                "image rows, so that rows of one cannot take the place of those of the other.",
                subject=other.id,
                hint="Bring one picture to the size of the other.",
            )


def traced(
    context: AnalysisContext,
    own: tuple[Sample, Answer, Evidence | None],
    other: tuple[Sample, Answer],
    options: LookOptions,
) -> Traced | None:
    """What rows carry of the difference; None where answers are not written, or not as text.

    Args:
        context: The context of the analysis.
        own: The question, its answer, and what it rests on.
        other: What it is compared to, and the answer to that.
        options: Of the analysis.
    """
    sample, answer, found = own
    if not answer.tokens or not answer.scored or not other[1].scored:
        return None
    vlm = context.model()
    both = (answer.scored[0], other[1].scored[0])
    if both[0] == both[1]:
        return Traced(other[1], answer.probability, other[1].probability, {})
    donor, target = (_with_region(one, found) for one in (sample, other[0]))
    item = Item(target, both, donor=donor)
    kept, prefixes, tokens, _ = answer_tokens(vlm, [item])
    if not kept:
        return Traced(other[1], answer.probability, other[1].probability, {})
    cells, left_out = _cells(context, item, options)
    followed = replace(answer, prefix=tuple(prefixes[0]), tokens=tuple(tokens[0]))
    told = run_cells(context, item, followed, cells)
    base, source = _margin(told[0]["base"]), _margin(told[0]["donor"])
    way = source - base
    shares = {
        (cell.about["site"], cell.about["rows"]): (_margin(one["edited"]) - base) / way
        for cell, one in zip(cells, told, strict=True)
        if way
    }
    return Traced(other[1], source, base, shares, tuple(left_out))


def _cells(
    context: AnalysisContext, item: Item, options: LookOptions
) -> tuple[list[Cell], list[str]]:
    """Groups of rows at the projector and at blocks, the same number of rows in both runs."""
    vlm = context.model()
    layouts = grid.layouts_of(vlm, [item], context.batch_size)
    wanted = ["image", KEY_ROWS, "question", "last"]
    cells: list[Cell] = []
    left_out: dict[str, None] = {}
    for place in _some(grid.places(vlm, None, 1), options.blocks):
        rows, missing = grid.applicable(wanted, place.axis, layouts)
        left_out |= dict.fromkeys(missing)
        for name in rows:
            if len({len(Selector.parse(name).positions(one)) for one in layouts[place.axis]}) > 1:
                left_out[name] = None
                continue
            cells += grid.cell(place, name, (), layouts)
    if not cells:
        raise SelectorError(
            "The two runs have no group of rows in common.",
            subject=item.target.id,
            hint="Compare questions or pictures that are more alike.",
        )
    return cells, list(left_out)


def _some(places: Sequence[grid.Place], most: int) -> list[grid.Place]:
    """At most so many blocks of each stack, evenly spread, the first and the last among them."""
    stacks: dict[str, list[grid.Place]] = {}
    for place in places:
        stacks.setdefault(place.name.rstrip("0123456789"), []).append(place)
    kept = {
        stack[i].name
        for stack in stacks.values()
        for i in np.linspace(0, len(stack) - 1, min(most, len(stack))).round().astype(int)
    }
    return [place for place in places if place.name in kept]


def _with_region(sample: Sample, found: Evidence | None) -> Sample:
    """The sample with the part on which the answer rests as a region, at its own size."""
    if found is None or not found.local:
        return sample
    if found.part.image >= len(sample.images):
        return sample
    part = replace(found.part, size=image_sizes(sample)[found.part.image])
    known = json.loads(str(sample.attributes.get(ATTRIBUTE) or "{}"))
    boxes = [{"image": part.image, "box": list(box)} for box in part.boxes]
    regions = json.dumps({**known, KEY: boxes})
    return replace(sample, attributes={**sample.attributes, ATTRIBUTE: regions})


def _margin(measured: dict[str, list[float]]) -> float:
    return measured["logit"][0] - measured["logit"][1]
