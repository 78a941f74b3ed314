"""Model work of circuits: what is left of an answer while sets of nodes are exchanged.

A node is a site with a group of rows. One pass exchanges any number of nodes, since what the donor
gave at all sites is read once and put in by one edit per module.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from pydantic import Field

from vlmlens.abc import Batch, ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.passes.edits import Edit, Function
from vlmlens.passes.growing import fixed_places
from vlmlens.passes.replay import Replay
from vlmlens.samples import Sample
from vlmlens.sites import Site
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._sweeps.work import encoded_runs


class NodeSetOptions(Options):
    """Which nodes there are."""

    nodes: list[tuple[str, str]] = Field(
        default_factory=list, description="Single sites, each with the name of a group of rows."
    )
    groups: dict[str, list[str]] = Field(
        default_factory=dict, description="The selectors of each group of rows."
    )


def bits(numbers: Collection[int]) -> str:
    """A set of numbers as text.

    >>> bits({0, 5}), bits(())
    ('21', '0')
    """
    return f"{sum(1 << number for number in numbers):x}"


def numbers_of(text: str) -> list[int]:
    """The set that `bits` wrote, in order."""
    mask = int(text, 16)
    return [number for number in range(mask.bit_length()) if mask >> number & 1]


class NodeSetWork(ModelWork):
    """The logits of the followed answers while a set of nodes gives what the donor's pass gave.

    Arguments: those of `CellWork` with a donor; "exchanged", the nodes, see `bits`. Result:
    "edited", "base" (nothing exchanged) and "donor", the logits of the followed answers.
    """

    Options: ClassVar[type[Options]] = NodeSetOptions
    options: NodeSetOptions
    version: ClassVar[int | None] = 1

    def __init__(self, options: NodeSetOptions | None = None) -> None:
        super().__init__(options)
        self._last: tuple[Any, list[Sample], Recorded] | None = None

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        """See `ModelWork.run`."""
        alike: dict[str, list[int]] = defaultdict(list)
        for number, unit in enumerate(units):
            alike[self._alike(unit)].append(number)
        results: dict[int, dict[str, JSON]] = {}
        for members in alike.values():
            some = [units[i] for i in members]
            results |= zip(members, self._results(self._recorded(vlm, some), some), strict=True)
        return [results[number] for number in range(len(units))]

    def _alike(self, unit: WorkUnit) -> str:
        return json.dumps([unit.arguments["exchanged"], bool(unit.arguments["prefix"])])

    def _results(self, recorded: Recorded, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        exchanged = numbers_of(units[0].arguments["exchanged"])
        edited = recorded.followed(recorded.exchanged(exchanged))
        base, donor = recorded.followed(recorded.base), recorded.followed(recorded.given)
        return [
            {"edited": own, "base": before, "donor": other}
            for own, before, other in zip(edited, base, donor, strict=True)
        ]

    def _recorded(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> Recorded:
        """The passes without exchanges; those of the last units are kept."""
        said = (id(vlm), [_said(unit) for unit in units])
        if self._last is None or self._last[0] != said:
            self._last = None  # frees memory first
            samples = [unit.sample for unit in units]  # kept: images are told apart by identity
            self._last = (said, samples, Recorded.of(vlm, units, self.options))
        return self._last[2]


class PathWork(NodeSetWork):
    """What a circuit loses where one node gets the donor's value of another, and of nothing else.

    This is path patching (Wang et al. 2022, arXiv 2211.00593) inside a circuit: the sender gives
    the donor's value, all other nodes what they give in the circuit. What the receiver then
    computes is put into a pass of the circuit, in which everything behind the receiver follows.

    Arguments: as of `NodeSetWork`, where "exchanged" is what is outside of the circuit; "sender", a
    node; "receivers", nodes. Result: "circuit", the logits of the followed answers in the circuit;
    "direct", those where only what reads the residual stream behind all nodes gets the sender's
    value; "receivers", likewise for each of these.
    """

    version: ClassVar[int | None] = 1

    def _alike(self, unit: WorkUnit) -> str:
        given = unit.arguments
        return json.dumps([super()._alike(unit), given["sender"], given["receivers"]])

    def _results(self, recorded: Recorded, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        given = units[0].arguments
        outside, sender = numbers_of(given["exchanged"]), given["sender"]
        in_circuit: dict[str, torch.Tensor] = {}
        circuit = recorded.followed(recorded.exchanged(outside, gives=in_circuit))
        computed: dict[str, torch.Tensor] = {}
        direct = recorded.followed(recorded.alone(sender, in_circuit, computed))
        ways = [
            recorded.followed(recorded.exchanged(outside, given={one: computed}))
            for one in given["receivers"]
        ]
        return [
            {"circuit": circuit[i], "direct": direct[i], "receivers": [each[i] for each in ways]}
            for i in range(len(units))
        ]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a node is: the module, its columns there (None: all), and the group of its rows."""

    whole: str
    columns: slice | None
    group: str


