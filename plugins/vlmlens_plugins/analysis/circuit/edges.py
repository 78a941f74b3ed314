"""Edges of a circuit: which there can be, which are measured, and what they carry."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens_plugins.analysis._attribution import edge_scores
from vlmlens_plugins.analysis._attribution.edges import EdgeScores
from vlmlens_plugins.analysis._sweeps.effects import Effects, effects
from vlmlens_plugins.analysis.circuit.bench import Bench, Floats
from vlmlens_plugins.analysis.circuit.nodes import INPUTS, Nodes

Pair = tuple[int, int | None]
"""Numbers of a sender and a receiver; None: the logits."""

_STEPS = 5


@dataclass(frozen=True, slots=True)
class Edges:
    """Measured edges.

    Args:
        pairs: The edges.
        effect: What the circuit loses where the receiver gets the donor's value of the sender, as
            a share of the whole effect; None if there are no edges.
        scores: Edge attribution of the same, as a share of the whole effect; NaN where unknown.
        possible: How many edges there could be.
    """

    pairs: Sequence[Pair]
    effect: Effects | None
    scores: Floats
    possible: int


def measured_edges(learn: Bench, test: Bench, kept: Collection[int], importance: Floats) -> Edges:
    """The edges of a circuit, ranked by attribution on some pairs and measured on others.

    Args:
        learn: The pairs to rank on.
        test: The pairs to measure on.
        kept: The circuit.
        importance: Per component, what ranks edges where attribution does not.
    """
    options, nodes = test.options, test.nodes
    senders = [*sorted(kept), *nodes.inputs]
    inner = [(u, v) for u in senders for v in sorted(kept) if can_read(nodes, u, v)]
    outer: list[Pair] = [(u, None) for u in senders]
    if not options.edges or not kept:
        return Edges((), None, np.zeros(0), len(inner) + len(outer))
    scores: dict[Pair, float] = {}
    if options.rank == "attribution":
        scores = _scores(learn, [*inner, *outer])
        order = sorted(inner, key=lambda edge: -abs(scores.get(edge, 0.0)))
    else:
        rank = {number: abs(float(np.nan_to_num(importance[number], nan=1.0))) for number in kept}
        top = max(rank.values())
        order = sorted(inner, key=lambda edge: -rank.get(edge[0], top) * rank[edge[1]])
    chosen: list[Pair] = [*sorted(order[: options.edges]), *outer]
    lost = test.paths(kept, chosen)
    found = effects(
        np.stack([lost[edge] for edge in chosen]),
        test.whole,
        test.groups,
        controls=[None] * len(chosen),
        seed=test.context.seed,
        draws=options.draws,
    )
    own = np.array([scores.get(edge, np.nan) for edge in chosen])
    return Edges(chosen, found, own, len(inner) + len(outer))


def can_read(nodes: Nodes, sender: int, receiver: int) -> bool:
    """Whether a component can read what a node writes.

    An MLP reads its own rows only; attention reads other rows, too.
    """
    before, behind = nodes.every[sender], nodes.every[receiver]
    is_mlp = nodes.kind(receiver) == "mlp_out"
    if is_mlp and before.rows != behind.rows:
        return False
    if before.site == INPUTS:
        return True
    first, second = nodes.block(sender), nodes.block(receiver)
    return first < second or (first == second and is_mlp and nodes.kind(sender).startswith("attn"))


def _scores(bench: Bench, edges: Sequence[Pair]) -> dict[Pair, float]:
    """Edge attribution, as a share of the whole effect that is lost."""
    selectors = [part for parts in bench.nodes.groups.values() for part in parts]
    found = edge_scores(bench.context, bench.items, bench.tokens, selectors, _STEPS)
    return {edge: _score(bench, found, edge) for edge in edges}


def _score(bench: Bench, found: EdgeScores, edge: Pair) -> float:
    nodes, (sender, receiver) = bench.nodes, edge
    node = nodes.every[sender]
    named = [name for name in _reading(nodes, receiver) if name in found.receivers]
    if node.site not in found.senders or not named:
        return float("nan")
    places = [list(found.rows).index(part) for part in nodes.groups[node.rows]]
    values = found.values[found.senders.index(node.site), found.receivers.index(named[0])]
    return float(-np.nansum(values[places]) / bench.whole.sum())


def _reading(nodes: Nodes, receiver: int | None) -> list[str]:
    """What edge attribution may call the place where a node reads."""
    if receiver is None:
        return ["llm.norm"]
    block = f"llm.block.{nodes.block(receiver)}"
    return [f"{block}.{'mlp' if nodes.kind(receiver) == 'mlp_out' else 'attn'}", block]
