"""ColumnStore: where columns live.

A store keeps, per column (a site with a selector), one row or one ragged block of rows per
sample. Rows are keyed by sample id. Everything that one `write` call is given becomes visible
together or not at all, so that a killed run can go on where it stopped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from vlmlens._display import brief, count, shape
from vlmlens.abc import options as base
from vlmlens.errors import StoreError

if TYPE_CHECKING:
    from vlmlens.samples import Sample

Mode = Literal["r", "a"]
Array = npt.NDArray[Any]

DTYPES: Mapping[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float64": np.dtype("<f8"),
    "int64": np.dtype("<i8"),
}
"""Value types that every store keeps, and the numpy type that carries each one's bits."""


@dataclass(frozen=True, slots=True)
class Values:
    """Rows of one column for some samples, as produced, without loss.

    Args:
        array: `[n, width]` little-endian bits in `DTYPES[dtype]`; bfloat16 travels as uint16.
        dtype: A key of `DTYPES`.
        lengths: None where every sample has one row; else the number of rows of each sample,
            with `sum(lengths) == n`.
    """

    array: Array
    dtype: str
    lengths: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.array) if self.lengths is None else len(self.lengths)

    @property
    def width(self) -> int:
        """Number of features per row."""
        return int(self.array.shape[1])

    @property
    def ragged(self) -> bool:
        """Whether samples have several rows."""
        return self.lengths is not None

    def numpy(self) -> Array:
        """`[n, width]` in the value's own type; bfloat16 as float32, which holds it exactly."""
        if self.dtype != "bfloat16":
            return self.array
        return (self.array.astype(np.uint32) << 16).view(np.float32)

    def take(self, samples: Sequence[int]) -> Values:
        """The values of some samples, by number, in that order."""
        if self.lengths is None:
            return Values(self.array[list(samples)], self.dtype)
        starts = np.cumsum([0, *self.lengths])
        parts = [self.array[starts[i] : starts[i + 1]] for i in samples]
        array = np.concatenate(parts) if parts else self.array[:0]
        return Values(array, self.dtype, tuple(self.lengths[i] for i in samples))

    def per_sample(self) -> list[Array]:
        """One array `[k_i, width]` per sample."""
        array = self.numpy()
        if self.lengths is None:
            return [row[None, :] for row in array]
        ends = np.cumsum(self.lengths, dtype=np.int64)
        return [array[end - k : end] for k, end in zip(self.lengths, ends, strict=True)]

    def __repr__(self) -> str:
        return brief(self, "", count(len(self), "sample"), f"{self.dtype} {shape(self.array)}")


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """What a store knows of a column without reading it.

    Args:
        name: `SITE/SELECTOR`.
        dtype: A key of `DTYPES`.
        width: Features per row.
        ragged: Whether samples have several rows.
        samples: Number of samples that have the column.
    """

    name: str
    dtype: str
    width: int
    ragged: bool
    samples: int


@dataclass(frozen=True, slots=True)
class ColumnBlock:
    """What one `write` call adds: the same samples' values for several columns.

    Args:
        ids: Sample ids, in row order.
        columns: Values per column name; each has `len(ids)` samples.
    """

    ids: tuple[str, ...]
    columns: Mapping[str, Values]

    def __repr__(self) -> str:
        return brief(self, "", count(len(self.ids), "sample"), *self.columns)


@dataclass(frozen=True, slots=True)
class ChunkCheck:
    """What `ColumnStore.verify` found of one stored chunk.

    Args:
        column: The column that it belongs to.
        first: Id of its first sample.
        samples: Number of samples in it.
        bytes: Size of its values.
        problem: What is wrong with it; empty where it is sound.
    """

    column: str
    first: str
    samples: int
    bytes: int
    problem: str = ""


class ColumnStore(ABC):
    """A storage backend. Open with `open`, use as a context manager.

    One process writes; any number read, also while it writes.
    """

    Options: ClassVar[type[base.Options]] = base.Options

    @classmethod
    @abstractmethod
    def open(cls, location: str, *, mode: Mode, options: base.Options) -> Self:
        """Open (mode "a": create or continue; mode "r": read an existing one).

        Raises:
            StoreError: It does not exist (mode "r"), is locked by another writer, or is corrupt.
        """

    @abstractmethod
    def write(self, block: ColumnBlock) -> None:
        """Add a block in one transaction; durable when this returns.

        A sample that already has one of the columns is an error: nothing is overwritten.

        Raises:
            StoreError: Dtype or width differ from what the column holds, a sample is there
                already, or no space is left (what was stored before stays).
        """

    @abstractmethod
    def columns(self) -> list[ColumnInfo]:
        """All columns, in the order in which they were first written."""

    @abstractmethod
    def ids(self, column: str) -> list[str]:
        """Ids of the samples that have the column, in the order in which they were written.

        Raises:
            ColumnNotFound: No such column; names the nearest.
        """

    @abstractmethod
    def read(self, column: str, ids: Sequence[str] | None = None) -> Values:
        """The column's values for `ids`, in that order (default: all, in written order).

        Raises:
            ColumnNotFound: No such column.
            StoreError: A sample has no value in it.
        """

    @abstractmethod
    def iterate(self, column: str) -> Iterator[tuple[str, Array]]:
        """(sample id, `[k, width]` array) one by one, without holding the column in memory."""

    @abstractmethod
    def get_meta(self) -> dict[str, Any]:
        """The store's own JSON record (fingerprint, versions, ...)."""

    @abstractmethod
    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """Replace the JSON record, in one transaction."""

    def verify(self) -> Iterator[ChunkCheck]:
        """Read everything and check it; a damaged chunk does not keep the others from the check.

        This default reads every column once. A backend that keeps checksums overrides it.
        """
        for info in self.columns():
            ids, size, problem = self.ids(info.name), 0, ""
            try:
                for _, array in self.iterate(info.name):
                    size += array.nbytes
            except StoreError as error:
                problem = error.message
            yield ChunkCheck(info.name, ids[0] if ids else "", len(ids), size, problem)

    def samples(self) -> list[Sample]:
        """What the store itself knows of its samples; empty where only their run does."""
        from vlmlens.samples import Sample

        return [Sample.from_dict(record) for record in self.get_meta().get("samples", ())]

    def describe(self, samples: Iterable[Sample], *, model: str = "", adapter: str = "") -> None:
        """Keep what the samples are, so that the store can be used without its run.

        This default keeps them in the record. A backend that has a better place overrides it; one
        whose manifest offers "samples" is told of them by every run.

        Args:
            samples: Replace what is known of samples with the same ids.
            model: The checkpoint, as the user named it.
            adapter: The adapter's name.
        """
        meta = self.get_meta()
        known = {record["id"]: record for record in meta.get("samples", ())}
        known.update((sample.id, sample.to_dict()) for sample in samples)
        about = {"model": model, "adapter": adapter}
        self.set_meta({**meta, **about, "samples": list(known.values())})

    @abstractmethod
    def close(self) -> None:
        """Release everything. Closing twice is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
