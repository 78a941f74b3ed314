"""The bench on which circuits are measured: some pairs, and what is left of their answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext, WorkUnit
from vlmlens_plugins.analysis._sweeps import Cell, Item, check_cost
from vlmlens_plugins.analysis._sweeps.work import packed_sample, unit_of
from vlmlens_plugins.analysis.circuit.nodes import Nodes
from vlmlens_plugins.analysis.circuit.options import CircuitOptions
from vlmlens_plugins.analysis.circuit.work import NodeSetOptions, NodeSetWork, PathWork, bits

Floats = npt.NDArray[np.float64]
Tokens = tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]
"""Per item, what its answers begin with, and the next token of each."""


@dataclass
class Bench:
    """Pairs on which sets of nodes are measured.

    Args:
        context: The context of the analysis.
        options: Its options.
        nodes: The nodes.
        items: The pairs: the clean sample is the target, the corrupted one the donor.
        tokens: See `Tokens`.
    """

    context: AnalysisContext
    options: CircuitOptions
    nodes: Nodes
    items: Sequence[Item]
    tokens: Tokens
    clean: Floats = field(init=False)
    """`[items]`: the logit difference of the clean run; `corrupted` likewise."""
    corrupted: Floats = field(init=False)
    passes: int = field(default=0, init=False)
    """How many passes over a batch were made."""

    def __post_init__(self) -> None:
        named = NodeSetOptions(
            nodes=[(node.site, node.rows) for node in self.nodes.every],
            groups={name: list(parts) for name, parts in self.nodes.groups.items()},
        )
        self._work, self._paths = NodeSetWork(named), PathWork(named)
        self._packed = [packed_sample(item) for item in self.items]
        (results,) = self._run(self._work, [{"exchanged": bits(())}])
        self.clean, self.corrupted = (
            np.array([_difference(one[which]) for one in results]) for which in ("base", "donor")
        )

    @property
    def groups(self) -> list[str]:
        """Per item, its group."""
        return [item.group for item in self.items]

    @property
    def whole(self) -> Floats:
        """`[items]`: what exchanging everything takes away."""
        return self.clean - self.corrupted

    @property
    def batches(self) -> int:
        """How many batches the items make."""
        return -(-len(self.items) // self.context.batch_size)

    def exchanging(self, sets: Sequence[Collection[int]]) -> Floats:
        """`[sets, items]`: the logit difference that is left above the corrupted run's.

        Args:
            sets: Numbers of the nodes that are exchanged.
        """
        found = self._run(self._work, [{"exchanged": bits(one)} for one in sets])
        kept = [[_difference(one["edited"]) for one in results] for results in found]
        return np.array(kept, np.float64).reshape(len(sets), len(self.items)) - self.corrupted

    def keeping(self, sets: Sequence[Collection[int]]) -> Floats:
        """The same while all components but these are exchanged; inputs stay as they are."""
        every = range(len(self.nodes.components))
        return self.exchanging([[i for i in every if i not in set(kept)] for kept in sets])

    def share(self, left: Floats) -> Floats:
        """What is left as a share of the whole effect, `[sets]`: the ratio of means."""
        found: Floats = left.mean(-1) / self.whole.mean()
        return found

    def paths(
        self, kept: Collection[int], edges: Sequence[tuple[int, int | None]]
    ) -> dict[tuple[int, int | None], Floats]:
        """What the circuit loses, `[items]`, where a receiver gets the donor's value of a sender.

        Args:
            kept: The circuit.
            edges: Numbers of senders and receivers; None: what is behind all nodes, the logits.
        """
        outside = bits([i for i in range(len(self.nodes.components)) if i not in set(kept)])
        receivers: dict[int, list[int]] = {}
        for sender, receiver in edges:
            behind = receivers.setdefault(sender, [])
            if receiver is not None:
                behind.append(receiver)
        asked = [
            {"exchanged": outside, "sender": sender, "receivers": behind}
            for sender, behind in receivers.items()
        ]
        passes = sum(2 + len(behind) for behind in receivers.values())
        check_cost(passes, self.batches, self.options)
        found = self._run(self._paths, asked)
        lost: dict[tuple[int, int | None], Floats] = {}
        for (sender, behind), results in zip(receivers.items(), found, strict=True):
            whole = np.array([_difference(one["circuit"]) for one in results])
            lost[sender, None] = whole - [_difference(one["direct"]) for one in results]
            for place, receiver in enumerate(behind):
                moved = [_difference(one["receivers"][place]) for one in results]
                lost[sender, receiver] = whole - moved
        return {edge: lost[edge] for edge in edges}

    def _run(
        self, work: NodeSetWork, asked: Sequence[dict[str, Any]]
    ) -> list[list[dict[str, Any]]]:
        """Per entry of `asked` and item, the result."""
        check_cost(len(asked), self.batches, self.options)
        self.passes += len(asked) * self.batches
        units: list[WorkUnit] = []
        places: list[tuple[int, int]] = []
        size, plain = self.context.batch_size, Cell(())
        for start in range(0, len(self.items), size):
            for number, more in enumerate(asked):
                for i in range(start, min(start + size, len(self.items))):
                    batch = f"{start} {number}"
                    prefix, tokens = self.tokens[0][i], self.tokens[1][i]
                    unit = unit_of(self.items[i], self._packed[i], prefix, tokens, plain, batch)
                    units.append(WorkUnit(unit.sample, {**unit.arguments, **more}, batch))
                    places.append((number, i))
        results: list[list[dict[str, Any]]] = [[{} for _ in self.items] for _ in asked]
        for (number, i), one in zip(places, self.context.run_units(work, units), strict=True):
            results[number][i] = one
        return results


def _difference(logits: Sequence[float]) -> float:
    return logits[0] - logits[1]
