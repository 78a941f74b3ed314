"""Which chunks a read touches, and how their rows come together in one array."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from vlmlens.abc.storage import DTYPES, Array
from vlmlens.errors import StoreError
from vlmlens.stores.writing import find_column, missing_sample
from vlmlens_plugins.storage._chunk_format import Chunk, Column, Index


class Move(NamedTuple):
    """Samples of one chunk and where they go.

    Args:
        chunk: Where they come from.
        sources: Their positions in the chunk; None: all, in order.
        targets: Their positions in the answer; where `sources` is None, the first one's.
    """

    chunk: Chunk
    sources: Sequence[int] | None
    targets: Sequence[int]


class ReadPlan(NamedTuple):
    """What a read will do.

    Args:
        column: The column.
        samples: Number of samples in the answer.
        lengths: Rows of each, where the column is ragged.
        moves: What comes from where.
    """

    column: Column
    samples: int
    lengths: tuple[int, ...] | None
    moves: Sequence[Move]


def plan_read(index: Index, name: str, ids: Sequence[str] | None) -> ReadPlan:
    """Plan the reading of a column's samples.

    Args:
        index: The store's index.
        name: The column's name.
        ids: Sample ids in the wanted order; None: all in written order.

    Raises:
        ColumnNotFound: No such column.
        StoreError: A sample has no value in it.
    """
    column = find_column(name, index.columns)
    chunks = index.chunks_of(column)
    if ids is None or (len(ids) == index.samples(column) and _are_all(ids, chunks)):
        return _plan_all(column, chunks)
    return _plan_some(index, column, ids)


def plan_range(index: Index, name: str, start: int, stop: int) -> tuple[list[str], ReadPlan]:
    """Plan the reading of consecutive samples, and name them.

    Args:
        index: The store's index.
        name: The column's name.
        start: Number of the first sample, in written order.
        stop: Number of the sample after the last one.

    Raises:
        ColumnNotFound: No such column.
    """
    column = find_column(name, index.columns)
    ids: list[str] = []
    lengths: list[int] = []
    moves: list[Move] = []
    for first, chunk in index.chunks_between(column, start, stop):
        some = range(max(start - first, 0), min(stop - first, len(chunk.ids)))
        sources = None if len(some) == len(chunk.ids) else some
        moves.append(Move(chunk, sources, range(len(ids), len(ids) + len(some))))
        ids.extend(chunk.ids[some.start : some.stop])
        if column.form.ragged:
            lengths.extend(_lengths(column, chunk)[some.start : some.stop])
    return ids, ReadPlan(column, len(ids), tuple(lengths) if column.form.ragged else None, moves)


def gather(plan: ReadPlan, load: Callable[[Chunk], Array]) -> Array:
    """The plan's rows as one new array `[n, width]`.

    Args:
        plan: What to read.
        load: Gives a chunk's rows `[rows, width]`.
    """
    rows = plan.samples if plan.lengths is None else sum(plan.lengths)
    form = plan.column.form
    try:
        out = np.empty((rows, form.width), DTYPES[form.dtype])
    except (MemoryError, ValueError) as error:
        raise StoreError(
            f"Column {plan.column.name!r} has {rows} x {form.width} numbers, more than the memory "
            "takes.",
            subject=plan.column.name,
            hint="Read fewer samples at once. If it should be small, the store is damaged.",
        ) from error
    starts = None if plan.lengths is None else _starts(plan.lengths)
    for move in plan.moves:
        _carry(out, starts, plan.column, move, load(move.chunk))
    return out


def _carry(out: Array, starts: Array | None, column: Column, move: Move, array: Array) -> None:
    """Put a chunk's rows where they go."""
    move = _by_entry(column, move)
    if move.sources is None:
        first = move.targets[0] if starts is None else starts[move.targets[0]]
        out[first : first + len(array)] = array
    elif len(move.sources) == 1 and starts is None:
        out[move.targets[0]] = array[move.sources[0]]
    elif starts is None:
        out[move.targets] = array[move.sources]
    else:
        places = _starts(move.chunk.pieces[column.number].entry_lengths(len(move.chunk.ids)))
        for source, target in zip(move.sources, move.targets, strict=True):
            out[starts[target] : starts[target + 1]] = array[places[source] : places[source + 1]]


def _by_entry(column: Column, move: Move) -> Move:
    """A move with the stored entries as sources, where samples share them."""
    order = move.chunk.pieces[column.number].order
    if order is None:
        return move
    if move.sources is None:
        first = move.targets[0]
        return Move(move.chunk, list(order), range(first, first + len(order)))
    return Move(move.chunk, [order[source] for source in move.sources], move.targets)


def _plan_all(column: Column, chunks: Sequence[Chunk]) -> ReadPlan:
    lengths: list[int] = []
    moves, samples = [], 0
    for chunk in chunks:
        moves.append(Move(chunk, None, (samples,)))
        samples += len(chunk.ids)
        if column.form.ragged:
            lengths.extend(_lengths(column, chunk))
    return ReadPlan(column, samples, tuple(lengths) if column.form.ragged else None, moves)


def _plan_some(index: Index, column: Column, ids: Sequence[str]) -> ReadPlan:
    found: dict[int, tuple[list[int], list[int]]] = {}
    lengths: list[int] = []
    for target, sample in enumerate(ids):
        place = index.place(column, sample)
        if place is None:
            raise missing_sample(column.name, sample)
        chunk, source = place
        sources, targets = found.setdefault(chunk.number, ([], []))
        sources.append(source)
        targets.append(target)
        if column.form.ragged:
            lengths.append(_lengths(column, chunk)[source])
    moves = [Move(index.chunks[number], *found[number]) for number in sorted(found)]
    return ReadPlan(column, len(ids), tuple(lengths) if column.form.ragged else None, moves)


def _are_all(ids: Sequence[str], chunks: Sequence[Chunk]) -> bool:
    written = (sample for chunk in chunks for sample in chunk.ids)
    return all(given == stored for given, stored in zip(ids, written, strict=True))


def _lengths(column: Column, chunk: Chunk) -> tuple[int, ...]:
    return chunk.pieces[column.number].lengths or ()


def _starts(lengths: Sequence[int]) -> Array:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
