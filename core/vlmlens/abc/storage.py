"""ColumnStore: the interface of storage backends.

For each column (a site with a selector), a store keeps one row or several rows per sample. Rows are
keyed by sample id. One `write` call is one transaction: all of it becomes visible, or nothing. So a
killed run can go on where it stopped.

Over 400 lines: two fifths are the written contract of its methods, which authors of backends read
in one piece.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from vlmlens._display import brief, count, shape
from vlmlens.abc import options as base
from vlmlens.errors import StoreCorrupt, StoreError

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
"""The value types that every store keeps, and the numpy type that holds the bits of each."""

BLOCK_BYTES = 32 * 2**20
"""About how many bytes of a column are read at once, as float32."""

_FIRST_BLOCK, _GROWTH = 16, 8


@dataclass(frozen=True, slots=True)
class Values:
    """Rows of one column for some samples, as the model produced them, without loss.

    Args:
        array: `[n, width]`, little-endian, of type `DTYPES[dtype]`; bfloat16 is held as uint16.
        dtype: A key of `DTYPES`.
        lengths: None if every sample has one row; else the number of rows of each sample, with
            `sum(lengths) == n`.
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
        """Whether a sample can have several rows."""
        return self.lengths is not None

    @property
    def most_rows(self) -> int:
        """How many rows the sample with most rows has."""
        return min(len(self.array), 1) if self.lengths is None else max(self.lengths, default=0)

    def numpy(self) -> Array:
        """`[n, width]` in the values' own type; bfloat16 becomes float32, which is exact."""
        if self.dtype != "bfloat16":
            return self.array
        return (self.array.astype(np.uint32) << 16).view(np.float32)

    def take(self, samples: Sequence[int]) -> Values:
        """The values of the samples with these numbers, in that order."""
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


