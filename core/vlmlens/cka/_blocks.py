"""Which samples are compared, which are left out together, and which are read at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from vlmlens.cka._jackknife import LEAST_GROUPS, Ints

LEAST_SAMPLES = 4
"""Fewer have no unbiased estimate."""

_MOST_FOLDS = 100
TOGETHER = 2048
"""Samples that are read at once."""


def blocks_of(groups: Sequence[str], size: int, rng: np.random.Generator) -> list[Ints]:
    """Samples in random blocks, of which none has two samples of one group.

    Groups of very unequal size would make blocks of few samples. Then only some samples of the
    largest groups are taken, so that a block has samples of half of the groups at least.

    Args:
        groups: `[n]`, the group of each sample.
        size: The most samples of a block.
        rng: Where randomness comes from.

    Returns:
        Numbers of samples, block by block.

    Raises:
        ValueError: There are fewer than `LEAST_SAMPLES` groups.
    """
    members = _members(groups)
    if len(members) < LEAST_SAMPLES:
        raise ValueError(f"{len(members)} groups, at least {LEAST_SAMPLES} are needed")
    counts = np.array([len(one) for one in members])
    least = min(LEAST_GROUPS, len(counts))
    wanted = min(-(-len(groups) // size), _most_blocks(counts, least))
    half = _most_blocks(counts, max(least, -(-len(counts) // 2)))
    number = max(min(half, int(counts.max())), wanted)
    blocks: list[list[int]] = [[] for _ in range(number)]
    place = 0
    for i in rng.permutation(len(members)):
        for sample in rng.permutation(members[i])[:number]:
            blocks[place % number].append(int(sample))
            place += 1
    return [np.array(one, np.intp) for one in blocks]


def drawn(groups: Sequence[str], most: int, rng: np.random.Generator) -> Ints:
    """Numbers of at most so many samples, rising, of as many different groups as there are.

    A second sample of a group is drawn only once there is one of every group, and so on.

    Args:
        groups: `[n]`, the group of each sample.
        most: How many samples.
        rng: Where randomness comes from.
    """
    if len(groups) <= most:
        return np.arange(len(groups))
    taken: dict[str, int] = {}
    order = rng.permutation(len(groups))
    turn = np.empty(len(groups), np.intp)
    for place, i in enumerate(order):
        turn[place] = taken[groups[i]] = taken.get(groups[i], -1) + 1
    return np.sort(order[np.argsort(turn, kind="stable")[:most]])


def folds_of(groups: Sequence[str], rng: np.random.Generator, most: int = _MOST_FOLDS) -> Ints:
    """`[n]`: the fold of each sample; groups are dealt out whole, at most `most` folds."""
    names = list(dict.fromkeys(groups))
    count = min(len(names), most)
    dealt = dict(zip(names, (rng.permutation(len(names)) % count).tolist(), strict=True))
    return np.array([dealt[name] for name in groups], np.intp)


class Strip(NamedTuple):
    """Rows `start` to `stop` of the kernels of a block.

    Args:
        block: The block's number.
        size: Its samples.
        offset: Where it begins among the samples that are read together.
        start: Its first row that is made; `stop` likewise.
    """

    block: int
    size: int
    offset: int
    start: int
    stop: int


def passes_of(blocks: Sequence[Ints], room: int) -> list[tuple[Ints, list[Strip]]]:
    """Samples to read together, with the strips of kernels to make of them.

    Args:
        blocks: Numbers of samples.
        room: How many numbers of a kernel there may be at a time.
    """
    passes: list[tuple[Ints, list[Strip]]] = []
    together: list[int] = []

    def read() -> None:
        if together:
            sizes = [len(blocks[k]) for k in together]
            offsets = [0, *accumulate(sizes)]
            strips = [
                Strip(k, m, o, 0, m) for k, m, o in zip(together, sizes, offsets, strict=False)
            ]
            passes.append((np.concatenate([blocks[k] for k in together]), strips))
            together.clear()

    for k, one in enumerate(blocks):
        m = len(one)
        sizes = [*(len(blocks[j]) for j in together), m]
        if sum(size**2 for size in sizes) > room or sum(sizes) > TOGETHER:
            read()
        if m**2 <= room:
            together.append(k)
            continue
        height = max(room // m, 1)
        passes.extend(
            (one, [Strip(k, m, 0, start, min(start + height, m))]) for start in range(0, m, height)
        )
    read()
    return passes


def _members(groups: Sequence[str]) -> list[list[int]]:
    found: dict[str, list[int]] = {}
    for i, name in enumerate(groups):
        found.setdefault(name, []).append(i)
    return list(found.values())


def _most_blocks(counts: Ints, least: int) -> int:
    """The most blocks that have samples of at least so many groups each."""
    sizes = np.sort(counts)
    low, high = 1, max(int(sizes.sum()) // least, 1)
    while low < high:
        middle = (low + high + 1) // 2
        enough = np.minimum(sizes, middle).sum() >= middle * least
        low, high = (middle, high) if enough else (low, middle - 1)
    return low
