"""Products of head matrices through small factors: spectra, signs and composition.

No product of two matrices of the model's width is ever made: a head's `output.T @ value` has the
eigenvalues of `value @ output.T`, and its singular values are those of a product of two roots.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from vlmlens_plugins.analysis.weights.matrices import HeadMatrices

KINDS = ("Q", "K", "V")
_NOTHING = 1e-12
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Factors:
    """What composition needs of one block's heads.

    Args:
        matrices: Of the block.
    """

    matrices: HeadMatrices

    @cached_property
    def value_root(self) -> torch.Tensor:
        """`[heads, size, size]`: R with `R.T @ R = value @ value.T`; the others likewise."""
        return root(self.matrices.value)

    @cached_property
    def output_root(self) -> torch.Tensor:
        """See `value_root`."""
        return root(self.matrices.output)

    @cached_property
    def query_root(self) -> torch.Tensor | None:
        """See `value_root`; None without queries."""
        return None if self.matrices.query is None else root(self.matrices.query)

    @cached_property
    def key_root(self) -> torch.Tensor | None:
        """See `value_root`; None without keys."""
        return None if self.matrices.key is None else root(self.matrices.key)

    @cached_property
    def ov(self) -> torch.Tensor:
        """float64 `[heads, size]`: the singular values of what a head writes of what it reads."""
        return singular(self.output_root, self.value_root)

    @cached_property
    def qk(self) -> torch.Tensor | None:
        """float64 `[heads, size]`: the singular values of a head's scores; None without them."""
        if self.query_root is None or self.key_root is None:
            return None
        return singular(self.query_root, self.key_root)


def root(rows: torch.Tensor) -> torch.Tensor:
    """float64 `[heads, size, size]`: R with `R.T @ R = rows @ rows.T`.

    Args:
        rows: `[heads, size, width]`.
    """
    exact = rows.double()
    gram = torch.einsum("hsw,htw->hst", exact, exact).cpu()
    values, vectors = torch.linalg.eigh(gram)
    found: torch.Tensor = values.clamp(min=0).sqrt()[..., None] * vectors.transpose(-1, -2)
    return found


