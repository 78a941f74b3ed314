"""Batches of rows in random order, in memory that does not grow with the number of rows."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from vlmlens.errors import DataError, SpecError
from vlmlens_plugins.sae.batches import Batch, Statistics
from vlmlens_plugins.sae.feeding.ahead import Following
from vlmlens_plugins.sae.feeding.blocks import Block, Blocks, Order, Place, Sizes
from vlmlens_plugins.sae.feeding.joined import check_equal_samples
from vlmlens_plugins.sae.rows import Rows

_BYTES = 2**30
_USUAL_BYTES, _USUAL_ROWS = 2**28, 2**18
_AT_ONCE = 4096


class Shuffled:
    """Batches of rows in random order: a `Feed`.

    The rows of many samples are read as a block of half the buffer, while those of the block before
    are handed out in random order. So a batch mixes rows of all samples of a block, and every row
    comes once per epoch. Samples are read in random pieces of an eighth of a block, which come in a
    new order in each epoch. What is left of a block, less than a batch, begins the first batch
    after it. If all rows fit into one block, they are read once.

    Args:
        rows: The rows; of a transcoder two, of its input and its target, with equal numbers of rows
            in each sample.
        batch: Rows per batch; all rows if there are fewer.
        samples: Numbers of the samples to use; None: all.
        seed: Of all orders, 0 or more.
        buffer: How many rows are kept in memory at most: fewer if they take more than a GiB, and
            more if that is less than two batches, or if a single sample has more. None: 2**18, or
            as many as take 256 MiB if that is less.
        together: A key for each of `samples`. Samples with equal keys are read together: those
            about the same picture, say, where passes of the model share it.

    Raises:
        DataError: There is no sample, or the parts have other numbers of samples.
        SpecError: A number is too small.
    """

    def __init__(
        self,
        *rows: Rows,
        batch: int = 4096,
        samples: Sequence[int] | None = None,
        seed: int = 0,
        buffer: int | None = None,
        together: Sequence[Hashable] | None = None,
    ) -> None:
        _check(batch, seed, buffer)
        self._parts = rows
        every = range(len(rows[0]) if rows else 0)
        numbers = np.array(every if samples is None else samples, np.int64)
        _check_samples(rows, numbers, together)
        self._together = None if together is None else _coded(together)
        self._seed, self._buffer, self._asked = seed, buffer, batch
        self._numbers = numbers
        self._batch: int | None = None
        self._whole = False
        self._sizes: Sizes | None = None
        self._ready: tuple[Blocks, Block] | None = None
        self._place, self._served = Place(0, 0), 0
        self._left: Batch = ()

    @property
    def widths(self) -> tuple[int, ...]:
        """See `Feed.widths`."""
        return tuple(part.width for part in self._parts)

    @property
    def batch(self) -> int:
        """See `Feed.batch`. If it is not known yet, the first block is read."""
        if self._batch is None:
            blocks, block = self._begun()
            self._whole = blocks.whole
            ended = block.following.epoch > 0
            self._batch = min(self._asked, len(block.order)) if ended else self._asked
        return self._batch

    def statistics(self) -> tuple[Statistics, ...]:
        """See `Feed.statistics`: of the first block of the first epoch, of random samples."""
        if self._place == (0, 0) and self._served == 0:
            block = self._begun()[1]
        else:
            block = self._blocks().read(Place(0, 0))
        return tuple(_statistics(rows) for rows in block.rows)

    def __iter__(self) -> Iterator[Batch]:
        """See `Feed.__iter__`. Have one iterator at a time; closing it stops reading ahead.

        Raises:
            DataError: A row holds NaN or infinity, no sample has a row, or parts do not fit.
        """
        size = self.batch
        self._left = self._left or tuple(torch.empty(0, width) for width in self.widths)
        ready, self._ready = self._ready, None
        blocks = self._blocks() if ready is None else ready[0]
        block = blocks.read(self._place) if ready is None else ready[1]
        while True:
            following = Following(blocks, block.following)
            try:
                yield from self._batches(block, size)
            except GeneratorExit:
                following.stop()
                raise
            self._left = self._rest(block)
            self._place, self._served = block.following, 0
            block = following.block()

    def state(self) -> Mapping[str, Any]:
        """See `Feed.state`. Of rows it holds less than a batch."""
        sizes = self._sized()
        left = {f"left_{i}": rows.clone() for i, rows in enumerate(self._left)}
        return {
            "of": self._of(),
            "batch": self.batch,
            "whole": self._whole,
            "piece": sizes.piece,
            "mean": sizes.mean,
            "epoch": self._place.epoch,
            "first": self._place.first,
            "served": self._served,
            **left,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Feed.restore`."""
        own, given = self._of(), state.get("of")
        if given != own:
            known = given if isinstance(given, Mapping) else {}
            other = [name for name in own if known.get(name) != own[name]]
            raise DataError(
                f"The state is of another feed: {', '.join(other)} differ "
                f"({', '.join(f'{known.get(name)} and {own[name]}' for name in other)}).",
                subject="state",
                hint="Go on with the same samples, columns and settings, or train anew.",
            )
        self._batch, self._whole = int(state["batch"]), bool(state["whole"])
        self._sizes = Sizes(self._block, int(state["piece"]), float(state["mean"]))
        self._place = Place(int(state["epoch"]), int(state["first"]))
        self._served = int(state["served"])
        begun, self._ready = self._ready, None
        if begun is not None and begun[0].whole and self._whole:
            self._ready = begun[0], begun[0].read(self._place)
        names = [f"left_{i}" for i in range(len(self._parts))]
        self._left = tuple(state[name].clone() for name in names if name in state)

    @property
    def _block(self) -> int:
        """How many rows a block has at most: half the buffer."""
        given = self._buffer is not None
        fits = (_BYTES if given else _USUAL_BYTES) // (4 * sum(self.widths))
        return max(min(self._buffer or _USUAL_ROWS, fits) // 2, self._asked)

    def _sized(self) -> Sizes:
        if self._sizes is None:
            self._sizes = Sizes.of(self._parts[0], self._numbers, self._seed, self._block)
        return self._sizes

    def _blocks(self) -> Blocks:
        sizes = self._sized()
        order = Order(self._numbers, self._seed, sizes.piece, self._together)
        return Blocks(self._parts, order, sizes, whole=self._whole)

    def _begun(self) -> tuple[Blocks, Block]:
        """The first block, read once."""
        if self._ready is None:
            blocks = self._blocks()
            self._ready = blocks, blocks.read(Place(0, 0))
        return self._ready

    def _batches(self, block: Block, size: int) -> Iterator[Batch]:
        while len(self._left[0]) + len(block.order) - self._served >= size:
            taken = self._taken(block, self._served, self._served + size)
            self._served += size
            yield taken

    def _rest(self, block: Block) -> Batch:
        """What is left of a block."""
        return self._taken(block, self._served, len(self._left[0]) + len(block.order))

    def _taken(self, block: Block, start: int, stop: int) -> Batch:
        """Rows of what was left of the block before, and of the block in its order."""
        before = len(self._left[0])
        order = block.order[max(start - before, 0) : max(stop - before, 0)]
        fresh = [rows[order] for rows in block.rows]
        if start >= before:
            return tuple(fresh)
        old = [rows[start:stop] for rows in self._left]
        return tuple(torch.cat(both) for both in zip(old, fresh, strict=True))

    def _of(self) -> dict[str, Any]:
        return {
            "columns": [part.column for part in self._parts],
            "widths": list(self.widths),
            "samples": len(self._numbers),
            "numbers": zlib.crc32(self._numbers.tobytes()),
            "together": 0 if self._together is None else zlib.crc32(self._together.tobytes()),
            "seed": self._seed,
            "rows per batch": self._asked,
            "rows per block": self._block,
        }


def _statistics(rows: torch.Tensor) -> Statistics:
    """Those of many rows, without a copy of them in float64."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    square = 0.0
    for part in rows.split(_AT_ONCE):
        exact = part.double()
        total += exact.sum(0)
        square += float(exact.square().sum())
    return Statistics(total / len(rows), square / len(rows), len(rows))


def _coded(keys: Sequence[Hashable]) -> Any:
    """int64: the number of each key."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _check(batch: int, seed: int, buffer: int | None) -> None:
    for name, value, least in (("batch", batch, 1), ("seed", seed, 0), ("buffer", buffer, 1)):
        if value is not None and value < least:
            raise SpecError(
                f"{name} = {value} is too small.", subject=name, hint=f"Expected: {least} or more."
            )


def _check_samples(rows: Sequence[Rows], numbers: Any, together: Sequence[Hashable] | None) -> None:
    if not rows or len(numbers) == 0:
        raise DataError(
            "An SAE is trained on rows of samples, and was given none.",
            subject="samples",
            hint="Give rows of at least one sample.",
        )
    check_equal_samples(rows)
    if numbers.min() < 0 or numbers.max() >= len(rows[0]):
        raise DataError(
            f"There are {len(rows[0])} samples, and those from {numbers.min()} to {numbers.max()} "
            "are asked for.",
            subject="samples",
            hint="Numbers begin at 0.",
        )
    if together is not None and len(together) != len(numbers):
        raise DataError(
            f"{len(together)} keys were given for {len(numbers)} samples.",
            subject="together",
            hint="Give one key for each sample.",
        )
