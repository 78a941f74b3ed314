"""Logits of a model's own readout, for all of the vocabulary or a part of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmlens.abc import Readout
from vlmlens.errors import ReadoutError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Hidden = npt.NDArray[Any]
"""Rows of a residual stream, `[n, width]`, in any type that a store gives back."""

_LOWEST = -1e4
"""Stands for minus infinity, which would make 0 x inf of a token that cannot be written."""


class Vocabulary:
    """The final norm and unembedding of a model, with the size of its vocabulary.

    Args:
        readout: The model's own.
        row: `[width]`, any residual stream: tells the size, and that parts are parts of a whole.

    Raises:
        ReadoutError: A part of the unembedding does not give what all of it gives there.
    """

    def __init__(self, readout: Readout, row: npt.NDArray[Any]) -> None:
        self.readout = readout
        normed = self.norm(tensor(row)[None])
        whole = self.whole(normed)
        self.size = int(whole.shape[-1])
        self.device = whole.device
        self._check_parts(normed, whole)

    @property
    def divides(self) -> bool:
        """Whether a part of the vocabulary can be computed without the rest."""
        return self.readout.some is not None

    def norm(self, hidden: Tensor) -> Tensor:
        """What the unembedding reads, of a residual stream `[rows, width]`."""
        with torch.inference_mode():
            return self.readout.norm(hidden)

    def whole(self, normed: Tensor) -> Tensor:
        """float32 `[rows, vocabulary]`."""
        with torch.inference_mode():
            return self.readout.unembed(normed).float().clamp_(min=_LOWEST)

    def some(self, normed: Tensor, tokens: slice | Tensor) -> Tensor:
        """float32 `[rows, tokens]`; only where the vocabulary `divides`."""
        assert self.readout.some is not None  # noqa: S101
        with torch.inference_mode():
            return self.readout.some(normed, tokens).float()

    def pieces(self, size: int) -> Iterator[slice]:
        """The vocabulary in pieces of at most `size` tokens."""
        for start in range(0, self.size, size):
            yield slice(start, min(start + size, self.size))

    def _check_parts(self, normed: Tensor, whole: Tensor) -> None:
        if not self.divides:
            return
        tokens = torch.linspace(0, self.size - 1, 64, device=whole.device).long()
        part = self.some(normed, tokens)
        scale = whole.abs().max().clamp(min=1e-9)
        if part.shape != (1, len(tokens)) or (part - whole[:, tokens]).abs().max() > 1e-2 * scale:
            raise ReadoutError(
                "A part of the unembedding does not give the logits that all of it gives.",
                subject=self.readout.site,
                hint="The adapter's readout is wrong; report the adapter.",
            )


def tensor(rows: npt.NDArray[Any]) -> Tensor:
    """A tensor of its own: stored rows may lie in memory that nobody may write to."""
    return torch.from_numpy(np.array(rows))


def stacked(rows: Sequence[npt.NDArray[Any]], vocabulary: Vocabulary, *, norm: bool) -> Tensor:
    """`[len(rows) * n, width]`: layers below each other, as the unembedding reads them."""
    parts = [tensor(each) for each in rows]
    return torch.cat([vocabulary.norm(part) if norm else part for part in parts])
