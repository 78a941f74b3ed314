"""Model work of sweeps: one unit is one item under the edits of one cell."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from vlmlens.abc import ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.passes.batch import Batch
from vlmlens.passes.edits import EdgeCut, Edit, Spread
from vlmlens.passes.others import Others
from vlmlens.passes.replay import Replay
from vlmlens.registry import Registry
from vlmlens.samples import Sample
from vlmlens.tokens import AxisLayout, Selector, TokenKind
from vlmlens_plugins.analysis._blank_images import video_of, video_said
from vlmlens_plugins.analysis._sweeps.cells import Cell, Change, Item
from vlmlens_plugins.analysis._sweeps.measures import divergence, measured
from vlmlens_plugins.analysis._sweeps.operations import made

SEEN = ("boxes", "regions")
"""The attributes of a sample on which rows of the model depend."""


class CellOptions(Options):
    """Options of `CellWork`: what cells refer to by name."""

    means: dict[str, list[float]] = Field(
        default_factory=dict, description="The mean of rows, by SITE/SELECTOR, for `mean`."
    )
    deviations: dict[str, list[float]] = Field(
        default_factory=dict, description="Their standard deviation per dimension, for `noise`."
    )
    directions: dict[str, list[float]] = Field(
        default_factory=dict, description="Directions that cells add, by name."
    )


class CellWork(ModelWork):
    """What the edits of a cell do to the answer of an item.

    Arguments: "own", the number of the target's own images (the donor's follow); "donor", its
    prompt and what else rows depend on, or None; "changes" and "under", see `Change.to_json`;
    "directions", of an item that has some of its own;
    "prefix", the tokens that all followed answers begin with; "tokens", the next one of each.

    Result: "edited", "base" and (with a donor) "donor", see `measured`; "kl_base" and "kl_donor",
    the divergence of the edited pass from these; "kl_donor_base", that of the base pass from the
    donor's.
    """

    Options: ClassVar[type[Options]] = CellOptions
    options: CellOptions
    version: ClassVar[int | None] = 1

    def __init__(self, options: CellOptions | None = None) -> None:
        super().__init__(options)
        self._last: tuple[str, list[Sample], _Recorded] | None = None
        self._directions = {
            name: torch.tensor(values) for name, values in self.options.directions.items()
        }

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        """See `ModelWork.run`."""
        cells: dict[str, list[int]] = defaultdict(list)
        times = Counter(unit.sample.id for unit in units)
        for number, unit in enumerate(units):
            given = unit.arguments
            alike = [
                given["changes"],
                given["under"],
                given["donor"] is None,
                bool(given["prefix"]),
                given.get("directions") if times[unit.sample.id] > 1 else None,
            ]
            cells[json.dumps(alike)].append(number)
        results: dict[int, dict[str, JSON]] = {}
        for numbers in cells.values():
            results |= zip(numbers, self._cell(vlm, [units[i] for i in numbers]), strict=True)
        return [results[number] for number in range(len(units))]

    def _cell(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        with self._under(vlm, units[0].arguments["under"]) as others:
            recorded = self._recorded(vlm, units)
            own = {unit.sample.id: unit.arguments.get("directions", {}) for unit in units}
            return recorded.results(self._made(units[0].arguments["changes"], own), others)

    def _made(
        self, changes: Sequence[JSON], own: Mapping[str, Mapping[str, str]] | None = None
    ) -> list[Edit | EdgeCut]:
        return made(changes, self._directions, self._registry.edit, own or {})

    @cached_property
    def _registry(self) -> Registry:
        """The interventions, which are looked for once and not for every cell."""
        return Registry.default()

    @contextmanager
    def _under(self, vlm: ModelAdapter, under: Sequence[JSON]) -> Iterator[Others]:
        """The edits of the items hold inside."""
        spreads = {}
        for column, mean in self.options.means.items():
            site, _, selector = column.partition("/")
            deviation = torch.tensor(self.options.deviations.get(column, [0.0] * len(mean)))
            spreads[site, selector] = Spread(0, torch.tensor(mean), deviation)
        others = Others.measured(vlm, spreads)
        with vlm.edited(self._made(under), others=others):
            yield others

    def _recorded(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> _Recorded:
        """The passes without a cell's edits; those of the last units are kept."""
        said = json.dumps([_said(unit) for unit in units])
        if self._last is None or self._last[0] != said or self._last[2].vlm is not vlm:
            self._last = None  # frees memory first
            made_now = _Recorded.of(vlm, units)
            self._last = (said, [unit.sample for unit in units], made_now)
        return self._last[2]


