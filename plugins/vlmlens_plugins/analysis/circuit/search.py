"""The search for a circuit: a prefix of a ranking, from which what is not needed is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens_plugins.analysis.circuit.bench import Bench, Floats


@dataclass(frozen=True, slots=True)
class Found:
    """A circuit, and how it was found.

    Args:
        kept: The numbers of its nodes, in order of depth.
        share: What they keep on the pairs that were searched on.
        sizes: How many nodes of the ranking were tried together.
        shares: What each of these keeps.
        start: The size from which nodes were left out.
        rounds: How often all nodes that were left were tried one by one.
        done: Whether leaving out any other node would keep too little; False where `max_passes`
            ended the search.
    """

    kept: Sequence[int]
    share: float
    sizes: Sequence[int]
    shares: Sequence[float]
    start: int
    rounds: int
    done: bool


def search(bench: Bench, ranking: Sequence[int]) -> Found:
    """The smallest prefix of the ranking that keeps enough, less what it does not need.

    In each round, all nodes are left out one by one, under real exchanges. Those whose absence does
    least are left out together, as many as can be. It ends when no node can be left out.

    Args:
        bench: The pairs to search on.
        ranking: All components, the most important one first.
    """
    sizes = _sizes(len(ranking))
    shares = [float(x) for x in bench.share(bench.keeping([ranking[:size] for size in sizes]))]
    tried = zip(sizes, shares, strict=True)
    start = next((size for size, share in tried if _enough(bench, share)), sizes[-1])
    kept, rounds, done = list(ranking[:start]), 0, not start
    share = shares[sizes.index(start)]
    while not done and _affordable(bench, len(kept)):
        rounds += 1
        without = [[other for other in kept if other != one] for one in kept]
        left = bench.share(bench.keeping(without))
        order = [kept[i] for i in np.argsort(np.abs(1 - left), kind="stable")]
        if any(_enough(bench, share) for share in left):
            kept, share = _fewer(bench, kept, order)
            done = not kept
        else:
            done = True
    return Found(sorted(kept), share, sizes, shares, start, rounds, done)


def _affordable(bench: Bench, size: int) -> bool:
    """Whether one more round keeps to `max_passes`."""
    cells = size + len(_sizes(size))
    return bench.passes + cells * bench.batches <= bench.options.max_passes


def _fewer(bench: Bench, kept: Sequence[int], order: Sequence[int]) -> tuple[list[int], float]:
    """The nodes without as many as can be left out together, in this order, and what they keep.

    At least one can be left out.
    """
    sizes = _sizes(len(order))[1:]
    rests = [[one for one in kept if one not in set(order[:size])] for size in sizes]
    shares = bench.share(bench.keeping(rests))
    found = ((rest, float(share)) for rest, share in zip(rests, shares, strict=True))
    enough = [(rest, share) for rest, share in found if _enough(bench, share)]
    return enough[-1]


def _enough(bench: Bench, share: float) -> bool:
    """Whether a share of the effect is near enough to all of it, on both sides."""
    return bool(abs(1 - share) <= 1 - bench.options.keep)


def _sizes(count: int) -> list[int]:
    """Sizes that are tried: 0, 1, 2, 3, 4, 6, 8, 12, 16, ... and all."""
    found = {0, count}
    size = 1
    while size < count:
        found |= {size, min(count, size + size // 2)}
        size *= 2
    return sorted(found)


def by_size(scores: Floats) -> list[int]:
    """The numbers of nodes, by the absolute value of their scores, highest first."""
    return [int(i) for i in np.argsort(-np.abs(scores), kind="stable")]
