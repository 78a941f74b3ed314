"""Sums over rows, by parts of the samples: what probes with a closed form need of a column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dsymv, dsyr, dsyrk

from vlmlens_plugins.analysis.probe.cross_validation import Tick, within
from vlmlens_plugins.analysis.probe.large.partition import Bools, Ints, Partition
from vlmlens_plugins.analysis.probe.large.scratch import Scratch

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]
Labels = Callable[[Ints], Floats]
"""float64 `[k, columns]` for samples of those numbers: what rows are multiplied with."""

_FLAT = 1e-7
_PRODUCTS = 144 * 2**20
"""Bytes of products that are added up in memory at a time."""
_NUMBERS = 4_000_000
"""Numbers that blocks of rows have beside the rows, such as labels or outputs, at a time."""


class Rows(Protocol):
    """A column in blocks; iterating again reads it again."""

    @property
    def count(self) -> int:
        """Number of rows."""

    @property
    def width(self) -> int:
        """Features per row."""

    def __iter__(self) -> Any:
        """Yield (int64 `[k]` row numbers, rows `[k, width]`)."""


def counted(rows: Iterable[tuple[Ints, Array]], tick: Tick, count: int) -> Any:
    """The same blocks; tells how far they are read."""
    done = 0
    for places, values in rows:
        yield places, values
        done += len(places)
        tick(done / count)


def pieces(count: int, columns: int) -> Iterator[slice]:
    """Slices of so many rows, short enough for so many numbers for each row."""
    step = max(1, _NUMBERS // max(1, columns))
    return (slice(start, start + step) for start in range(0, count, step))


class NotFinite(Exception):
    """A row holds a value that is not finite, or too large to be squared."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums by part, of rows less a shift.

    Args:
        shift: float64 `[d]`, near the mean.
        count: float64 `[parts]`.
        total: float64 `[parts, d]`.
        squares: float64 `[parts, d]`.
        products: float64 `[d, d]`, the lower triangle, of the parts that were asked for.
        labels: float64 `[parts, columns]`, sums of the labels.
        label_squares: float64 `[parts, columns]`.
        with_labels: float64 `[parts, d, columns]`, sums of rows times labels.
    """

    shift: Floats
    count: Floats
    total: Floats
    squares: Floats
    products: dict[int, Floats]
    labels: Floats
    label_squares: Floats
    with_labels: Floats

    @classmethod
    def collect(
        cls,
        rows: Rows,
        partition: Partition,
        labels: Labels,
        scratch: Scratch,
        tick: Tick,
        multiplied: Bools | None = None,
    ) -> Sums:
        """Read a column once; more often where the products of all parts do not fit in memory.

        Args:
            rows: The column.
            partition: Parts of the samples.
            labels: What rows are multiplied with.
            scratch: Where such products are kept.
            tick: Told the share of the rows that are read.
            multiplied: bool `[parts]`, the parts whose products are needed; None: all.

        Raises:
            NotFinite: A value is not finite.
            CompositionError: Such products do not fit on the disk.
        """
        wanted = np.arange(partition.parts)
        wanted = wanted if multiplied is None else wanted[multiplied]
        at_once = max(1, _PRODUCTS // (8 * rows.width**2))
        turns = [wanted[i : i + at_once].tolist() for i in range(0, len(wanted), at_once)] or [[]]
        if len(turns) > 1:
            scratch.check(8 * rows.width**2 * len(wanted))
        made: Sums | None = None
        for number, parts in enumerate(turns):
            fresh = {part: np.zeros((rows.width, rows.width), order="F") for part in parts}
            told = within(tick, number / len(turns), 1 / len(turns))
            made = cls._read(rows, partition, labels, fresh, made, told)
            if len(turns) > 1:
                fresh = {part: _on_disk(scratch, own) for part, own in fresh.items()}
            made.products.update(fresh)
        assert made is not None  # noqa: S101  there is a turn
        return made

    @classmethod
    def _read(
        cls,
        rows: Rows,
        partition: Partition,
        labels: Labels,
        products: dict[int, Floats],
        before: Sums | None,
        tick: Tick,
    ) -> Sums:
        """Read once for some parts' products; the first time, for all other sums, too."""
        made = before
        for places, values in counted(rows, tick, rows.count):
            if not np.isfinite(values).all():
                raise NotFinite
            block = values.astype(np.float64)
            if made is None:
                columns = labels(places[:1]).shape[1]
                made = cls._zero(block.mean(0), columns, partition.parts)
            with np.errstate(over="ignore", invalid="ignore"):
                block -= made.shift
                for part, own in partition.split(places):
                    if part in products:
                        add_products(products[part], block[own])
                    if before is None:
                        made._add_pieces(part, block, places, own, labels)
        assert made is not None  # noqa: S101  a target has samples
        if not np.isfinite(made.squares).all():
            raise NotFinite
        return made

    @classmethod
    def _zero(cls, shift: Floats, columns: int, parts: int) -> Sums:
        width = len(shift)
        return cls(
            shift,
            np.zeros(parts),
            np.zeros((parts, width)),
            np.zeros((parts, width)),
            {},
            np.zeros((parts, columns)),
            np.zeros((parts, columns)),
            np.zeros((parts, width, columns)),
        )

    def _add_pieces(
        self, part: int, block: Floats, places: Ints, own: Ints, labels: Labels
    ) -> None:
        for piece in pieces(len(own), self.labels.shape[1]):
            some = own[piece]
            self._add(part, block[some], labels(places[some]))

    def _add(self, part: int, rows: Floats, labels: Floats) -> None:
        self.count[part] += len(rows)
        self.total[part] += rows.sum(0)
        self.squares[part] += np.einsum("nf,nf->f", rows, rows)
        self.labels[part] += labels.sum(0)
        self.label_squares[part] += np.einsum("nf,nf->f", labels, labels)
        if labels.shape[1]:
            self.with_labels[part] += rows.T @ labels

    def scaling(self, parts: Bools) -> tuple[Floats, Floats]:
        """Mean less the shift, and 1 / standard deviation (0 for a constant feature), of parts."""
        count = max(float(self.count[parts].sum()), 1.0)
        mean = self.total[parts].sum(0) / count
        variance = self.squares[parts].sum(0) / count - mean**2
        scale = np.sqrt(np.maximum(variance, 0.0))
        flat = scale <= _FLAT * np.maximum(np.abs(mean + self.shift), 1e-30)
        return mean, np.where(flat, 0.0, 1 / np.where(flat, 1.0, scale))

    @property
    def size(self) -> float:
        """The root of the rows' mean squared distance from their mean."""
        count = self.count.sum()
        spread = self.squares.sum(0) - self.total.sum(0) ** 2 / count
        return float(np.sqrt(max(spread.sum(), 0.0) / count))

    def centred(self, parts: Bools, into: Floats) -> Floats:
        """`[d, d]`, the lower triangle of the centred products of the rows of parts, in `into`."""
        into[:] = 0
        for part in np.flatnonzero(parts).tolist():
            into += self.products[part]
        mean = self.total[parts].sum(0)
        count = max(float(self.count[parts].sum()), 1.0)
        dsyr(-1 / count, mean, a=into, lower=1, overwrite_a=1)
        return into

    def squared(self, parts: Bools, vector: Floats) -> float:
        """The sum over rows of parts of their squared product with a vector `[d]`."""
        found = 0.0
        for part in np.flatnonzero(parts).tolist():
            found += float(vector @ dsymv(1.0, self.products[part], vector, lower=1))
        return found


def _on_disk(scratch: Scratch, products: Floats) -> Floats:
    made: Floats = scratch.array(products.shape, "<f8", "F")
    made[:] = products
    return made


def add_products(into: Floats, rows: Floats) -> None:
    """Add the outer products of rows `[k, d]` to the lower triangle of `[d, d]`, in place."""
    dsyrk(1.0, rows.T, beta=1.0, c=into, lower=1, overwrite_c=1)


def one_hot_labels(labels: npt.NDArray[np.generic], classes: int) -> Labels:
    """Of class numbers `[fits, n]`: float64 `[k, classes * fits]`."""

    def of(places: Ints) -> Floats:
        own = labels[:, places].T
        known = own[:, None] == np.arange(classes)[:, None]
        return np.asarray(known.reshape(len(places), -1), np.float64)

    return of


def numbers_as_labels(labels: npt.NDArray[np.generic]) -> Labels:
    """Of numbers `[fits, n]`: float64 `[k, fits]`."""
    return lambda places: np.asarray(labels[:, places].T, np.float64)


def no_labels(places: Ints) -> Floats:
    """None."""
    return np.zeros((len(places), 0))
