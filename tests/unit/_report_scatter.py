"""An example figure of points, with texts as hostile as wanted."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.results import Figure, ScatterPoint, ScatterSpace
from vlmlens.samples import Sample

KINDS = ("red", "green")


def points(samples: Sequence[Sample], evil: str = "") -> Figure:
    """The samples on a line in the first space, and in a corner of three axes in the second."""
    count = len(samples)
    line = ScatterSpace(f"llm.block.1{evil}", ("PC1", "PC2"), [(i, 2.0 * i) for i in range(count)])
    corner = ScatterSpace(
        "llm.block.0", (f"PC1{evil}", "PC2", "PC3"), [(i % 2, 0.0, i // 2) for i in range(count)]
    )
    return Figure(
        "points", f"Samples by color{evil}", "scatter", [f"{kind}{evil}" for kind in KINDS],
        points=[ScatterPoint(s.id, i % 2, f"{s.prompt}{evil}") for i, s in enumerate(samples)],
        spaces=[line, corner],
    )  # fmt: skip
