"""What a spawned worker reads of a run; a worker imports this module, so it imports little."""

from __future__ import annotations

from typing import Any


def mean_of(activations: Any, i: int) -> tuple[float, str]:
    """The mean of one sample's row, and the sample's id."""
    return float(activations["llm.block.0/last"][i].mean()), activations._run.samples[i].id