@dataclass
class Recorded:
    """The passes of some pairs without exchanges.

    Args:
        vlm: The model.
        target: The targets.
        tokens: Per item, the token of each followed answer.
        given: The donors' logits.
        sites: Whole modules in which nodes are, by name.
        donated: What the donors' pass gave, `[rows, width]`, by the names of sites.
        places: Per node.
        rows: By the names of sites, per group of rows, bool `[rows]`: which rows it has.
    """

    vlm: ModelAdapter
    target: Replay
    tokens: Sequence[Sequence[int]]
    given: torch.Tensor
    sites: Mapping[str, Site]
    donated: Mapping[str, torch.Tensor]
    places: Sequence[_Place]
    rows: Mapping[str, Mapping[str, torch.Tensor]]

    @classmethod
    def of(cls, vlm: ModelAdapter, units: Sequence[WorkUnit], options: NodeSetOptions) -> Recorded:
        """Run them."""
        targets, donors = encoded_runs(vlm, units)
        found = [(_site(vlm, name), group) for name, group in options.nodes]
        wholes = {whole.name: whole for (_, whole), _ in found}
        trace = vlm.trace(donors, list(wholes.values()), logits="last")
        donated = {name: _flat(trace[name]) for name in wholes}
        places = [
            _Place(whole.name, None if site.columns is None else slice(*site.columns), group)
            for (site, whole), group in found
        ]
        rows = {
            name: {
                group: _rows(selectors, site, targets, donated[name])
                for group, selectors in options.groups.items()
            }
            for name, site in wholes.items()
        }
        tokens = [unit.arguments["tokens"] for unit in units]
        replay = vlm.replay(targets)
        return cls(vlm, replay, tokens, _logits(trace.logits), wholes, donated, places, rows)

    @property
    def base(self) -> torch.Tensor:
        """The targets' logits."""
        return _logits(self.target.logits)

    def followed(self, logits: torch.Tensor) -> list[list[float]]:
        """Per item, the logits of its followed answers."""
        exact = logits.double()
        return [[float(row[t]) for t in own] for row, own in zip(exact, self.tokens, strict=True)]

    def exchanged(
        self,
        nodes: Collection[int],
        *,
        given: Mapping[int, Mapping[str, torch.Tensor]] = MappingProxyType({}),
        gives: dict[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """The logits while some nodes give what they gave in the donors' pass.

        Args:
            nodes: Their numbers.
            given: What other nodes give, by their numbers and the names of sites.
            gives: Filled with what all sites give, by their names.
        """
        touched = (
            self.donated if gives is not None else {self.places[i].whole for i in (*nodes, *given)}
        )

        def change(name: str, own: torch.Tensor) -> torch.Tensor:
            after = torch.where(self._mask(name, nodes), self.donated[name], own)
            for number, values in given.items():
                if self.places[number].whole == name:
                    after = torch.where(self._mask(name, [number]), values[name], after)
            if gives is not None:
                gives[name] = after
            return after

        return self._pass(touched, change)

    def alone(
        self, sender: int, held: Mapping[str, torch.Tensor], computed: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """The logits while one node gives the donors' values, and all others what is given.

        Args:
            sender: The number of the node.
            held: What the others give, by the names of sites.
            computed: Filled with what sites would have given by themselves, by their names.
        """

        def change(name: str, own: torch.Tensor) -> torch.Tensor:
            computed[name] = own
            return torch.where(self._mask(name, [sender]), self.donated[name], held[name])

        return self._pass(held, change)

    def _pass(
        self, names: Collection[str], change: Callable[[str, torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        if not names:
            return self.base
        edits = [
            Edit(
                self.sites[name], None, Function(partial(_in_rows, partial(change, name))),
                f"{name} = nodes", strict=False,
            )
            for name in names
        ]  # fmt: skip
        return _logits(self.target.edited(edits))

    def _mask(self, name: str, nodes: Collection[int]) -> torch.Tensor:
        """Bool `[rows, width]`: what of a site the nodes are."""
        whole = self.donated[name]
        mask = torch.zeros(whole.shape, dtype=torch.bool, device=whole.device)
        chosen = [number for number in nodes if self.places[number].whole == name]
        for group, rows in self.rows[name].items():
            columns = torch.zeros(whole.shape[-1], dtype=torch.bool, device=whole.device)
            for number in chosen:
                if self.places[number].group == group:
                    columns[self.places[number].columns or slice(None)] = True
            mask |= rows[:, None] & columns
        return mask


def _site(vlm: ModelAdapter, name: str) -> tuple[Site, Site]:
    """A node's site; and the same without columns: all heads side by side."""
    (site,) = vlm.sites.resolve(name)
    joined = site.name.partition("[")[0] if site.columns is not None else site.name
    return site, replace(site, name=joined, columns=None)


def _rows(
    selectors: Sequence[str], site: Site, batch: Batch, activation: torch.Tensor
) -> torch.Tensor:
    """Bool `[rows]`: which rows of the activation some selectors keep."""
    layout = batch.layouts[site.axis]
    found = torch.zeros(len(activation), dtype=torch.bool, device=activation.device)
    for selector in selectors:
        for places in fixed_places(Selector.parse(selector), layout, site, activation):
            found[torch.from_numpy(places.rows).to(found.device)] = True
    return found


def _flat(activation: torch.Tensor) -> torch.Tensor:
    return activation.reshape(-1, activation.shape[-1])


def _in_rows(
    change: Callable[[torch.Tensor], torch.Tensor], activation: torch.Tensor
) -> torch.Tensor:
    return change(_flat(activation)).reshape(activation.shape)


def _said(unit: WorkUnit) -> list[JSON]:
    """What the passes of an item without exchanges depend on."""
    sample, given = unit.sample, unit.arguments
    images = [image if isinstance(image, str) else id(image) for image in sample.images]
    return [
        sample.id, sample.prompt, images, repr(sample.rules), repr(sample.attributes),
        *(given[name] for name in ("own", "donor", "prefix", "tokens")),
    ]  # fmt: skip


def _logits(found: torch.Tensor | None) -> torch.Tensor:
    assert found is not None  # noqa: S101
    return found
