"""Attribution: what single components do to an answer, estimated from gradients.

`node_scores` estimates what exchanging each node (a site and some rows) would do, `edge_scores`
what exchanging what one component writes and another reads would do. Analyses turn them into
tables, and hold them against what really exchanging does.
"""

from vlmlens_plugins.analysis._attribution.edges import EdgeScores, edge_scores
from vlmlens_plugins.analysis._attribution.node_work import NodeOptions, NodeScores
from vlmlens_plugins.analysis._attribution.nodes import Node, node_scores, nodes_of

__all__ = [
    "EdgeScores",
    "Node",
    "NodeOptions",
    "NodeScores",
    "edge_scores",
    "node_scores",
    "nodes_of",
]
