"""Blocks: the rows of some samples, in memory, in an order that is new in each epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.errors import DataError
from vlmlens_plugins.sae.feeding.joined import SomeRows, check_equal_counts
from vlmlens_plugins.sae.rows import Rows

Numbers = npt.NDArray[np.int64]
_PROBED = 16
_PIECES = 8
_MOST_SAMPLES = 2**10


class Place(NamedTuple):
    """Where a block begins: an epoch, and how many of its samples come before."""

    epoch: int
    first: int


class Block(NamedTuple):
    """Rows that are in memory together.

    Args:
        rows: float32 `[n, width]` for each width.
        order: int64 `[n]`: the order in which they are handed out.
        following: Where the next block begins.
    """

    rows: tuple[torch.Tensor, ...]
    order: torch.Tensor
    following: Place


@dataclass(frozen=True, slots=True)
class Sizes:
    """How rows are cut into blocks.

    Args:
        block: The most rows of a block, if no sample alone has more.
        piece: How many samples are read at a time.
        mean: About how many rows a sample has.
    """

    block: int
    piece: int
    mean: float

    @classmethod
    def of(cls, part: Rows, samples: Numbers, seed: int, block: int) -> Sizes:
        """Those that suit some rows. A few samples are read."""
        some = np.random.default_rng([seed, 6]).permutation(samples)[:_PROBED].tolist()
        mean = sum(map(len, _of_epoch(part, 0).read(some))) / len(some)
        piece = round(block / _PIECES / max(mean, 1e-9)) if mean else _PROBED
        return cls(block, min(max(piece, 1), _MOST_SAMPLES), mean)

    def limit(self, samples: int) -> int:
        """The most rows of the next block, when so many samples are left.

        The last two blocks of an epoch are about equally large, so that each mixes many samples.
        """
        left = samples * self.mean
        return math.ceil(left / 2) if self.block < left < 2 * self.block else self.block


class Piece(NamedTuple):
    """Samples that are read together.

    Args:
        samples: Their numbers.
        before: How many samples of the epoch come before.
    """

    samples: Numbers
    before: int


class Order:
    """The order of samples in each epoch.

    Samples are put into pieces once, at random; the order of the pieces is new in each epoch. So
    the same samples are read together every time, which rows from passes depend on.

    Args:
        samples: Numbers of samples.
        seed: Of the orders.
        size: How many samples a piece has, if none of those that belong together are parted.
        together: For each sample a number that those have in common which belong together; None:
            each is by itself.
    """

    def __init__(
        self, samples: Numbers, seed: int, size: int, together: Numbers | None = None
    ) -> None:
        groups = np.arange(len(samples)) if together is None else together
        ranks = np.random.default_rng([seed, 3]).permutation(int(groups.max(initial=-1)) + 1)
        order = np.argsort(ranks[groups], kind="stable")
        self._samples, self._seed = samples[order], seed
        ends = np.append(np.flatnonzero(np.diff(groups[order])) + 1, len(samples))
        cuts = np.searchsorted(ends, np.arange(size, len(samples), size))
        self._edges = np.unique([0, *ends[cuts], len(samples)])
        self._known: tuple[int, Numbers, Numbers] | None = None

    def __len__(self) -> int:
        return len(self._samples)

    def piece(self, epoch: int, first: int) -> Piece:
        """The piece that has the sample with this place in the order of an epoch."""
        pieces, starts = self._pieces(epoch)
        number = int(np.searchsorted(starts, first, side="right")) - 1
        which = int(pieces[number])
        samples = self._samples[self._edges[which] : self._edges[which + 1]]
        return Piece(samples, int(starts[number]))

    def _pieces(self, epoch: int) -> tuple[Numbers, Numbers]:
        """The order of pieces, and where each begins."""
        if self._known is None or self._known[0] != epoch:
            random = np.random.default_rng([self._seed, 5, epoch])
            pieces = random.permutation(len(self._edges) - 1)
            lengths = np.diff(self._edges)[pieces]
            self._known = epoch, pieces, np.cumsum(lengths) - lengths
        return self._known[1:]

    def rows(self, place: Place, count: int) -> torch.Tensor:
        """int64 `[count]`: the order of the rows of a block."""
        words = [self._seed, 4, place.epoch, place.first]
        seed = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
        random = torch.Generator().manual_seed(seed >> 1)
        return torch.randperm(count, generator=random)


class Blocks:
    """Reads blocks, one after the other, into two pieces of memory in turn.

    Args:
        parts: The rows; several have equal numbers of rows in each sample.
        order: The order of samples.
        sizes: How they are cut.
        whole: Whether it is known that the first block has all rows.
    """

    def __init__(
        self, parts: Sequence[Rows], order: Order, sizes: Sizes, *, whole: bool = False
    ) -> None:
        self._parts, self._order, self._sizes = parts, order, sizes
        self._of_all = whole
        self._memory: list[list[torch.Tensor]] = []
        self._piece: tuple[int, int] | None = None
        self._read: list[list[torch.Tensor]] = []
        self._whole: tuple[torch.Tensor, ...] | None = None
        """All rows, in the order of the first epoch, if they fit."""
        self.stopped = False

    def read(self, place: Place) -> Block:
        """The block that begins at a place. The block before the last one is overwritten.

        Raises:
            DataError: No sample has a row, or a sample has other numbers of rows in its parts.
        """
        if self._whole is not None:
            order = self._order.rows(place, len(self._whole[0]))
            return Block(self._whole, order, Place(place.epoch + 1, 0))
        rows, first = self._filled(Place(0, 0) if self._of_all else place)
        if place.first == 0 and len(rows[0]) == 0 and not self.stopped:
            raise self._nothing()
        ended = first == len(self._order)
        if ended and place.first == 0 and not any(map(_redrawn, self._parts)):
            self._whole = rows
        following = Place(place.epoch + 1, 0) if ended else Place(place.epoch, first)
        return Block(rows, self._order.rows(place, len(rows[0])), following)

    @property
    def whole(self) -> bool:
        """Whether one block has all rows, so that they are not read again."""
        return self._whole is not None

    def _filled(self, place: Place) -> tuple[tuple[torch.Tensor, ...], int]:
        """The rows of a block, and how many samples of the epoch are read then."""
        every = len(self._order)
        limit = self._sizes.limit(every - place.first)
        first, filled = place.first, 0
        memory = self._next_memory()
        while first < every and not self.stopped:
            piece = self._order.piece(place.epoch, first)
            parts = self._parts_of(place.epoch, piece)
            skipped = first - piece.before
            lengths = np.array([len(rows) for rows in parts[0][skipped:]])
            fits = int((filled + lengths.cumsum() <= limit).sum())
            if not fits and filled:
                break
            fits = max(fits, 1)
            end = filled + int(lengths[:fits].sum())
            for i, part in enumerate(parts):
                memory[i] = _enlarged(memory[i], end, filled)
                torch.cat(part[skipped : skipped + fits], out=memory[i][filled:end])
            first, filled = first + fits, end
            if fits < len(lengths):
                break
        return tuple(each[:filled] for each in memory), first

    def _next_memory(self) -> list[torch.Tensor]:
        if len(self._memory) < 2:
            made = [torch.empty(self._sizes.block, part.width) for part in self._parts]
            self._memory.append(made)
        else:
            self._memory.reverse()
        return list(self._memory[-1])

    def _parts_of(self, epoch: int, piece: Piece) -> list[list[torch.Tensor]]:
        """The rows of a piece. The last one is kept: a block may end in it."""
        if self._piece != (epoch, piece.before):
            self._read = []
            some = piece.samples.tolist()
            parts = [_of_epoch(part, epoch).read(some) for part in self._parts]
            check_equal_counts(self._parts, parts, some)
            self._piece, self._read = (epoch, piece.before), parts
        return self._read

    def _nothing(self) -> DataError:
        name = self._parts[0].column
        return DataError(
            f"None of {len(self._order)} samples has a row in {name or 'the rows'}.",
            subject=name,
            hint="Choose another column, or samples that have such rows.",
        )


def _of_epoch(part: Rows, epoch: int) -> Rows:
    return part.of_epoch(epoch) if isinstance(part, SomeRows) else part


def _redrawn(part: Rows) -> bool:
    return isinstance(part, SomeRows) and not part.fixed


def _enlarged(memory: torch.Tensor, rows: int, filled: int) -> torch.Tensor:
    """Memory for so many rows, with those that are filled: more for a sample with very many."""
    if rows <= len(memory):
        return memory
    larger = torch.empty(rows, memory.shape[1])
    larger[:filled] = memory[:filled]
    return larger
