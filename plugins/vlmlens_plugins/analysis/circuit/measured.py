"""What a circuit is worth on some pairs: what it keeps, what is left without it, and controls."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens_plugins.analysis._statistics import generator, permutation_p
from vlmlens_plugins.analysis._sweeps.effects import effects
from vlmlens_plugins.analysis.circuit.bench import Bench, Floats
from vlmlens_plugins.analysis.circuit.edges import Edges
from vlmlens_plugins.analysis.circuit.nodes import Nodes
from vlmlens_plugins.analysis.circuit.search import Found

Share = tuple[float, float, float]
"""A share of the whole effect, and the ends of its 95 % interval."""


@dataclass(frozen=True, slots=True)
class Worth:
    """What a circuit is worth. All numbers are shares of the whole effect.

    Args:
        keeps: What is left while everything else is exchanged (faithfulness).
        left: What is left while the circuit is exchanged, and nothing else (completeness: 0).
        nothing: What is left while all components are exchanged.
        alone: Per node of the circuit, what exchanging it alone takes away.
        lost: Per node, what the circuit loses without it (minimality).
        inputs: By group of rows, what the circuit loses where these inputs are exchanged, too.
        random: What random circuits keep.
        p: Of keeping no more than they do; NaN without any.
        pairs: On how many pairs; `groups` likewise.
        clean: The mean logit difference of the clean runs; `corrupted` likewise.
    """

    keeps: Share
    left: Share
    nothing: Share
    alone: Sequence[float]
    lost: Sequence[float]
    inputs: dict[str, float]
    random: Floats
    p: float
    pairs: int
    groups: int
    clean: float
    corrupted: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A circuit of one task.

    Args:
        task: The task.
        nodes: What it could be made of.
        kept: The numbers of its nodes, in order of depth.
        scores: Per component, the estimate by which it was ranked, as a share of the whole effect
            that it carries; NaN where the circuit was given.
        found: How it was found; None: it was given.
        learn: The groups of the pairs that it was searched on, one for each pair.
        held_out: Whether `worth` is of other pairs.
        worth: What it is worth.
        edges: Its edges.
    """

    task: str
    nodes: Nodes
    kept: Sequence[int]
    scores: Floats
    found: Found | None
    learn: Sequence[str]
    held_out: bool
    worth: Worth
    edges: Edges


def worth_of(bench: Bench, kept: Sequence[int], task: str) -> Worth:
    """Measure a circuit.

    Args:
        bench: The pairs.
        kept: The circuit.
        task: The task, which random circuits depend on.
    """
    nodes, options = bench.nodes, bench.options
    outside = [i for i in range(len(nodes.components)) if i not in set(kept)]
    drawn = [
        random_circuit(nodes, kept, generator(bench.context.seed, "circuit", task, str(draw)))
        for draw in range(options.controls)
    ]
    sets: list[Collection[int]] = [
        outside,
        kept,
        range(len(nodes.components)),
        *([one] for one in kept),
        *([*outside, one] for one in kept),
        *([*outside, one] for one in nodes.inputs),
        *([i for i in range(len(nodes.components)) if i not in one] for one in drawn),
    ]
    left = bench.exchanging(sets)
    found = effects(
        left[:3],
        bench.whole,
        bench.groups,
        controls=[None] * 3,
        seed=bench.context.seed,
        draws=options.draws,
    )
    ends = zip(found.value, found.low, found.high, strict=True)
    keeps, without, nothing = ((float(v), float(low), float(high)) for v, low, high in ends)
    shares, size = bench.share(left), len(kept)
    rest = shares[3 + 2 * size :]
    random = rest[len(nodes.inputs) :]
    return Worth(
        keeps=keeps,
        left=without,
        nothing=nothing,
        alone=[float(1 - share) for share in shares[3 : 3 + size]],
        lost=[float(shares[0] - share) for share in shares[3 + size : 3 + 2 * size]],
        inputs={
            group: float(shares[0] - share)
            for group, share in zip(nodes.groups, rest, strict=False)
        },
        random=random,
        p=permutation_p(-abs(1 - keeps[0]), -np.abs(1 - random)) if len(random) else float("nan"),
        pairs=len(bench.items),
        groups=len(set(bench.groups)),
        clean=float(bench.clean.mean()),
        corrupted=float(bench.corrupted.mean()),
    )


def random_circuit(nodes: Nodes, kept: Sequence[int], rng: np.random.Generator) -> set[int]:
    """As many components of each kind, drawn among all, at whatever rows."""
    found: set[int] = set()
    kinds = [nodes.kind(i) for i in range(len(nodes.components))]
    for kind in sorted(set(kinds)):
        pool = [i for i, own in enumerate(kinds) if own == kind]
        count = sum(kinds[i] == kind for i in kept)
        found |= {int(i) for i in rng.choice(pool, count, replace=False)}
    return found