def singular(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Singular values of `left_rows.T @ right_rows`, in descending order, from their roots."""
    found: torch.Tensor = torch.linalg.svdvals(left @ right.transpose(-1, -2))
    return found


def traces(left: torch.Tensor, right: torch.Tensor, values: torch.Tensor) -> list[float | None]:
    """Per head, the trace of `left.T @ right` over the sum of its singular values.

    It is 1 where everything is given back as it is read, 0 where it is given elsewhere; None for a
    head that does nothing.

    Args:
        left: `[heads, size, width]`.
        right: Likewise.
        values: `[heads, size]`, the singular values.
    """
    trace = torch.einsum("hsw,hsw->h", left.double(), right.double()).cpu()
    whole = values.sum(-1)
    return [
        float(up / down) if down > _NOTHING else None for up, down in zip(trace, whole, strict=True)
    ]


def eigenvalue_score(matrix: torch.Tensor, scale: float) -> float | None:
    """The sum of a matrix's eigenvalues over the sum of their sizes; None where all are 0.

    Args:
        matrix: `[size, size]`.
        scale: The size of the numbers that it was computed from, against which 0 is told.
    """
    exact = matrix.double().cpu().numpy()
    left, values, right = np.linalg.svd(exact)
    rank = int((values > _ROUNDING * max(scale, values[0])).sum())
    if not rank:
        return None
    # The same nonzero eigenvalues, without directions that are nothing but rounding.
    inner = values[:rank, None] * (right[:rank] @ left[:, :rank])
    whole = np.abs(np.linalg.eigvals(inner)).sum()
    return float(np.trace(inner) / whole) if whole > _ROUNDING * scale else None


@dataclass(frozen=True, slots=True)
class Composed:
    """How strongly heads read what heads of an earlier block write, in one way.

    Args:
        score: float64 `[heads, earlier heads]`, NaN where one of the two does nothing.
        mean: What random directions give, mean over draws; `deviation` likewise.
        deviation: See `mean`.
        p: The share of draws that reach the score.
        largest: `[draws]`: the largest standardised score of all pairs, each with draws of its own.
    """

    score: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor
    p: torch.Tensor
    largest: torch.Tensor


class Composition:
    """Composition scores beside those of randomly turned heads.

    The score of Elhage et al. (2021) is `|A @ B| / (|A| |B|)` in Frobenius norms, where B is what
    the earlier head writes (its OV matrix) and A is how the later one reads: QK of keys (K), QK of
    queries (Q), or its OV matrix (V). The baseline has the same singular values, and a random
    rotation between the two.

    Args:
        width: Of the residual stream.
        draws: Random rotations.
        seed: Of them.
    """

    def __init__(self, width: int, draws: int, seed: int) -> None:
        self._width, self._draws, self._seed = width, draws, seed
        self._corners: dict[tuple[int, int], torch.Tensor] = {}

    def scores(self, reader: Factors, writer: Factors, pair: str) -> dict[str, Composed]:
        """By kind; without Q and K where the reader has no queries and keys.

        Args:
            reader: The later block.
            writer: The earlier block.
            pair: Their names, from which it follows which draw stands beside which.
        """
        own = reader.matrices
        turns = torch.Generator().manual_seed(self._seed + zlib.crc32(pair.encode()))
        kinds = {
            "K": (reader.query_root, own.key, reader.qk, own.kv_count),
            "Q": (reader.key_root, own.query, reader.qk, len(own.value)),
            "V": (reader.output_root, own.value, reader.ov, own.kv_count),
        }
        found = {}
        for kind in KINDS:
            left, inner, spectrum, count = kinds[kind]
            if left is not None and inner is not None and spectrum is not None:
                norms = product_norms(left, inner, writer, count)
                found[kind] = self._beside_random(norms, spectrum, writer.ov, turns)
        return found

    def _beside_random(
        self,
        norms: torch.Tensor,
        reads: torch.Tensor,
        writes: torch.Tensor,
        turns: torch.Generator,
    ) -> Composed:
        shares = [each.square() / each.square().sum(-1, keepdim=True) for each in (reads, writes)]
        size = [each.square().sum(-1).sqrt() for each in (reads, writes)]
        score = norms / (size[0][:, None] * size[1])
        small = (size[0][:, None] <= _NOTHING) | (size[1] <= _NOTHING)
        score = torch.where(small, torch.nan, score)
        corner = self._corner(reads.shape[-1], writes.shape[-1])
        shares = [each[:, : corner.shape[i + 1]] for i, each in enumerate(shares)]
        random = torch.einsum("hi,nij,gj->nhg", shares[0], corner, shares[1]).sqrt()
        mean, deviation = random.mean(0), random.std(0)
        p = (1 + (random >= score - 1e-9).sum(0)) / (1 + self._draws)
        standard = torch.nan_to_num((random - mean) / deviation, nan=-torch.inf)
        turn = torch.randint(0, self._draws, score.shape, generator=turns)
        index = (torch.arange(self._draws)[:, None, None] + turn) % self._draws
        largest = standard.gather(0, index).amax((1, 2))
        return Composed(score, mean, deviation, p, largest)

    def _corner(self, rows: int, columns: int) -> torch.Tensor:
        """float64 `[draws, rows, columns]`: squared entries of corners of random rotations."""
        rows, columns = min(rows, self._width), min(columns, self._width)
        if (rows, columns) not in self._corners:
            random = torch.Generator().manual_seed(self._seed)
            drawn = []
            for _ in range(self._draws):
                normal = torch.randn(self._width, columns, generator=random, dtype=torch.float64)
                drawn.append(torch.linalg.qr(normal)[0][:rows].square())
            self._corners[rows, columns] = torch.stack(drawn)
        return self._corners[rows, columns]


def product_norms(
    left: torch.Tensor, inner: torch.Tensor, writer: Factors, count: int
) -> torch.Tensor:
    """float64 `[heads, earlier heads]`: Frobenius norms of how heads read what others write.

    Args:
        left: Roots of what stands before the read rows, `[heads, size, size]`.
        inner: What reads, `[heads, size, width]`.
        writer: The earlier block.
        count: How many of `inner` differ: heads that share keys and values are read once.
    """
    first = inner[:: len(inner) // count]
    shared = torch.equal(first.repeat_interleave(len(inner) // count, 0), inner)
    reads = first if shared else inner
    output = writer.matrices.output.to(reads)
    right = writer.value_root.transpose(-1, -2).to(reads)
    heads = []
    for number, outer in enumerate(left.to(reads)):
        own = reads[number * len(reads) // len(inner)]
        crossing = torch.einsum("sw,gtw->gst", own, output)
        heads.append((outer @ crossing @ right).double().square().sum((1, 2)).sqrt())
    return torch.stack(heads).cpu()


def strongest(composed: Composed, most: int) -> list[list[int]]:
    """Per reading head, the earlier heads with the highest scores; none that does nothing."""
    order = torch.nan_to_num(composed.score, nan=-1.0).argsort(dim=1, descending=True, stable=True)
    return [
        [int(g) for g in row[:most] if not composed.score[h, g].isnan()]
        for h, row in enumerate(order)
    ]


def participation(values: torch.Tensor) -> Sequence[float]:
    """Per head, how many directions carry its spectrum: (sum of squares)^2 / sum of 4th powers."""
    squares = values.square()
    fourth = squares.square().sum(-1)
    share = squares.sum(-1).square() / fourth.clamp(min=1e-300)
    found: list[float] = torch.where(fourth > 0, share, 0.0).tolist()
    return found
