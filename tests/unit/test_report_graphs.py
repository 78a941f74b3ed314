"""Graphs: on the page, on paper, in the terminal, and as data."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from vlmlens.report._figure import draw_figures
from vlmlens.report._graph import draw_graph, graph_lines, layout_of
from vlmlens.report.figures import figure_png, figure_svg
from vlmlens.report.files import to_json
from vlmlens.report.terminal import print_maps
from vlmlens.results import Figure, GraphEdge, GraphNode, Result

NODES = (
    GraphNode("inputs", 0, 0, 0.9),
    GraphNode("head 3", 1, 1, 0.4, "llm.block.1.attn.heads[3]"),
    GraphNode("MLP", 2, 1, 0.2),
    GraphNode("logits", 3, 1),
)
EDGES = (GraphEdge(0, 1, 0.5), GraphEdge(1, 2, -0.1, "works against"), GraphEdge(1, 3, 0.05))
LAYERS = ("inputs", "block 1 attention", "block 1 MLP", "logits")
GRAPH = Figure(
    "graph", "A circuit", "graph", ("image rows", "text rows"), "edge: lost", "node: lost",
    y=LAYERS, nodes=NODES, edges=EDGES,
)  # fmt: skip
EVIL = "\"'></title><script>x()</script>\x1b[31m$a_b$\n"


def test_nodes_and_edges_are_drawn_upward() -> None:
    svg = draw_graph(GRAPH, 940)
    assert svg.count('class="node"') == 4
    assert svg.count('data-from="') == 3
    drawn = layout_of(GRAPH, 940)
    heights = [y for _, y, _ in drawn.boxes]
    assert heights == sorted(heights, reverse=True)
    lanes = [drawn.lanes[node.lane] for node in NODES]
    assert all(low < x < end for (x, _, _), (low, end) in zip(drawn.boxes, lanes, strict=True))
    assert 'class="edge against"' in svg
    assert "block 1 attention, head 3, text rows → block 1 MLP, text rows: -0.100" in svg


def test_it_says_what_it_shows_and_can_be_scrolled() -> None:
    page = draw_figures([GRAPH])
    assert 'role="img"' in page
    assert "Graph with 4 nodes and 3 edges" in page
    assert 'aria-label="A circuit, scrollable"' in page
    assert "edge: lost, up to 0.500" in page


def test_text_of_data_stays_text() -> None:
    figure = Figure(
        EVIL, EVIL, "graph", (EVIL, EVIL), EVIL, EVIL, y=(EVIL, EVIL),
        nodes=(GraphNode(EVIL, 0, 0, 1.0, EVIL), GraphNode(EVIL, 1, 1, None, EVIL)),
        edges=(GraphEdge(0, 1, 1.0, EVIL),),
    )  # fmt: skip
    page = draw_figures([figure])
    assert "<script" not in page
    assert "\x1b" not in page
    assert "x()" in page
    assert b"$a_b$" in figure_svg(figure)
    assert "\x1b" not in "".join(graph_lines(figure))
    assert all("\n" not in line for line in graph_lines(figure))


def test_on_paper_equal_graphs_are_equal_files() -> None:
    assert figure_svg(GRAPH) == figure_svg(GRAPH)
    assert b"block 1 attention" in figure_svg(GRAPH)
    assert figure_png(GRAPH).startswith(b"\x89PNG")


def test_the_terminal_shows_layers_from_the_top_and_edges_by_weight() -> None:
    result = Result("circuit", "Circuit", figures=[GRAPH])
    console = Console(file=io.StringIO(), width=100)
    print_maps(result, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split("  ")[1].strip() for line in lines[1:5]] == list(reversed(LAYERS))
    assert "text rows: head 3 0.40" in lines[3]
    weights = [line.rsplit("  ", 1)[1] for line in lines[5:]]
    assert weights == ["0.500", "-0.100", "0.050"]


def test_many_edges_are_counted() -> None:
    nodes = [*(GraphNode(f"h{i}", 0, 0) for i in range(30)), GraphNode("out", 1, 0)]
    edges = [GraphEdge(i, 30, 0.1) for i in range(30)]
    figure = Figure("g", "G", "graph", ["all"], y=["in", "out"], nodes=nodes, edges=edges)
    assert graph_lines(figure)[-1] == "  and 6 weaker edges"
    assert layout_of(figure, 300).wide > 300


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": [GraphNode("a", 4, 0)]},
        {"nodes": [GraphNode("a", 0, 2)]},
        {"nodes": [GraphNode("a", -1, 0)]},
        {"edges": [GraphEdge(0, 9, 1.0)]},
        {"edges": [GraphEdge(1, 0, 1.0)]},
        {"edges": [GraphEdge(1, 1, 1.0)]},
        {"edges": [GraphEdge(0, 1, float("nan"))]},
    ],
)
def test_nodes_without_a_place_and_edges_downward_are_refused(change: dict[str, Any]) -> None:
    given: dict[str, Any] = {"y": LAYERS, "nodes": NODES, "edges": (), **change}
    with pytest.raises(ValueError, match="figure 'g'"):
        Figure("g", "G", "graph", ("image", "text"), **given)


def test_it_survives_json_and_older_results_have_none() -> None:
    text = to_json(Result("circuit", "Circuit", figures=[GRAPH]))
    data = json.loads(text)
    assert Result.from_dict(data).figures[0] == Figure(
        **{**vars_of(GRAPH), "x": list(GRAPH.x), "y": list(LAYERS)}
    )
    del data["figures"][0]["nodes"], data["figures"][0]["edges"]
    assert Result.from_dict(data).figures[0].nodes == ()


def vars_of(figure: Figure) -> dict[str, Any]:
    made = {name: getattr(figure, name) for name in Figure.__dataclass_fields__}
    return {**made, "series": [], "cells": [], "texts": []}


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_graph_is_drawn_with_finite_numbers(data: st.DataObject) -> None:
    layers, lanes = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    value = st.none() | st.floats(-2, 2) | st.just(float("nan"))
    node = st.builds(
        GraphNode, st.text(max_size=3), st.integers(0, layers - 1), st.integers(0, lanes - 1), value
    )
    nodes = data.draw(st.lists(node, max_size=8))
    pairs = [
        (i, j)
        for i, one in enumerate(nodes)
        for j, other in enumerate(nodes)
        if one.layer < other.layer
    ]
    chosen = data.draw(st.lists(st.sampled_from(pairs), max_size=5)) if pairs else []
    edges = [GraphEdge(i, j, data.draw(st.floats(-1, 1))) for i, j in chosen]
    names = [str(i) for i in range(layers)]
    across = [str(i) for i in range(lanes)]
    figure = Figure("g", "G", "graph", across, y=names, nodes=nodes, edges=edges)
    svg = draw_graph(figure, 400)
    assert not re.search(r'="[^"]*\b(nan|inf)\b', svg)
    assert len(graph_lines(figure)) == 1 + layers + len(edges)
