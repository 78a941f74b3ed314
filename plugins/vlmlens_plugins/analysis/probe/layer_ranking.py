"""Which layer to use: columns ranked with intervals, and where the plateau starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens_plugins.analysis._statistics import interval
from vlmlens_plugins.analysis.probe.scores import Scored


@dataclass(frozen=True, slots=True)
class Place:
    """A column's place among a target's columns.

    Args:
        column: Its name.
        rank: 1 for the best; the earlier of equals first.
        rank_low: Best rank in the 95 % of the draws in the middle; `rank_high` the worst.
        behind: How much worse than the best column, with a paired 95 % interval.
        not_worse: Whether the interval of `behind` reaches 0.
    """

    column: str
    rank: int
    rank_low: int
    rank_high: int
    behind: float
    behind_low: float
    behind_high: float
    not_worse: bool


def ranked(scored: Scored) -> list[Place]:
    """The places of the columns, in the columns' own order."""
    accuracies = np.array([score.accuracy for score in scored.scores])
    drawn = np.stack([scored.resampling.scores(losses) for losses in scored.losses])
    order = np.argsort(-accuracies, kind="stable")
    ranks = np.empty(len(order), int)
    ranks[order] = np.arange(1, len(order) + 1)
    of_draws = (drawn[None] > drawn[:, None] + 1e-12).sum(1).T + 1
    rank_low, rank_high = interval(of_draws.astype(np.float64))
    best = int(order[0])
    low, high = interval((drawn[best] - drawn).T)
    return [
        Place(
            column=score.column,
            rank=int(ranks[i]),
            rank_low=int(np.floor(rank_low[i])),
            rank_high=int(np.ceil(rank_high[i])),
            behind=float(accuracies[best] - accuracies[i]),
            behind_low=float(low[i]),
            behind_high=float(high[i]),
            not_worse=bool(low[i] <= 0),
        )
        for i, score in enumerate(scored.scores)
    ]


def plateau_start(places: Sequence[Place]) -> Place:
    """The earliest column, in depth, that is not worse than the best."""
    return next(place for place in places if place.not_worse)