class BlockSize:
    """How many samples of a column to read at once: as many as have about so many bytes.

    It goes by the largest sample so far, and begins with few, since no sample is known yet.

    Args:
        size: Bytes of a block's values as float32; a larger sample is a block alone.
    """

    def __init__(self, size: int = BLOCK_BYTES) -> None:
        self._size, self._largest = size, 1
        self.samples = _FIRST_BLOCK

    def saw(self, rows: int, width: int) -> None:
        """Adapt to what was read: the most rows of a sample, and the width of a row."""
        self._largest = max(self._largest, rows * width * 4)
        self.samples = max(1, min(_GROWTH * self.samples, self._size // self._largest))


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """What a store knows about a column without reading its values.

    Args:
        name: `SITE/SELECTOR`.
        dtype: A key of `DTYPES`.
        width: Features per row.
        ragged: Whether a sample can have several rows.
        samples: Number of samples that have the column.
    """

    name: str
    dtype: str
    width: int
    ragged: bool
    samples: int


@dataclass(frozen=True, slots=True)
class ColumnBlock:
    """The input of one `write` call: values of the same samples in several columns.

    Args:
        ids: Sample ids, in row order.
        columns: Values by column name, each with `len(ids)` samples.
    """

    ids: tuple[str, ...]
    columns: Mapping[str, Values]

    def __repr__(self) -> str:
        return brief(self, "", count(len(self.ids), "sample"), *self.columns)


@dataclass(frozen=True, slots=True)
class ChunkCheck:
    """The result of `ColumnStore.verify` for one stored chunk.

    Args:
        column: The chunk's column.
        first: Id of its first sample.
        samples: Number of samples in it.
        bytes: Size of its values.
        problem: What is wrong with it; empty if nothing is.
    """

    column: str
    first: str
    samples: int
    bytes: int
    problem: str = ""


def remove_path(path: Path) -> None:
    """Remove a file, or a folder with what is in it. Nothing happens if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class ColumnStore(ABC):
    """Base class of storage backends. Open a store with `open`, and use it as a context manager.

    One process can write at a time. Any number of processes can read, also during writing.
    """

    Options: ClassVar[type[base.Options]] = base.Options
    _listed: tuple[str, list[str]] | None = None

    @classmethod
    @abstractmethod
    def open(cls, location: str, *, mode: Mode, options: base.Options) -> Self:
        """Open a store: mode "a" creates it or continues it, mode "r" reads an existing one.

        Raises:
            StoreError: It does not exist (mode "r"), is locked by another writer, or is corrupt.
        """

    @classmethod
    def remove(cls, location: str, *, options: base.Options) -> None:
        """Remove a store that nobody uses any more. Nothing happens if there is none.

        This default removes the file or folder at a path. A backend that understands URIs
        overrides it.

        Raises:
            StoreError: The location is a URI, which this backend cannot remove.
        """
        del options
        if "://" in location:
            raise StoreError(
                f"The store at {location!r} cannot be removed by its backend.",
                subject=location,
                hint="Remove it by hand.",
            )
        remove_path(Path(location))

    @classmethod
    def open_part(cls, location: str, *, options: base.Options) -> ColumnStore:
        """Open a new store for what one attempt at a lease writes.

        It counts only once it is closed without an error, so a backend may collect what is written
        until then. This default opens a store in mode "a".

        Raises:
            StoreError: It cannot be opened.
        """
        return cls.open(location, mode="a", options=options)

    @classmethod
    def open_parts(
        cls,
        location: str,
        parts: Mapping[str, Mapping[str, Any] | None],
        *,
        options: base.Options,
    ) -> ColumnStore:
        """Open what `open_part` wrote at many places as one store, for reading.

        Only a backend has it whose manifest offers "parts"; the stores of others are opened one by
        one.

        Args:
            location: What the places have in common: a part lies at `LOCATION/NAME`.
            parts: By name, in the order of reading, the part's `card`; None if nothing is known.
            options: Options of the backend.

        Raises:
            StoreError: A part is missing or damaged.
        """
        del parts, options
        raise StoreError(f"The stores in {location!r} are opened one by one.", subject=location)

    def card(self) -> dict[str, Any] | None:
        """What `open_parts` needs to know of a closed store, so that it need not ask the store.

        JSON data, about as much as the ids of its samples; None if there is no such thing.
        """
        return None

    @abstractmethod
    def write(self, block: ColumnBlock) -> None:
        """Add a block in one transaction. It is durable when this returns.

        Nothing is overwritten: a sample that already has one of the columns is an error.

        Raises:
            StoreError: The dtype or width differs from the column's, a sample is already stored,
                or no space is left. What was stored before stays.
        """

    @abstractmethod
    def columns(self) -> list[ColumnInfo]:
        """All columns, in the order of their first write."""

    @abstractmethod
    def ids(self, column: str) -> list[str]:
        """Ids of the samples that have the column, in written order.

        Raises:
            ColumnNotFound: There is no such column. The error lists the nearest names.
        """

    @abstractmethod
    def read(self, column: str, ids: Sequence[str] | None = None) -> Values:
        """The column's values for `ids`, in that order; by default all, in written order.

        Raises:
            ColumnNotFound: There is no such column.
            StoreError: A sample has no value in it.
        """

    def read_range(self, column: str, start: int, stop: int) -> tuple[list[str], Values]:
        """The ids and values of the column's samples `start` to `stop`, in written order.

        So a column is read in blocks, whatever its size. There are fewer samples where the column
        ends before `stop`. This default lists the ids of the whole column, and keeps the list for
        the ranges that follow. A backend that finds a place by its number overrides it.

        Raises:
            ColumnNotFound: There is no such column.
        """
        ids = self._ids_to(column, start, stop)[max(start, 0) : max(stop, 0)]
        return ids, self.read(column, ids)

    def _ids_to(self, column: str, start: int, stop: int) -> list[str]:
        """Ids of a column, those before `stop` at least.

        Columns only grow at their end, so a list stays right as far as it goes. Whoever begins
        again at 0, or asks for more than is known, gets a new one.
        """
        kept = self._listed
        if kept is None or kept[0] != column or start <= 0 or stop > len(kept[1]):
            kept = self._listed = column, self.ids(column)
        return kept[1]

    def blocks(
        self, column: str, samples: int | None = None, *, size: int = BLOCK_BYTES
    ) -> Iterator[tuple[list[str], Values]]:
        """The whole column in blocks, in written order; see `read_range`.

        Args:
            column: The column.
            samples: Samples of a block. Default: as many as have about `size` bytes, going by the
                largest sample so far. The first blocks are small, since no sample is known yet.
            size: Bytes of a block's values as float32; a larger sample is a block alone.

        Raises:
            ColumnNotFound: There is no such column.
        """
        start, fitting = 0, BlockSize(size)
        while True:
            ids, values = self.read_range(column, start, start + (samples or fitting.samples))
            if not ids:
                return
            fitting.saw(values.most_rows, values.width)
            yield ids, values
            start += len(ids)

    @abstractmethod
    def iterate(self, column: str) -> Iterator[tuple[str, Array]]:
        """Yield (sample id, array `[k, width]`) one by one, without holding all in memory."""

    @abstractmethod
    def get_meta(self) -> dict[str, Any]:
        """The store's own JSON record (fingerprint, versions, ...)."""

    @abstractmethod
    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """Replace the JSON record, in one transaction."""

    def check_reads(self) -> None:  # noqa: B027  most backends always do
        """Compare checksums in all reads from now on. Copies use it, so that no damage is copied.

        This default does nothing. A backend whose reads need not compare checksums overrides it.
        """

    def verify(self) -> Iterator[ChunkCheck]:
        """Read and check everything. A damaged chunk does not stop the check of the others.

        This default reads every column once. A backend with checksums overrides it.
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
        """The samples as the store knows them; empty if only the run knows them.

        Raises:
            StoreCorrupt: Their description cannot be understood.
        """
        from vlmlens.samples import Sample

        try:
            return [Sample.from_dict(record) for record in self.get_meta().get("samples", ())]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreCorrupt(
                "The store describes its samples in a form that cannot be understood.",
                hint="Copy the store again from its source.",
            ) from error

    def describe(self, samples: Iterable[Sample], *, model: str = "", adapter: str = "") -> None:
        """Keep a description of the samples, so that the store can be used without its run.

        This default keeps them in the JSON record. A backend with a better place overrides it.
        Every run calls this on a backend whose manifest offers "samples".

        Args:
            samples: The samples. They replace stored ones with the same ids.
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
        """Release all resources. Closing twice is allowed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
