"""Applying the model's final norm and unembedding to stored rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmlens_plugins.analysis.logit_lens.streaming_softmax import Running
from vlmlens_plugins.analysis.logit_lens.vocabulary import (
    Floats,
    Hidden,
    Ints,
    Vocabulary,
    stacked,
    tensor,
)

_MEGABYTE = 2**20
_ROWS_ON_CPU = 512
_PIECE_ON_CPU = 2**17
"""Logits of one layer that stay in a core's own cache while they are reduced."""
_LEAST_PIECE = 512
_EVEN = 64
"""Pieces of the vocabulary are multiples of it, where memory allows as many."""


@dataclass(frozen=True, slots=True)
class Readings:
    """Positions read at every layer; logarithms are natural, ranks begin with 1.

    Args:
        top: int64 `[layers, n, k]`, the most probable tokens, best first.
        top_probability: float32 `[layers, n, k]`.
        entropy: float32 `[layers, n]`, nats.
        divergence: float32 `[layers, n]`, nats: KL(final layer || this layer).
        answers: int64 `[n]`: the final layer's most probable tokens.
        answer_probability: float32 `[layers, n]`, of those.
        answer_rank: int64 `[layers, n]`.
        label_probability: float32 `[layers, n]`, of the label's first token; NaN without a label.
        label_rank: int64 `[layers, n]`; 0 without a label.
        word_probability: float32 `[layers, n, words]`, summed over a word's tokens.
        word_rank: int64 `[layers, n, words]`, of its best token, its other tokens left out.
    """

    top: Ints
    top_probability: Floats
    entropy: Floats
    divergence: Floats
    answers: Ints
    answer_probability: Floats
    answer_rank: Ints
    label_probability: Floats
    label_rank: Ints
    word_probability: Floats
    word_rank: Ints

    def take(self, rows: slice | Ints) -> Readings:
        """The readings of some positions."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return Readings(
            **{name: a[rows] if a.ndim == 1 else a[:, rows] for name, a in found.items()}
        )

    def of_top_token(self) -> Readings:
        """With the most probable token only, without its probability; integers as int32."""
        small = {
            each.name: array.astype(np.int32)
            for each in fields(self)
            if (array := getattr(self, each.name)).dtype == np.int64
        }
        small["top"] = small["top"][..., :1]
        return replace(self, **small, top_probability=self.top_probability[..., :0])

    @property
    def finite(self) -> npt.NDArray[np.bool_]:
        """Bool `[n]`: whether a position's logits are finite at all layers."""
        found: npt.NDArray[np.bool_] = np.isfinite(self.entropy + self.divergence).all(0)
        return found

    @property
    def settled(self) -> Ints:
        """int64 `[n]`: the layer from which the answer stays top-1; see `settling`."""
        return settling(self.top[..., 0], self.answers)

    def __len__(self) -> int:
        return len(self.answers)


def joined(parts: Sequence[Readings]) -> Readings:
    """Readings of the same layers, one after the other."""
    found = {each.name: [getattr(part, each.name) for part in parts] for each in fields(Readings)}
    return Readings(
        **{name: np.concatenate(a, 0 if a[0].ndim == 1 else 1) for name, a in found.items()}
    )


class Placed:
    """Readings of many positions, put together in any order.

    Args:
        count: How many positions there are.
    """

    def __init__(self, count: int) -> None:
        self._count, self.done = count, 0
        self._arrays: dict[str, npt.NDArray[Any]] = {}

    def put(self, places: Ints, part: Readings) -> None:
        """Put some of them where they belong."""
        for each in fields(part):
            own = getattr(part, each.name)
            axis = min(own.ndim, 2) - 1
            if each.name not in self._arrays:
                shape = (*own.shape[:axis], self._count, *own.shape[axis + 1 :])
                self._arrays[each.name] = np.empty(shape, own.dtype)
            self._arrays[each.name][(slice(None),) * axis + (places,)] = own
        self.done += len(places)

    @property
    def readings(self) -> Readings:
        """All of them."""
        return Readings(**self._arrays)


