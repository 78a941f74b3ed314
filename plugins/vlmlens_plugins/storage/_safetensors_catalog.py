"""What is in the parts of a store, as one index, and where each value lies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from vlmlens.abc.storage import Array
from vlmlens.errors import StoreCorrupt
from vlmlens.stores.writing import crc32_of
from vlmlens_plugins.storage._chunk_format import Chunk, Column, Index
from vlmlens_plugins.storage._places import ByteRange, Place
from vlmlens_plugins.storage._safetensors_draft import array_of
from vlmlens_plugins.storage._safetensors_part import Part, broken

WINDOW = 64 << 20
"""Bytes that are asked for at the same time."""

_AT_ONCE = 256


class Catalog:
    """The parts of a store, read as one.

    Args:
        place: Where the parts lie.
    """

    def __init__(self, place: Place) -> None:
        self.index = Index()
        self.parts = 0
        self._place = place
        self._where: dict[tuple[int, int], ByteRange] = {}

    def add(self, part: Part) -> None:
        """Add a part.

        Raises:
            StoreCorrupt: It does not fit to those before: another form of a column, or a sample
                that a column has already.
        """
        index = self.index
        numbers = {each.number: self._number(part, each) for each in part.index.columns.values()}
        places = part.places()
        for chunk in part.index.chunks:
            pieces = {numbers[column]: piece for column, piece in chunk.pieces.items()}
            self._check_new(part, chunk.ids, pieces)
            number = len(index.chunks)
            index.append(Chunk(number, chunk.ids, pieces))
            for column in chunk.pieces:
                where = ByteRange(part.key, *places[column, chunk.number])
                self._where[numbers[column], number] = where
        self.parts += 1

    def _number(self, part: Part, column: Column) -> int:
        known = self.index.columns.get(column.name)
        if known is None:
            number = len(self.index.columns)
            self.index.add_column(number, {**column.to_record(), "number": number})
            return number
        if known.form != column.form:
            raise broken(
                part.key,
                f"its column {column.name!r} has {column.form}, and other parts have {known.form}",
            )
        return known.number

    def _check_new(self, part: Part, ids: Sequence[str], columns: Iterable[int]) -> None:
        if len(set(ids)) < len(ids):
            raise broken(part.key, "it has a sample twice")
        if not self.index.has_any(ids):
            return
        by_number = list(self.index.columns.values())
        for number in columns:
            for sample in ids:
                if self.index.place(by_number[number], sample) is not None:
                    raise broken(
                        part.key,
                        f"it has the sample {sample!r} in the column "
                        f"{by_number[number].name!r}, which another part has too",
                    )

    def arrays(self, column: Column, chunks: Iterable[Chunk]) -> Iterator[Array]:
        """The stored rows of chunks, in order, with checksums compared.

        As much is asked for at the same time as `WINDOW` holds.

        Raises:
            StoreCorrupt: Values are missing, or not as they were written.
        """
        for window in self._windows(column, chunks):
            wanted = [self._where[column.number, chunk.number] for chunk in window]
            joined = _joined(wanted)
            found = dict(zip(joined, self._place.fetch(joined), strict=True))
            for chunk, where in zip(window, wanted, strict=True):
                yield self._checked(column, chunk, where, found)

    def _windows(self, column: Column, chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
        window: list[Chunk] = []
        size = 0
        for chunk in chunks:
            where = self._where[column.number, chunk.number]
            full = len(window) == _AT_ONCE or size + where.stop - where.start > WINDOW
            if window and full:
                yield window
                window, size = [], 0
            window.append(chunk)
            size += where.stop - where.start
        if window:
            yield window

    def _checked(
        self, column: Column, chunk: Chunk, where: ByteRange, found: dict[ByteRange, bytes | None]
    ) -> Array:
        if where.start == where.stop:
            raw = memoryview(b"")
        else:
            around = next(each for each in found if _holds(each, where))
            data = found[around]
            if data is None:
                raise _lost(column, where.key, "it is missing")
            first = where.start - around.start
            raw = memoryview(data)[first : first + where.stop - where.start]
        if len(raw) < where.stop - where.start:
            raise _lost(column, where.key, "it ends too early")
        array = array_of(raw, column, chunk)
        if crc32_of(array) != chunk.pieces[column.number].crc32:
            raise _lost(column, where.key, f"values of {chunk.ids[0]!r} and others have changed")
        return array


def _joined(ranges: Sequence[ByteRange]) -> list[ByteRange]:
    """Ranges that lie one behind the other become one; empty ones are left out."""
    found: list[ByteRange] = []
    for each in ranges:
        if each.start == each.stop:
            continue
        last = found[-1] if found else None
        if last and last.key == each.key and last.stop == each.start:
            found[-1] = ByteRange(each.key, last.start, each.stop)
        else:
            found.append(each)
    return found


def _holds(around: ByteRange, each: ByteRange) -> bool:
    return around.key == each.key and around.start <= each.start and each.stop <= around.stop


def _lost(column: Column, key: str, what: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"Column {column.name!r} cannot be read from the part {key}: {what}.",
        subject=key,
        hint="Copy the store again from its source, or extract again with --fresh.",
    )
