"""Nodes: a component of the language model at a group of rows, and the estimates of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vlmlens.abc import AnalysisContext, ModelAdapter, WorkUnit
from vlmlens.errors import CompositionError
from vlmlens_plugins.analysis._attribution.node_work import (
    Floats,
    NodeOptions,
    NodeScores,
    NodeWork,
)
from vlmlens_plugins.analysis._sweeps import Cell, Item
from vlmlens_plugins.analysis._sweeps.work import packed_sample, unit_of

Kind = Literal["heads", "mlp", "attn", "block"]
_SITES: Mapping[Kind, str] = {
    "heads": "attn.heads[*]",
    "mlp": "mlp_out",
    "attn": "attn_out",
    "block": "",
}
KINDS: tuple[Kind, ...] = ("heads", "mlp")


@dataclass(frozen=True, slots=True)
class Node:
    """A component at some rows.

    Args:
        site: Its site: `llm.block.3.attn.heads[5]`, `llm.block.3.mlp_out`.
        rows: A selector.
    """

    site: str
    rows: str

    def __str__(self) -> str:
        return f"{self.site}/{self.rows}"


def nodes_of(vlm: ModelAdapter, rows: Sequence[str], kinds: Sequence[Kind] = KINDS) -> list[Node]:
    """All components of the language model's blocks at groups of rows, in order of depth.

    Args:
        vlm: The model, or its skeleton.
        rows: Selectors.
        kinds: Single heads, MLPs, whole attentions, whole blocks.

    Raises:
        CompositionError: The model has none of them.
    """
    sites: list[str] = []
    for block in vlm.sites.resolve("llm.block.*"):
        for kind in kinds:
            name = ".".join(filter(None, (block.name, _SITES[kind])))
            sites += [site.name for site in vlm.sites.matching(name)]
    if not sites:
        raise CompositionError(
            f"The language model's blocks have none of {', '.join(kinds)} whose place is known.",
            subject="nodes",
            hint="`vlmlens plugins show ADAPTER` says what a family lacks.",
        )
    return [Node(site, each) for site in dict.fromkeys(sites) for each in dict.fromkeys(rows)]


def node_scores(
    context: AnalysisContext,
    items: Sequence[Item],
    tokens: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]],
    nodes: Sequence[Node],
    *,
    grad_drop: bool = False,
    patterns: bool = False,
) -> NodeScores:
    """What exchanging each node with that of the donor is estimated to do, from gradients.

    Args:
        context: The context of the analysis.
        items: Pairs, each with a donor of as many rows.
        tokens: Per item, what its answers begin with and the next token of each: from
            `answer_tokens`.
        nodes: The nodes.
        grad_drop: See `NodeOptions`.
        patterns: See `NodeOptions`.
    """
    by_site: dict[str, list[str]] = {}
    for node in nodes:
        by_site.setdefault(node.site, []).append(node.rows)
    order = [Node(site, rows) for site, several in by_site.items() for rows in several]
    options = NodeOptions(nodes=list(by_site.items()), grad_drop=grad_drop, patterns=patterns)
    results = context.run_units(NodeWork(options), units_of(items, *tokens))
    place = [order.index(node) for node in nodes]
    return NodeScores(
        _column(results, "scores")[place],
        np.array([one["run"] for one in results]),
        np.array([one["source"] for one in results]),
        _column(results, "dropped")[place] if grad_drop else None,
        _column(results, "looks")[place] if patterns else None,
    )


def units_of(
    items: Sequence[Item], prefixes: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]]
) -> list[WorkUnit]:
    """One unit for each item, with its donor."""
    plain = Cell(())
    return [
        unit_of(item, packed_sample(item), prefix, own, plain, "")
        for item, prefix, own in zip(items, prefixes, tokens, strict=True)
    ]


def _column(results: Sequence[Mapping[str, Any]], name: str) -> Floats:
    return np.array([one[name] for one in results], np.float64).T