@dataclass(frozen=True, slots=True)
class Reader:
    """How positions are read.

    Args:
        vocabulary: Final norm and unembedding.
        k: How many top tokens to keep.
        norm: Whether the final norm is applied; the final layer always has it.
        words: int64 tokens of each chosen word.
        megabytes: About how much memory the reading may take beyond its input and output.
        translate: What is done to a layer's rows first (a learned lens), given its number.
    """

    vocabulary: Vocabulary
    k: int = 5
    norm: bool = True
    words: Sequence[Ints] = ()
    megabytes: float = 256.0
    translate: Callable[[int, Tensor], Tensor] | None = None

    def read(
        self,
        layers: Sequence[Hidden],
        final: Hidden,
        labels: Ints | None = None,
        *,
        same: int | None = None,
    ) -> Readings:
        """Read positions, some rows and a piece of the vocabulary at a time.

        Args:
            layers: Per layer `[n, width]`, a residual stream.
            final: `[n, width]`, what the model itself answers from.
            labels: int64 `[n]`, a token to follow at each position; -1 for none.
            same: The layer whose rows are `final`, which is then computed once.
        """
        labels = np.full(len(final), -1) if labels is None else labels
        shared = same if self.norm and self.translate is None else None
        return joined(
            [
                _Block(self, [each[rows] for each in layers], final[rows], shared).read(
                    labels[rows]
                )
                for rows in self._row_blocks(len(layers), *final.shape)
            ]
        )

    @property
    def _bytes(self) -> int:
        return int(self.megabytes * _MEGABYTE)

    def _row_blocks(self, layers: int, n: int, width: int) -> Iterator[slice]:
        of_logits = self._bytes // (8 * self.vocabulary.size)
        of_rows = self._bytes // (32 * layers * width)
        most = max(1, min(of_logits, of_rows, n))
        if self.vocabulary.device.type == "cpu":
            most = min(most, _ROWS_ON_CPU)
        size = -(-n // -(-n // most))
        return (slice(start, min(start + size, n)) for start in range(0, n, size))

    def piece(self, layers: int, rows: int) -> int:
        """How many tokens of the vocabulary to take at once."""
        most = self._bytes // (16 * layers * rows)
        if self.vocabulary.device.type == "cpu":
            most = min(most, max(_LEAST_PIECE, _PIECE_ON_CPU // rows))
        even = most - most % _EVEN or most
        return max(1, min(even, self.vocabulary.size))


class _Block:
    """Some positions at all layers.

    The final layer's logits are kept, `[rows, vocabulary]`; those of the others never are.
    """

    def __init__(
        self, reader: Reader, layers: Sequence[Hidden], final: Hidden, shared: int | None
    ) -> None:
        self._reader, self._vocabulary = reader, reader.vocabulary
        self._layers, self._rows, self._shared = layers, len(final), shared
        self._final = self._whole(self._vocabulary.norm(tensor(final)))
        own = Running(self._final.new_empty((1, self._rows, 0)), 1)
        for piece in self._vocabulary.pieces(reader.piece(1, self._rows)):
            own.add(self._final[None, :, piece], piece.start)
        self.answers = own.tokens[0, :, 0]
        self._log_sum = own.log_sum()[0, :, None].float()
        self._entropy = own.entropy()[0]

    def read(self, labels: Ints) -> Readings:
        """The block's readings."""
        followed = torch.stack([self.answers, torch.from_numpy(labels).to(self.answers)], -1)
        others = [i for i in range(len(self._layers)) if i != self._shared]
        groups = [others] if self._vocabulary.divides else [[i] for i in others]
        parts = {i: part for group in groups if group for i, part in self._read(group, followed)}
        if self._shared is not None:
            parts[self._shared] = self._read_whole(self._final[None], followed)
        order = [parts[i] for i in range(len(self._layers))]
        stack = [torch.stack(tensors).cpu().numpy() for tensors in zip(*order, strict=True)]
        return self._named(stack, labels)

    def _read(
        self, group: Sequence[int], followed: Tensor
    ) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        normed = self._normed(group)
        if not self._vocabulary.divides:
            yield group[0], self._read_whole(self._vocabulary.whole(normed)[None], followed)
            return
        shape = (len(group), self._rows)
        tally = _Tally(self._reader, followed, self._some(normed, followed, shape))
        for piece in self._vocabulary.pieces(self._reader.piece(*shape)):
            logits = self._vocabulary.some(normed, piece).view(*shape, -1)
            tally.add(logits, piece, self._weights(piece))
        divergence = (tally.running.cross_entropy() - self._entropy).clamp(min=0)
        yield from zip(group, tally.result(divergence), strict=True)

    def _read_whole(self, logits: Tensor, followed: Tensor) -> tuple[Tensor, ...]:
        """One layer whose logits `[1, rows, vocabulary]` are there."""
        wanted = [logits[0].gather(-1, followed.clamp(min=0))[None]]
        wanted += [logits[..., torch.from_numpy(word).to(logits.device)] for word in self._words]
        tally = _Tally(self._reader, followed, wanted)
        for piece in self._vocabulary.pieces(self._reader.piece(1, self._rows)):
            tally.add(logits[..., piece], piece, self._weights(piece))
        divergence = (tally.running.cross_entropy() - self._entropy).clamp(min=0)
        return next(iter(tally.result(divergence)))

    @property
    def _words(self) -> Sequence[Ints]:
        return self._reader.words

    def _weights(self, piece: slice) -> Tensor:
        return (self._final[:, piece] - self._log_sum).exp_()

    def _whole(self, normed: Tensor) -> Tensor:
        if not self._vocabulary.divides:
            return self._vocabulary.whole(normed)
        logits = torch.empty(
            (len(normed), self._vocabulary.size), dtype=torch.float32, device=normed.device
        )
        for piece in self._vocabulary.pieces(self._reader.piece(1, len(normed))):
            logits[:, piece] = self._vocabulary.some(normed, piece)
        return logits

    def _normed(self, group: Sequence[int]) -> Tensor:
        translate = self._reader.translate
        if translate is None:
            rows = [self._layers[i] for i in group]
            return stacked(rows, self._vocabulary, norm=self._reader.norm)
        moved = [translate(i, tensor(self._layers[i]).float()) for i in group]
        return torch.cat([self._vocabulary.norm(x) if self._reader.norm else x for x in moved])

    def _some(self, normed: Tensor, followed: Tensor, shape: tuple[int, int]) -> list[Tensor]:
        """Logits of the followed tokens `[layers, rows, 2]`, then of each word's tokens."""
        unique, places = followed.clamp(min=0).unique(return_inverse=True)
        each = self._vocabulary.some(normed, unique).view(*shape, -1)
        found = [each.gather(-1, places.expand(*shape[:1], *places.shape))]
        for word in self._words:
            tokens = torch.from_numpy(word).to(unique.device)
            found.append(self._vocabulary.some(normed, tokens).view(*shape, -1))
        return found

    def _named(self, stack: Sequence[npt.NDArray[np.generic]], labels: Ints) -> Readings:
        top, top_probability, entropy, divergence, logs, ranks = stack
        probability, rank = np.exp(logs).astype(np.float32), ranks.astype(np.int64)
        known = labels >= 0
        return Readings(
            top=top.astype(np.int64),
            top_probability=top_probability.astype(np.float32),
            entropy=entropy.astype(np.float32),
            divergence=divergence.astype(np.float32),
            answers=self.answers.cpu().numpy(),
            answer_probability=probability[..., 0],
            answer_rank=rank[..., 0],
            label_probability=np.where(known, probability[..., 1], np.nan).astype(np.float32),
            label_rank=np.where(known, rank[..., 1], 0),
            word_probability=probability[..., 2:],
            word_rank=rank[..., 2:],
        )


class _Tally:
    """Running statistics of a block, and ranks in which no token is counted above itself.

    A logit computed alone may differ in its last bit from the same one among many.
    """

    def __init__(self, reader: Reader, followed: Tensor, wanted: Sequence[Tensor]) -> None:
        self._followed, self._words = followed, [torch.from_numpy(w) for w in reader.words]
        best = [wanted[0], *(logits.amax(-1, keepdim=True) for logits in wanted[1:])]
        joint = [wanted[0], *(logits.logsumexp(-1, keepdim=True) for logits in wanted[1:])]
        self._above, self._wanted = torch.cat(best, -1), torch.cat(joint, -1)
        self.running = Running(self._above, min(reader.k, reader.vocabulary.size))

    def add(self, logits: Tensor, piece: slice, final: Tensor) -> None:
        """Take in a piece of the vocabulary, `[layers, rows, piece]`."""
        self.running.add(logits, piece.start, final)
        self._leave_out_own(logits, piece)

    def result(self, divergence: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Per layer: top tokens, their probabilities, entropy, divergence, log p, ranks."""
        log_sum = self.running.log_sum()[..., None]
        top = (self.running.top - log_sum).exp()
        logs = self._wanted - log_sum
        parts = (self.running.tokens, top, self.running.entropy(), divergence, logs)
        return zip(*parts, self.running.counts + 1, strict=True)

    def _leave_out_own(self, logits: Tensor, piece: slice) -> None:
        width = piece.stop - piece.start
        inside = (self._followed >= piece.start) & (self._followed < piece.stop)
        places = (self._followed - piece.start).clamp(0, width - 1)
        own = logits.gather(-1, places.expand(len(logits), *places.shape))
        self.running.counts[..., :2] -= (inside & (own > self._above[..., :2])).long()
        for i, word in enumerate(self._words, 2):
            here = word[(word >= piece.start) & (word < piece.stop)] - piece.start
            if len(here):
                over = logits[..., here.to(logits.device)] > self._above[..., i, None]
                self.running.counts[..., i] -= over.sum(-1)


def settling(top: Ints, answers: Ints) -> Ints:
    """int64 `[n]`: the first layer from which the answer stays top-1 to the end.

    Args:
        top: int64 `[layers, n]`, top-1 tokens.
        answers: int64 `[n]`.

    Returns:
        The layer's number, or the number of layers where it is not top-1 at the last one.

    >>> settling(np.array([[7, 7], [1, 7], [7, 7]]), np.array([7, 7])).tolist()
    [2, 0]
    """
    wrong = top != answers
    backwards = wrong[::-1].argmax(0)
    layers = len(top)
    return np.where(wrong.any(0), layers - backwards, 0).astype(np.int64)
