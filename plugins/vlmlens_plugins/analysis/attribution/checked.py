"""Estimates held against what really exchanging nodes does: the strongest, and some at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from vlmlens.abc import AnalysisContext
from vlmlens_plugins.analysis._attribution import Node, NodeScores
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._sweeps import Cell, Change, Item, sweep
from vlmlens_plugins.analysis._sweeps.effects import Effects, effects
from vlmlens_plugins.analysis.attribution.options import AttributionOptions

Floats = npt.NDArray[np.float64]
_FEW = 3
"""Fewer nodes have no rank correlation worth a word."""
OFF = 0.1
"""An estimate that is off by more than this share of the whole effect, and by half of the real
one, is not to be believed."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One task's nodes, estimated, and some of them measured.

    Args:
        task: The task.
        nodes: All nodes.
        estimate: float64 `[nodes]`: the share of the whole effect, ratio of means over items.
        dropped: float64 `[nodes]`, likewise with blocks' gradients stopped; NaN where not asked.
        looks: float64 `[nodes]`, the part by where a head looks; NaN where not asked.
        items: How many pairs.
        measured: The numbers of the nodes that were really exchanged.
        strongest: How many of these are there for their estimate; the others were drawn.
        real: What exchanging them did, in the order of `measured`; None where nothing was.
    """

    task: str
    nodes: Sequence[Node]
    estimate: Floats
    dropped: Floats
    looks: Floats
    items: int
    measured: Sequence[int]
    strongest: int
    real: Effects | None

    @property
    def correlation(self) -> float:
        """Spearman's rank correlation of estimate and real effect over the measured nodes."""
        if self.real is None or len(self.measured) < _FEW:
            return float("nan")
        ranks = [rankdata(each) for each in (self.estimate[self.measured], self.real.value)]
        if min(np.ptp(each) for each in ranks) == 0:
            return float("nan")
        return float(np.corrcoef(*ranks)[0, 1])

    @property
    def reached(self) -> float:
        """How much of the measured effects the estimates make, sizes summed over nodes."""
        if self.real is None:
            return float("nan")
        whole = np.abs(self.real.value).sum()
        return float(np.abs(self.estimate[self.measured]).sum() / whole) if whole else float("nan")

    @property
    def unbelievable(self) -> list[int]:
        """The measured nodes whose estimate is far off: numbers of `nodes`, the worst first."""
        if self.real is None:
            return []
        estimate, real = self.estimate[self.measured], self.real.value
        far = np.abs(estimate - real)
        off = (far > OFF) & (far > np.maximum(np.abs(estimate), np.abs(real)) / 2)
        return [self.measured[i] for i in np.argsort(-far, kind="stable") if off[i]]


def checked(
    context: AnalysisContext,
    items: Sequence[Item],
    nodes: Sequence[Node],
    scores: NodeScores,
    options: AttributionOptions,
) -> list[Checked]:
    """The estimates of each task, with real effects of the strongest nodes and of random ones.

    Args:
        context: The context of the analysis.
        items: The pairs.
        nodes: The nodes.
        scores: Their estimates.
        options: The analysis's options.
    """
    tasks = {
        task: [i for i, item in enumerate(items) if item.task == task]
        for task in dict.fromkeys(item.task for item in items)
    }
    whole = scores.source - scores.run
    estimates = {t: scores.values[:, own].mean(1) / whole[own].mean() for t, own in tasks.items()}
    chosen = {t: _chosen(values, options.check, context.seed) for t, values in estimates.items()}
    wanted = sorted({number for numbers in chosen.values() for number in numbers})
    cells = [Cell((Change(f"{nodes[number]} = patch"),)) for number in wanted]
    found = []
    swept = sweep(context, items, cells, options) if cells else None
    for task, own in tasks.items():
        scale = whole[own].mean()
        places = [wanted.index(number) for number in chosen[task]]
        real = None
        if swept is not None:
            changes = (swept.difference() - swept.difference("base"))[np.ix_(places, own)]
            real = effects(
                changes,
                whole[own],
                [items[i].group for i in own],
                controls=[None] * len(places),
                seed=context.seed,
                draws=options.draws,
            )
        found.append(
            Checked(
                task,
                nodes,
                estimates[task],
                _share(scores.dropped, own, scale, len(nodes)),
                _share(scores.looks, own, scale, len(nodes)),
                len(own),
                chosen[task],
                min(options.check, len(nodes)),
                real,
            )
        )
    return found


def _chosen(estimate: Floats, count: int, seed: int) -> list[int]:
    """The strongest nodes, and as many of the others at random."""
    order = np.argsort(-np.abs(estimate), kind="stable")
    top, others = order[:count], order[count:]
    drawn = generator(seed, "nodes").permutation(others)[:count]
    return [*top.tolist(), *drawn.tolist()]


def _share(values: Floats | None, own: Sequence[int], scale: float, nodes: int) -> Floats:
    if values is None:
        return np.full(nodes, np.nan)
    shares: Floats = values[:, own].mean(1) / scale
    return shares
