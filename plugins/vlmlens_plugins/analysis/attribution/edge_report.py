"""Edges in words: what is written by one component and read by another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vlmlens.results import Cell, Finding, Verdict
from vlmlens_plugins.analysis._attribution import EdgeScores
from vlmlens_plugins.analysis._results import table
from vlmlens_plugins.analysis._statistics import bootstrap_weights, generator, interval
from vlmlens_plugins.analysis._sweeps import Item
from vlmlens_plugins.analysis.attribution.options import AttributionOptions
from vlmlens_plugins.analysis.attribution.section import Section, percent

_NAMED = 3
_KEPT = 200
_LATER = ("(added before it)", "(the rest)")
"""How parts are called by which images enter later: as features, or by cross-attention."""
_SAID = 0.005
"""Weaker ones would be written as 0."""
_LEFT = 0.1
"""More of the effect than this left over is worth a warning."""


def section(scores: EdgeScores, items: Sequence[Item], options: AttributionOptions) -> Section:
    """The part of the result about edges.

    Args:
        scores: The estimates.
        items: The pairs.
        options: The analysis's options.
    """
    tasks = dict.fromkeys(item.task for item in items)
    own = {task: [i for i, item in enumerate(items) if item.task == task] for task in tasks}
    rows = [
        row for task, numbers in own.items() for row in _rows(scores, items, task, numbers, options)
    ]
    title = f"The {_KEPT} strongest edges of each task: what exchanging them does, by estimate"
    return Section(
        [_finding(scores, task, numbers) for task, numbers in own.items()],
        [table("edges", title, rows, ("task", "from", "to", "rows"))],
        notes=_notes(options),
    )


def _shares(
    scores: EdgeScores, own: Sequence[int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """float64 `[senders, receivers, rows]`: shares of the whole effect, NaN where there is none."""
    shares: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (
        scores.values[..., own].mean(-1) / (scores.source - scores.run)[own].mean()
    )
    return shares


def _strongest(
    shares: np.ndarray[tuple[int, ...], np.dtype[np.float64]], count: int
) -> list[tuple[int, ...]]:
    sizes = np.abs(np.nan_to_num(shares))
    order = np.argsort(-sizes, axis=None, kind="stable")[:count]
    found = (np.unravel_index(place, sizes.shape) for place in order)
    return [tuple(int(i) for i in place) for place in found if sizes[place] > 0]


def _finding(scores: EdgeScores, task: str, own: Sequence[int]) -> Finding:
    shares = _shares(scores, own)
    best = _strongest(shares, _NAMED)
    best = [place for n, place in enumerate(best) if n == 0 or abs(shares[place]) >= _SAID]
    whole = np.abs((scores.source - scores.run)[own]).sum()
    left = float(np.abs(scores.left[own]).sum() / whole)
    if not best:
        text = f"{task}: no edge does anything by estimate."
        return Finding(text, Verdict.INFO, task, {"left": left})
    named = ", ".join(
        f"{scores.senders[u]} to {scores.receivers[v]} at {scores.rows[g]} "
        f"({percent(shares[u, v, g])})"
        for u, v, g in best
    )
    text = f"{task}: the strongest edges by estimate are {named}. "
    text += f"All edges from the inputs together leave {left:.1%} of the effect unexplained"
    text += f": {_doubt(scores)}" if left > _LEFT else "."
    values: dict[str, Cell] = {
        "from": scores.senders[best[0][0]], "to": scores.receivers[best[0][1]],
        "rows": scores.rows[best[0][2]], "estimate": float(shares[best[0]]), "left": left,
    }  # fmt: skip
    return Finding(text, Verdict.INFO, task, values, notable=left > _LEFT)


def _doubt(scores: EdgeScores) -> str:
    """What to think of edges that leave much of the effect."""
    later = [name for name in scores.senders if name.endswith(_LATER)]
    text = "do not believe them. More steps may help (edge_steps)"
    if later:
        more = f" and {len(later) - _NAMED} more" if len(later) > _NAMED else ""
        text += "; what enters behind the first block is not on the way "
        text += f"(as {', '.join(later[:_NAMED])}{more})"
    return f"{text}."


def _rows(
    scores: EdgeScores,
    items: Sequence[Item],
    task: str,
    own: Sequence[int],
    options: AttributionOptions,
) -> Iterator[dict[str, Cell]]:
    shares = _shares(scores, own)
    whole = (scores.source - scores.run)[own]
    groups = [items[i].group for i in own]
    names = list(dict.fromkeys(groups))
    member = np.array([[group == name for name in names] for group in groups], float)
    weights = bootstrap_weights(len(names), options.draws, generator(0, "edges", task))
    for u, v, g in _strongest(shares, _KEPT):
        changes = scores.values[u, v, g, own]
        drawn = (weights @ (changes @ member)) / (weights @ (whole @ member))
        low, high = interval(drawn)
        yield {
            "task": task,
            "from": scores.senders[u],
            "to": scores.receivers[v],
            "rows": scores.rows[g],
            "pairs": len(own),
            "estimate": float(shares[u, v, g]),
            "estimate_low": float(low),
            "estimate_high": float(high),
        }


def _notes(options: AttributionOptions) -> list[str]:
    return [
        "An edge is what one component writes and another reads at the same rows. Its estimate is "
        "what the sender writes in the other run less what it writes in this one, times the "
        "gradient by way of the receiver alone (Syed et al. 2023, arXiv 2310.10348), which is the "
        f"mean over {options.edge_steps} points on the straight way between the inputs of the two "
        "runs (Hanna et al. 2024, arXiv 2403.17806; here the middles of equal steps).",
        "All edges from the inputs together make the whole effect, up to what is said to be left. "
        "Edges are estimates, and none of them is really exchanged here.",
    ]
