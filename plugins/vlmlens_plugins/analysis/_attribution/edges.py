"""Edges between components, and the estimates of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens.abc import AnalysisContext
from vlmlens_plugins.analysis._attribution.edge_work import EdgeOptions, EdgeWork, Floats
from vlmlens_plugins.analysis._attribution.nodes import units_of
from vlmlens_plugins.analysis._sweeps import Item


@dataclass(frozen=True, slots=True)
class EdgeScores:
    """Estimates for all edges, in logit difference.

    Args:
        senders: What writes into the residual stream, in order of depth.
        receivers: What reads from it: attentions, MLPs (or whole blocks, where both read the same),
            and "llm.norm", through which the logits read.
        rows: Groups of rows.
        values: float64 `[senders, receivers, rows, items]`: what exchanging what the receiver gets
            from the sender is estimated to add; NaN where it cannot get anything. A sender that
            an item does not have (a bias or a rest of 0) adds 0.
        run: float64 `[items]`: the logit difference of the run that is patched.
        source: float64 `[items]`: that of the run from which rows come.
        left: float64 `[items]`: source - run less what all edges from the inputs make together. It
            is near 0 where the steps are enough and nothing else enters behind the first block.
    """

    senders: Sequence[str]
    receivers: Sequence[str]
    rows: Sequence[str]
    values: Floats
    run: Floats
    source: Floats
    left: Floats


def edge_scores(
    context: AnalysisContext,
    items: Sequence[Item],
    tokens: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]],
    rows: Sequence[str],
    steps: int = 5,
) -> EdgeScores:
    """What exchanging what one component gets from another is estimated to do.

    Args:
        context: The context of the analysis.
        items: Pairs, each with a donor of as many rows.
        tokens: Per item, what its answers begin with and the next token of each: from
            `answer_tokens`.
        rows: Groups of rows, which should be all rows together, each once.
        steps: Points on the way from one run's inputs to the other's.
    """
    work = EdgeWork(EdgeOptions(rows=list(rows), steps=steps))
    results = context.run_units(work, units_of(items, *tokens))
    senders = list(dict.fromkeys(name for one in results for name in one["senders"]))
    receivers = results[0]["receivers"]
    values = np.full((len(senders), len(receivers), len(rows), len(results)), np.nan)
    for i, one in enumerate(results):
        places = [senders.index(name) for name in one["senders"]]
        values[places, :, :, i] = np.array(one["scores"], np.float64)
    lacking = np.isnan(values) & ~np.isnan(values).all(-1, keepdims=True)
    values[lacking] = 0
    run = np.array([one["run"] for one in results])
    source = np.array([one["source"] for one in results])
    inputs = np.nansum(values[[":in" in name for name in senders]], axis=(0, 1, 2))
    return EdgeScores(senders, receivers, list(rows), values, run, source, source - run - inputs)
