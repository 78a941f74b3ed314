"""Graphs as data, for figures of kind "graph". `vlmlens.results` hands the classes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from vlmlens._display import brief


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node of a graph, which lies in a layer and in a lane of its figure.

    Args:
        label: What stands in it, in a few characters: "head 2".
        layer: The number of its layer in the figure's `y`.
        lane: The number of its lane in the figure's `x`.
        value: How much it matters, for its colour; None: it is drawn without.
        tip: What is shown of it when it is pointed at.
    """

    label: str
    layer: int
    lane: int
    value: float | None = None
    tip: str = ""

    def __repr__(self) -> str:
        return brief(self, self.label, f"layer {self.layer}", f"lane {self.lane}")


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """An edge of a graph, from a node to one of a later layer.

    Args:
        source: The number of the node that it leaves, among the figure's `nodes`.
        target: The number of the node that it enters.
        value: Its weight, with its sign.
        tip: What is shown of it when it is pointed at.
    """

    source: int
    target: int
    value: float
    tip: str = ""

    def __repr__(self) -> str:
        return brief(self, f"{self.source} -> {self.target}", f"{self.value:.3g}")


def check_graph(
    name: str, ends: tuple[int, int], nodes: Sequence[GraphNode], edges: Sequence[GraphEdge]
) -> None:
    """Raise `ValueError` for a node without a place, or an edge without a later layer or a weight.

    Args:
        name: The figure's name.
        ends: How many layers and lanes there are.
        nodes: The nodes.
        edges: The edges.
    """
    for node in nodes:
        if not (0 <= node.layer < ends[0] and 0 <= node.lane < ends[1]):
            raise ValueError(f"figure {name!r}: {node!r} is in none of its layers and lanes")
    for edge in edges:
        inside = all(0 <= end < len(nodes) for end in (edge.source, edge.target))
        if not inside or nodes[edge.source].layer >= nodes[edge.target].layer:
            raise ValueError(f"figure {name!r}: {edge!r} does not go from a layer to a later one")
        if not isfinite(edge.value):
            raise ValueError(f"figure {name!r}: {edge!r} has no finite weight")


def graph_from(data: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes and edges in the JSON form of a figure."""
    return {
        "nodes": tuple(GraphNode(**item) for item in data.get("nodes", ())),
        "edges": tuple(GraphEdge(**item) for item in data.get("edges", ())),
    }
