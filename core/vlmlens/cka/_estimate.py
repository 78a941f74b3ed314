"""Linear CKA of columns: reading, estimating, what is known of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.cka._blocks import TOGETHER, Strip, blocks_of, folds_of, passes_of
from vlmlens.cka._hsic import Block, Hsic, Spread
from vlmlens.cka._jackknife import Floats, Ints, Similarities

Reader = Callable[[int, Ints], Floats]
"""Gives a column's rows: (number of the column, numbers of samples `[n]`) -> `[n, width]`."""

BLOCK = 2048
"""Samples that are compared with each other."""


@dataclass(frozen=True, slots=True)
class Cka(Similarities):
    """Linear CKA of every two columns.

    Args:
        samples: How many were used.
        blocks: In how many blocks.
        constant: Numbers of columns whose rows are all the same.
        broken: Numbers of columns with a value that is not finite.
    """

    samples: int
    blocks: int
    constant: frozenset[int]
    broken: frozenset[int]


def linear_cka(
    read: Reader,
    columns: int,
    groups: Sequence[str],
    *,
    block: int = BLOCK,
    memory: int = 2**29,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Cka:
    """Linear CKA of every two columns.

    `CKA(X, Y) = HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y))` with linear kernels (Kornblith et al.
    2019, arXiv 1905.00414). HSIC is the unbiased estimator HSIC_1 of Song et al. ("Feature
    selection via dependence maximization", JMLR 13, 2012), and its mean over blocks (Nguyen et al.
    2021, arXiv 2010.15327). Errors are those of the jackknife over folds of whole groups, see
    `jackknife`: no row is there twice, as in a bootstrap, where copies of a row would be alike in
    all columns.

    Args:
        read: Reads rows of a column.
        columns: How many there are.
        groups: `[n]`, the group of each sample.
        block: The most samples of a block. With as many samples of different groups as this, or
            fewer, there is one, and the estimate is that of all pairs of samples.
        memory: Bytes for kernels. Where those of a block need more, they are made strip by strip,
            and the block is read once for each strip. Never are more than 2,048 rows of a column
            read at once, and two such pieces kept.
        seed: Of the choice of blocks and folds.
        progress: Called with (columns read, all of them).

    Raises:
        ValueError: There are fewer than `LEAST_SAMPLES` groups.
    """
    rng = np.random.default_rng([seed, 0])
    folds = folds_of(groups, rng)
    blocks = [one[np.argsort(folds[one])] for one in blocks_of(groups, block, rng)]
    hsic, spread = Hsic(columns, int(folds.max()) + 1), Spread(columns)
    passes = passes_of(blocks, memory // (8 * max(columns, 1)))
    begun: dict[int, Block] = {}
    for i, (rows, strips) in enumerate(passes):
        kernels = [np.empty((columns, s.stop - s.start, s.size)) for s in strips]
        for c in range(columns):
            if len(rows) > TOGETHER:
                _fill_in_pieces(kernels[0][c], read, (c, rows, strips[0]), spread)
            else:
                values = spread.centred(c, read(c, rows))
                for kernel, s in zip(kernels, strips, strict=True):
                    part = values[s.offset : s.offset + s.size]
                    kernel[c] = part[s.start : s.stop] @ part.T
            progress(i * columns + c + 1, len(passes) * columns)
        for kernel, s in zip(kernels, strips, strict=True):
            sums = begun.setdefault(s.block, Block(columns, folds[blocks[s.block]]))
            sums.add(kernel, s.start)
            if s.stop == s.size:
                hsic.add(begun.pop(s.block))
    constant, broken = spread.constant, spread.broken
    value, error = hsic.cka(constant | broken)
    used = sum(map(len, blocks))
    return Cka(value, error, hsic.count, used, len(blocks), constant, broken)


def _fill_in_pieces(
    kernel: Floats, read: Reader, wanted: tuple[int, Ints, Strip], spread: Spread
) -> None:
    """A strip of the kernel of a block that is too large to be read at once.

    Args:
        kernel: `[r, m]`, which is filled.
        read: Reads rows of a column.
        wanted: The column's number, the block's samples `[m]`, and which rows the strip has.
        spread: Told of every row of the block, once.
    """
    c, rows, strip = wanted
    # All strips of a block need the same shift: with several, their kernel would be no kernel.
    shift = spread.shift(read(c, rows[:TOGETHER]))
    for first in range(strip.start, strip.stop, TOGETHER):
        left = read(c, rows[first : min(first + TOGETHER, strip.stop)])
        own = spread.centred(c, left, shift, counted=False)
        for start in range(0, len(rows), TOGETHER):
            piece = read(c, rows[start : start + TOGETHER])
            other = spread.centred(c, piece, shift, counted=first == strip.start)
            low = first - strip.start
            kernel[low : low + len(own), start : start + len(other)] = own @ other.T


def unbiased_cka(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Linear CKA of two arrays, of independent samples; NaN if one is constant.

    Args:
        x: `[n, d]`.
        y: `[n, e]`, of the same samples.

    >>> x = np.random.default_rng(0).normal(size=(50, 8))
    >>> round(unbiased_cka(x, 2 * x[:, ::-1] + 1), 6)
    1.0
    """
    arrays = [np.asarray(one, np.float64) for one in (x, y)]
    names = [str(i) for i in range(len(arrays[0]))]
    found = linear_cka(lambda c, rows: arrays[c][rows], 2, names, block=len(names))
    return float(found.value[0, 1])
