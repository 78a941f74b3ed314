"""One pass over samples: how strongly each feature fires in each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array, vstack

from vlmlens_plugins.sae import Rows, Sae, in_pieces

_AT_ONCE = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Peaks:
    """What the features do in some samples.

    Args:
        samples: Numbers of the samples, `[s]`.
        largest: float32 sparse `[s, features]`: the largest code among a sample's rows.
        mean: float32 sparse `[s, features]`: the mean code of a sample's rows.
        rows: int64 `[s]`: how many rows each sample has.
        fired: int64 `[features]`: in how many rows each feature fires.
        total: float64 `[features]`: the sum of its codes.
    """

    samples: tuple[int, ...]
    largest: csr_array
    mean: csr_array
    rows: npt.NDArray[np.int64]
    fired: npt.NDArray[np.int64]
    total: npt.NDArray[np.float64]

    @property
    def density(self) -> npt.NDArray[np.float64]:
        """float64 `[features]`: the share of rows in which each feature fires."""
        return self.fired / max(1, int(self.rows.sum()))


def peaks(
    sae: Sae,
    rows: Rows,
    samples: Sequence[int],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Peaks:
    """Encode the rows of samples, some samples at a time.

    Args:
        sae: The SAE.
        rows: Its rows.
        samples: Numbers of samples.
        progress: Called with (samples done, all).
    """
    largest, means, lengths = [], [], []
    fired = np.zeros(sae.features, np.int64)
    total = np.zeros(sae.features)
    for start, parts in in_pieces(rows, samples, _AT_ONCE):
        codes = sae.codes(torch.cat(parts))
        fired += np.bincount(codes.indices, minlength=sae.features)
        total += np.bincount(codes.indices, codes.data, minlength=sae.features)
        ends = np.cumsum([len(part) for part in parts])
        for part, end in zip(parts, ends, strict=True):
            own = codes[end - len(part) : end]
            lengths.append(len(part))
            largest.append(_row(own.max(axis=0) if len(part) else None, sae.features))
            means.append(_row(own.sum(axis=0) / len(part) if len(part) else None, sae.features))
        progress(start + len(parts), len(samples))
    return Peaks(
        tuple(samples), _stacked(largest, sae.features), _stacked(means, sae.features),
        np.array(lengths, np.int64), fired, total,
    )  # fmt: skip


def _row(values: object, features: int) -> csr_array:
    if values is None:
        return csr_array((1, features), dtype=np.float32)
    dense = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    return csr_array(dense.reshape(1, -1).astype(np.float32))


def _stacked(parts: Sequence[csr_array], features: int) -> csr_array:
    found: csr_array = vstack([csr_array((0, features), dtype=np.float32), *parts], format="csr")
    return found
