"""What a circuit looks like: its graph, and what circuits of growing size keep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmlens.results import Figure, GraphEdge, GraphNode, Series
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis.circuit.edges import Pair
from vlmlens_plugins.analysis.circuit.measured import Measured

DRAWN = 0.01
"""Weaker edges, as shares of the whole effect, are in the table and not in the picture."""
_MOST_DRAWN = 60
_LOGITS = "logits"
_ORDER = ("attn.heads", "attn_out", "", "mlp_out")
"""The kinds of components of a block, in the order in which they run."""
_WORDS = {"attn.heads": "attention", "attn_out": "attention", "": "block", "mlp_out": "MLP"}


def figures(circuits: Sequence[Measured]) -> list[Figure]:
    """Per task, the graph of the circuit, and the shares that were found on the way to it."""
    made = []
    for one in circuits:
        made.append(graph(one))
        if one.found is not None:
            made.append(_sizes(one))
    return made


def graph(one: Measured) -> Figure:
    """Layers upward from the inputs to the logits; a lane for each group of rows."""
    lanes = list(one.nodes.groups)
    levels = sorted({_level(one, number) for number in one.kept})
    names = ["inputs", *(_named(level) for level in levels), _LOGITS]
    place: dict[int | None, int] = {}
    nodes: list[GraphNode] = []

    def add(number: int | None, node: GraphNode) -> None:
        place[number] = len(nodes)
        nodes.append(node)

    for number, lost in zip(one.nodes.inputs, one.worth.inputs.values(), strict=True):
        lane = lanes.index(one.nodes.every[number].rows)
        add(number, GraphNode("inputs", 0, lane, lost, str(one.nodes.every[number])))
    for number, lost in zip(one.kept, one.worth.lost, strict=True):
        node = one.nodes.every[number]
        layer = 1 + levels.index(_level(one, number))
        add(number, GraphNode(short(one, number), layer, lanes.index(node.rows), lost, str(node)))
    add(None, GraphNode(_LOGITS, len(names) - 1, len(lanes) - 1, None, "The logit difference"))
    weights = _weights(one)
    shown = sorted(weights, key=lambda edge: -abs(weights[edge]))[:_MOST_DRAWN]
    edges = [
        GraphEdge(place[sender], place[receiver], weights[sender, receiver])
        for sender, receiver in sorted(shown, key=lambda edge: (place[edge[0]], place[edge[1]]))
        if abs(weights[sender, receiver]) >= DRAWN
    ]
    return Figure(
        slug(f"circuit {one.task}"),
        f"{one.task}: the circuit, from the inputs up to the logits",
        "graph",
        x=[f"{name} rows" for name in lanes],
        x_label="edge: share lost without it",
        y=names,
        y_label="node: share lost without it",
        y_range=(0.0, max([0.01, *one.worth.lost])),
        nodes=nodes,
        edges=edges,
    )


def short(one: Measured, number: int) -> str:
    """A node's name within its layer and lane: `head 2`, `MLP`."""
    site = one.nodes.every[number].site
    if "heads[" in site:
        return f"head {site.rpartition('[')[2].removesuffix(']')}"
    return _WORDS[one.nodes.kind(number)]


def _level(one: Measured, number: int) -> tuple[int, int]:
    """The block, and the place in it."""
    return one.nodes.block(number), _ORDER.index(one.nodes.kind(number))


def _named(level: tuple[int, int]) -> str:
    word = _WORDS[_ORDER[level[1]]]
    return f"block {level[0]}" if word == "block" else f"block {level[0]} {word}"


def _weights(one: Measured) -> dict[Pair, float]:
    effect = one.edges.effect
    if effect is None:
        return {}
    return {edge: float(value) for edge, value in zip(one.edges.pairs, effect.value, strict=True)}


def _sizes(one: Measured) -> Figure:
    assert one.found is not None  # noqa: S101
    sizes = [str(size) for size in one.found.sizes]
    random = one.worth.random
    series = [
        Series("the highest in the ranking", list(one.found.shares)),
        Series(f"the circuit: {len(one.kept)}", [one.worth.keeps[0]] * len(sizes), dashed=True),
    ]
    if len(random):
        mean = float(np.mean(random))
        series.append(
            Series(f"random circuits of {len(one.kept)}", [mean] * len(sizes), dashed=True)
        )
    return Figure(
        slug(f"circuit {one.task} sizes"),
        f"{one.task}: what so many components keep",
        "line",
        x=sizes,
        x_label="components that are kept",
        y_label="share of the effect",
        series=series,
    )
