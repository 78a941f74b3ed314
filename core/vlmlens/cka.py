"""Linear CKA of columns without the bias of few samples, in bounded memory; numpy only.

Columns are compared on *blocks* of samples. No two samples of a block are of one group: what a
group shares (five questions about one picture have the same image rows) counts as one observation.
A block's estimate is unbiased whatever its size, so the mean over blocks is too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

Reader = Callable[[int, Ints], Floats]
"""Gives a column's rows: (number of the column, numbers of samples `[n]`) -> `[n, width]`."""

BLOCK = 2048
"""Samples that are compared with each other at once, if memory allows."""

LEAST_SAMPLES = 4
"""Fewer have no unbiased estimate."""

LEAST_GROUPS = 5
"""Fewer give no interval."""

_MOST_FOLDS = 100
_SMALLEST_BLOCK = 64
_CONSTANT = 1e-12
"""A column's variance as a share of its mean square, below which there is only rounding."""

_LEVEL = 0.975


@dataclass(frozen=True, slots=True)
class Similarities:
    """A number for every two of `c` columns, with its jackknife error.

    Args:
        value: `[c, c]`; NaN where it is not defined.
        error: `[c, c]`, standard errors; NaN where there are too few groups.
        folds: Parts of the groups that were left out, one at a time.
    """

    value: Floats
    error: Floats
    folds: int

    @property
    def interval(self) -> tuple[Floats, Floats]:
        """Ends `[c, c]` of 95 % intervals by Student's t; nothing exceeds 1."""
        from scipy.special import stdtrit

        reach = stdtrit(max(self.folds - 1, 1), _LEVEL) * self.error
        return self.value - reach, np.minimum(self.value + reach, 1.0)


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
    """Linear CKA of every two columns, each read once.

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
        block: The most samples of a block.
        memory: Bytes for the kernels of one block; smaller blocks are made where it is too little.
        seed: Of the choice of blocks and folds.
        progress: Called with (columns read, all of them).

    Raises:
        ValueError: There are fewer than `LEAST_SAMPLES` groups.
    """
    rng = np.random.default_rng([seed, 0])
    size = max(_SMALLEST_BLOCK, min(block, isqrt(memory // (8 * max(columns, 1)))))
    folds = folds_of(groups, rng)
    blocks = [one[np.argsort(folds[one])] for one in blocks_of(groups, min(size, block), rng)]
    sums, spread = _Hsic(columns, int(folds.max()) + 1), _Spread(columns)
    batches = list(_batches(blocks, size))
    for i, batch in enumerate(batches):
        rows = np.concatenate(batch)
        kernels = [np.empty((columns, len(one), len(one))) for one in batch]
        ends = np.cumsum([len(one) for one in batch])[:-1]
        for c in range(columns):
            values = spread.centred(c, read(c, rows))
            for kernel, part in zip(kernels, np.split(values, ends), strict=True):
                kernel[c] = part @ part.T
            progress(i * columns + c + 1, len(batches) * columns)
        for kernel, one in zip(kernels, batch, strict=True):
            sums.add(kernel, folds[one])
    constant, broken = spread.constant, spread.broken
    value, error = sums.cka(constant | broken)
    used = sum(map(len, blocks))
    return Cka(value, error, sums.count, used, len(blocks), constant, broken)


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


def folds_of(groups: Sequence[str], rng: np.random.Generator, most: int = _MOST_FOLDS) -> Ints:
    """`[n]`: the fold of each sample; groups are dealt out whole, at most `most` folds."""
    names = list(dict.fromkeys(groups))
    count = min(len(names), most)
    dealt = dict(zip(names, (rng.permutation(len(names)) % count).tolist(), strict=True))
    return np.array([dealt[name] for name in groups], np.intp)


def products(matrices: Floats, folds: Ints, count: int) -> tuple[Floats, Floats]:
    """Inner products of symmetric matrices, of all rows and without those of each fold.

    Args:
        matrices: float64 `[c, n, n]`.
        folds: `[n]`, ascending: the fold of each row and column.
        count: How many folds there are.

    Returns:
        `[c, c]`; and `[count, c, c]`, without the rows and columns of a fold.
    """
    columns = len(matrices)
    whole = np.zeros((columns, columns))
    less = np.zeros((count, columns, columns))
    for fold, start, stop in _runs(folds):
        rows = matrices[:, start:stop].reshape(columns, -1)
        inner = np.ascontiguousarray(matrices[:, start:stop, start:stop]).reshape(columns, -1)
        of_rows = rows @ rows.T
        whole += of_rows
        less[fold] = 2 * of_rows - inner @ inner.T
    return whole, whole - less


def jackknife(value: Floats, without: Floats, sizes: Ints) -> Floats:
    """Standard errors from leaving out folds of unequal size.

    F. Busing, E. Meijer and R. van der Leeden, "Delete-m jackknife for unequal m", Statistics and
    Computing 9 (1999).

    Args:
        value: `[...]`, from all samples.
        without: `[folds, ...]`, without each fold.
        sizes: `[folds]`, samples of each fold.

    Returns:
        `[...]`; NaN where a part is.
    """
    if len(sizes) < LEAST_GROUPS:
        return np.full_like(value, np.nan)
    shape = (-1, *(1 for _ in value.shape))
    parts = (sizes.sum() / sizes).reshape(shape)
    mean = len(sizes) * value - ((1 - 1 / parts) * without).sum(0)
    pseudo = parts * value - (parts - 1) * without
    error: Floats = np.sqrt((np.square(pseudo - mean) / (parts - 1)).mean(0))
    return error


def as_cosines(inner: Floats) -> Floats:
    """`[..., c, c]`: inner products over the lengths; NaN where one is not positive."""
    squares = np.diagonal(inner, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.sqrt(np.where(squares > 0, squares, np.nan))
        found: Floats = inner / (lengths[..., :, None] * lengths[..., None, :])
    return found


class _Hsic:
    """HSIC of every two columns over blocks, of all samples and without each fold.

    With the kernels K and L whose diagonal is zero, of m samples, it is
    `(sum(K L) + sum(K) sum(L) / ((m-1)(m-2)) - 2 (K 1)'(L 1) / (m-2)) / (m (m-3))`.
    """

    def __init__(self, columns: int, count: int) -> None:
        self.count = count
        self._sizes = np.zeros(self.count, np.intp)
        self._whole = np.zeros((columns, columns))
        self._without = np.zeros((self.count, columns, columns))
        self._short = np.zeros(self.count)

    def add(self, kernels: Floats, folds: Ints) -> None:
        """Add a block: its kernels `[columns, m, m]`, which are changed, and ascending folds."""
        m = len(folds)
        kernels[:, np.arange(m), np.arange(m)] = 0.0
        whole, without = products(kernels, folds, self.count)
        sums = kernels.sum(2)
        own = m * _unbiased(whole, sums, m)
        self._whole += own
        left = np.ones(self.count, bool)
        for fold, start, stop in _runs(folds):
            left[fold] = False
            kept = m - (stop - start)
            self._sizes[fold] += stop - start
            if kept < LEAST_SAMPLES:
                self._short[fold] = np.nan
                continue
            rest = sums - kernels[:, :, start:stop].sum(2)
            rest[:, start:stop] = 0.0
            self._without[fold] += kept * _unbiased(without[fold], rest, kept)
        self._without[left] += own

    def cka(self, left_out: frozenset[int]) -> tuple[Floats, Floats]:
        """Values and errors `[c, c]`, without those of some columns."""
        value = as_cosines(self._whole)
        without = as_cosines(self._without) + self._short[:, None, None]
        for c in left_out:
            value[c] = value[:, c] = np.nan
        with np.errstate(invalid="ignore"):
            return value, jackknife(value, without, self._sizes)


def _unbiased(inner: Floats, sums: Floats, m: int) -> Floats:
    """HSIC_1 `[c, c]` from inner products `[c, c]` and row sums `[c, m]` of kernels."""
    totals = sums.sum(1)
    both = np.outer(totals, totals) / ((m - 1) * (m - 2))
    found: Floats = (inner + both - 2 / (m - 2) * (sums @ sums.T)) / (m * (m - 3))
    return found


class _Spread:
    """Which columns are constant or not finite, as rows are read."""

    def __init__(self, columns: int) -> None:
        self._square, self._variance = np.zeros(columns), np.zeros(columns)

    def centred(self, column: int, values: Floats) -> Floats:
        """Rows less their mean, which changes no estimate and keeps digits."""
        with np.errstate(invalid="ignore", over="ignore"):
            own: Floats = values - values.mean(0)
            self._square[column] += np.square(values).sum()
            self._variance[column] += np.square(own).sum()
        return own if np.isfinite(self._variance[column]) else np.zeros_like(own)

    @property
    def constant(self) -> frozenset[int]:
        """Columns whose rows are the same up to rounding."""
        flat = self._variance <= _CONSTANT * self._square
        return frozenset(np.flatnonzero(flat & np.isfinite(self._square)).tolist())

    @property
    def broken(self) -> frozenset[int]:
        """Columns with NaN or infinity."""
        return frozenset(np.flatnonzero(~np.isfinite(self._variance + self._square)).tolist())


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


def _batches(blocks: Sequence[Ints], size: int) -> Iterator[list[Ints]]:
    """Blocks that are read together."""
    batch: list[Ints] = []
    for one in blocks:
        if batch and sum(map(len, batch)) + len(one) > size:
            yield batch
            batch = []
        batch.append(one)
    yield batch


def _runs(folds: Ints) -> Iterator[tuple[int, int, int]]:
    """Each fold that is there, with where its rows begin and end."""
    starts = np.flatnonzero(np.diff(folds, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(folds)], strict=True):
        yield int(folds[start]), int(start), int(stop)
