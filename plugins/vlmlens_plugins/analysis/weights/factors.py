"""Products of head matrices through small factors: spectra, signs and composition.

No product of two matrices of the model's width is ever made: a head's `output.T @ value` has the
eigenvalues of `value @ output.T`, and its singular values are those of a product of two roots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from vlmlens_plugins.analysis.weights.matrices import HeadMatrices

KINDS = ("Q", "K", "V")
_NOTHING = 1e-12
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Writer:
    """What later blocks need of a block's heads.

    Args:
        output: `[heads, size, width]`.
        value_root: See `Factors`.
        ov: See `Factors`.
    """

    output: torch.Tensor
    value_root: torch.Tensor
    ov: torch.Tensor


@dataclass(frozen=True)
class Factors:
    """The heads of one block, with roots of their matrices.

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

    def writer(self) -> Writer:
        """What later blocks need; all else can be forgotten."""
        return Writer(self.matrices.output, self.value_root, self.ov)


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
    if np.linalg.norm(exact) <= _ROUNDING * scale:
        return None
    whole = np.abs(_eigenvalues(exact)).sum()
    return float(np.trace(exact) / whole) if whole > _ROUNDING * scale else None


def _eigenvalues(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
    """The eigenvalues of a matrix that may have many equal ones."""
    try:
        return np.linalg.eigvals(matrix).astype(np.complex128)
    except np.linalg.LinAlgError:  # without the directions that are nothing but rounding
        left, values, right = np.linalg.svd(matrix)
        rank = int((values > _ROUNDING * values[0]).sum())
        inner = values[:rank, None] * (right[:rank] @ left[:, :rank])
        return np.linalg.eigvals(inner).astype(np.complex128)


@dataclass(frozen=True, slots=True)
class Composed:
    """How strongly heads read what heads of an earlier block write, in one way.

    Args:
        score: float64 `[heads, earlier heads]`, NaN where one of the two does nothing.
        p: How often two heads with the same singular values, turned at random, reach it.
    """

    score: torch.Tensor
    p: torch.Tensor


def compose(reader: Factors, writer: Writer) -> dict[str, Composed]:
    """Composition scores by kind; without Q and K where the reader has no queries and keys.

    The score of Elhage et al. (2021) is `|A @ B| / (|A| |B|)` in Frobenius norms, where B is what
    the earlier head writes (its OV matrix) and A is how the later one reads: QK of keys (K), QK of
    queries (Q), or its OV matrix (V).

    Args:
        reader: The later block.
        writer: The earlier block.
    """
    own = reader.matrices
    kinds = {
        "Q": (reader.key_root, own.query, reader.qk, len(own.value)),
        "K": (reader.query_root, own.key, reader.qk, own.kv_count),
        "V": (reader.output_root, own.value, reader.ov, own.kv_count),
    }
    found = {}
    for kind, (left, inner, spectrum, count) in kinds.items():
        if left is not None and inner is not None and spectrum is not None:
            norms = product_norms(left, inner, writer, count)
            sizes = spectrum.norm(dim=-1)[:, None] * writer.ov.norm(dim=-1)
            score = torch.where(sizes > _NOTHING, norms / sizes, torch.nan)
            width = own.value.shape[-1]
            found[kind] = Composed(score, chance(score, spectrum, writer.ov, width))
    return found


def chance(
    score: torch.Tensor, reads: torch.Tensor, writes: torch.Tensor, width: int
) -> torch.Tensor:
    """How often matrices with these singular values reach a score, turned by a random rotation.

    The squared score is then `sum(a_i b_j U_ij^2)`, with U a random rotation (Haar) and a, b the
    shares of the squared singular values. Its mean is 1 / width and its variance is known exactly;
    the skewness is that of normal entries, which is rather too large. Its tail is that of the
    chi-squared distribution with the same three moments (J. Imhof, "Computing the distribution of
    quadratic forms in normal variables", Biometrika 48 (1961)).

    Args:
        score: float64 `[heads, earlier heads]`.
        reads: `[heads, size]`, singular values.
        writes: `[earlier heads, size]`, likewise.
        width: Of the residual stream, at least 2.
    """
    shares = [each.square() / each.square().sum(-1, keepdim=True) for each in (reads, writes)]
    second = [each.square().sum(-1) for each in shares]
    third = [each.pow(3).sum(-1) for each in shares]
    one, other = second[0][:, None], second[1][None]
    pairs = width * (width + 2)
    apart = (1 - one) * (1 - other) * (width + 1) / (pairs * (width - 1))
    variance = (3 * one * other + one * (1 - other) + (1 - one) * other) / pairs + apart
    variance = (variance - 1 / width**2).clamp(min=1e-30)
    skewness = 8**0.5 * third[0][:, None] * third[1] / (one * other) ** 1.5
    freedom = 8 / skewness.square()
    standard = (score.square() - 1 / width) / variance.sqrt()
    place = (freedom + standard * (2 * freedom).sqrt()).clamp(min=0)
    found: torch.Tensor = torch.special.gammaincc(freedom / 2, place / 2)
    return found


def product_norms(
    left: torch.Tensor, inner: torch.Tensor, writer: Writer, count: int
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
    output, right = (
        each.to(reads) for each in (writer.output, writer.value_root.transpose(-1, -2))
    )
    norms = []
    for own, outer in zip(reads, left.to(reads).chunk(len(reads)), strict=True):
        crossing = torch.einsum("sw,gtw->gst", own, output) @ right
        norms.append((outer[:, None] @ crossing).double().square().sum((2, 3)).sqrt())
    return torch.cat(norms).cpu()


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