@dataclass(frozen=True, slots=True)
class _Recorded:
    """The passes of some items without the edits of a cell."""

    vlm: ModelAdapter
    tokens: Sequence[Sequence[int]]
    target: Replay
    donor: Replay | None
    base: Sequence[JSON]
    given: Sequence[JSON] | None
    apart: Sequence[float]

    @classmethod
    def of(cls, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> _Recorded:
        """Run them. The donors' pass is outside of the edits under which the targets run."""
        tokens = [unit.arguments["tokens"] for unit in units]
        prefixes = [unit.arguments["prefix"] for unit in units]
        target = vlm.replay(encoded(vlm, [target_of(unit) for unit in units], prefixes))
        donor = None
        if units[0].arguments["donor"] is not None:
            with _bare(vlm, len(units[0].arguments["under"])):
                donor = vlm.replay(encoded(vlm, [donor_of(unit) for unit in units], prefixes))
        base = measured(_logits(target.logits), tokens)
        if donor is None:
            return cls(vlm, tokens, target, None, base, None, ())
        given = measured(_logits(donor.logits), tokens)
        apart = divergence(_logits(donor.logits), _logits(target.logits))
        return cls(vlm, tokens, target, donor, base, given, apart)

    def results(self, edits: Sequence[Any], others: Others) -> list[dict[str, JSON]]:
        """The result of each item under some edits."""
        donors: Any = () if self.donor is None else self.donor
        found = self.target.edited(edits, others=others, donors=donors) if edits else None
        logits = _logits(found if edits else self.target.logits)
        edited = measured(logits, self.tokens)
        told = [
            {"edited": one, "base": base, "kl_base": far}
            for one, base, far in zip(
                edited, self.base, divergence(_logits(self.target.logits), logits), strict=True
            )
        ]
        if self.donor is not None and self.given is not None:
            source = _logits(self.donor.logits)
            far = divergence(source, logits)
            for one, given, now, before in zip(told, self.given, far, self.apart, strict=True):
                one |= {"donor": given, "kl_donor": now, "kl_donor_base": before}
        return told


class RowSpread(ModelWork):
    """The mean and spread of rows over reference samples, all of which are one unit.

    Arguments: "columns", a list of SITE/SELECTOR with single sites; "parts", for each reference
    sample its number of images (they stand one after the other in the unit's sample), its prompt,
    and what else its rows depend on. Result: per column [mean, deviation], each a list of numbers.
    """

    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        """See `ModelWork.run`."""
        return [self._unit(vlm, unit) for unit in units]

    def _unit(self, vlm: ModelAdapter, unit: WorkUnit) -> dict[str, JSON]:
        others = Others(vlm, _parts(unit))
        places = {}
        for column in unit.arguments["columns"]:
            name, _, selector = column.partition("/")
            for site in vlm.sites.resolve(name):
                places[site.name, selector] = (site, Selector.parse(selector))
        found = others.spreads(places, "the spread of reference samples")
        told = {}
        for place in places:
            spread = found[place]
            told["/".join(place)] = [spread.mean.tolist(), spread.deviation.tolist()]
        return told


def encoded(
    vlm: ModelAdapter, samples: Sequence[Sample], prefixes: Sequence[Sequence[int]]
) -> Batch:
    """Samples with what their answers begin with, which counts as a part of the prompt.

    So `last` is the row that predicts the followed token, and `text` holds all that is before it.

    Args:
        vlm: The model.
        samples: The samples.
        prefixes: Per sample, the tokens that all its followed answers begin with.
    """
    if not any(prefixes):
        return vlm.encode(samples)
    batch = vlm.encode(samples, answers=prefixes)
    return replace(batch, layouts={axis: _asked(one) for axis, one in batch.layouts.items()})


def encoded_runs(vlm: ModelAdapter, units: Sequence[WorkUnit]) -> tuple[Batch, Batch]:
    """The batches of the targets and of the donors of some units, all of which have one."""
    prefixes = [unit.arguments["prefix"] for unit in units]
    targets = encoded(vlm, [target_of(unit) for unit in units], prefixes)
    return targets, encoded(vlm, [donor_of(unit) for unit in units], prefixes)


def _asked(layout: AxisLayout) -> AxisLayout:
    samples = [
        replace(one, kinds=np.where(one.kinds == TokenKind.ANSWER, TokenKind.TEXT, one.kinds))
        for one in layout.samples
    ]
    return replace(layout, samples=samples, others=[_asked(one) for one in layout.others])


def unit_of(
    item: Item,
    packed: Sample,
    prefix: Sequence[int],
    tokens: Sequence[int],
    cell: Cell,
    batch: str,
    files: Mapping[str, JSON] = MappingProxyType({}),
) -> WorkUnit:
    """The unit of an item under a cell.

    Args:
        item: The item.
        packed: From `packed_sample`; the same object for all cells.
        prefix: The tokens that all followed answers begin with.
        tokens: The next token of each.
        cell: The cell.
        batch: Which units run together.
        files: By the text of an edit, what tells the files that it names, see `files_of`.
    """

    def said(change: Change) -> JSON:
        known = {} if change.direction else files.get(change.edit)
        return change.to_json() | ({"files": known} if known else {})

    arguments = {
        "own": len(item.target.images),
        "donor": None if item.donor is None else _part(item.donor),
        "changes": [said(change) for change in cell.changes],
        "under": [said(change) for change in item.under],
        "prefix": list(prefix),
        "tokens": list(tokens),
    }
    used = {change.direction for change in cell.changes} & set(item.directions)
    if used:
        arguments["directions"] = {name: item.directions[name] for name in sorted(used)}
    return WorkUnit(packed, arguments, batch)


def packed_sample(item: Item) -> Sample:
    """The target, with the donor's images behind its own."""
    more = () if item.donor is None else item.donor.images
    return replace(item.target, images=item.target.images + more)


def packed_samples(samples: Sequence[Sample]) -> tuple[Sample, list[JSON]]:
    """Several samples as one: all images one after the other, and the parts of `RowSpread`."""
    images = tuple(image for sample in samples for image in sample.images)
    parts = [_part(sample) for sample in samples]
    return Sample("reference samples", "", images, rules=samples[0].rules), parts


def _part(sample: Sample) -> dict[str, JSON]:
    seen = {name: sample.attributes[name] for name in SEEN if name in sample.attributes}
    return {
        "images": len(sample.images),
        "prompt": sample.prompt,
        "choices": list(sample.choices),
        "attributes": seen,
        **video_said(sample),
    }


def _parts(unit: WorkUnit) -> list[Sample]:
    found, start = [], 0
    for number, part in enumerate(unit.arguments["parts"]):
        images = unit.sample.images[start : start + part["images"]]
        start += part["images"]
        found.append(_sample(f"reference {number}", part, images, unit.sample))
    return found


def target_of(unit: WorkUnit) -> Sample:
    """The sample that runs under edits."""
    return replace(unit.sample, images=unit.sample.images[: unit.arguments["own"]])


def donor_of(unit: WorkUnit) -> Sample:
    """The sample from which rows are taken."""
    images = unit.sample.images[unit.arguments["own"] :]
    return _sample(f"donor of {unit.sample.id}", unit.arguments["donor"], images, unit.sample)


def _sample(name: str, part: Mapping[str, JSON], images: Sequence[Any], like: Sample) -> Sample:
    return Sample(
        name,
        part["prompt"],
        tuple(images),
        choices=tuple(part["choices"]),
        attributes=part["attributes"],
        rules=like.rules,
        video=video_of(part),
    )


def _said(unit: WorkUnit) -> list[JSON]:
    """What the passes of an item without a cell's edits depend on."""
    sample, given = unit.sample, unit.arguments
    images = [image if isinstance(image, str) else id(image) for image in sample.images]
    seen = {name: sample.attributes.get(name) for name in SEEN}
    rest = [given[name] for name in ("own", "donor", "under", "prefix", "tokens")]
    return [sample.id, sample.prompt, images, repr(sample.rules), seen, *rest]


@contextmanager
def _bare(vlm: ModelAdapter, under: int) -> Iterator[None]:
    """Without the innermost edits, those under which the targets run, if there are any."""
    held = vlm.active_edits.pop() if under else None
    try:
        yield
    finally:
        if held is not None:
            vlm.active_edits.append(held)


def _logits(found: torch.Tensor | None) -> torch.Tensor:
    assert found is not None  # noqa: S101
    return found
