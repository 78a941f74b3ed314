"""Whole rows, pooled by sample: for dense probes, and to say how alike pictures are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from vlmlens_plugins.analysis.sae.judging.probing import Dense
from vlmlens_plugins.sae import Rows

Singles = npt.NDArray[np.float32]
_AT_ONCE = 32


def pooled_rows(rows: Rows, samples: Sequence[int]) -> Dense:
    """Mean and largest value of each dimension over the rows of each sample."""
    return Dense(tuple(samples), _pooled(rows, samples, _mean_and_largest))


def embedded(rows: Rows | None, samples: Sequence[int]) -> Singles | None:
    """float32 `[samples, width]`: the mean row of each sample; zeros without rows."""
    return None if rows is None else _pooled(rows, samples, lambda part: part.mean(0))


def _mean_and_largest(part: torch.Tensor) -> torch.Tensor:
    return torch.cat([part.mean(0), part.amax(0)])


def _pooled(
    rows: Rows, samples: Sequence[int], pool: Callable[[torch.Tensor], torch.Tensor]
) -> Singles:
    width = len(pool(torch.zeros(1, rows.width)))
    found = np.zeros((len(samples), width), np.float32)
    for start in range(0, len(samples), _AT_ONCE):
        for place, part in enumerate(rows.read(samples[start : start + _AT_ONCE]), start):
            if len(part):
                found[place] = pool(part.float()).numpy()
    return found
