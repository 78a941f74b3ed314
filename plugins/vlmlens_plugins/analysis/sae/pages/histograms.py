"""How large the codes of features are where they fire, in some held-out samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.sae.pages.shown import row_codes
from vlmlens_plugins.analysis.sae.peaks import Peaks
from vlmlens_plugins.sae import Rows, Sae

_ROWS = 20_000
_BINS, _PER_OCTAVE = 64, 2
EDGES = 2.0 ** ((np.arange(_BINS + 1) - _BINS // 2) / _PER_OCTAVE)
"""float64 `[bins + 1]`: half octaves. The first and the last bin take what is beyond."""


@dataclass(frozen=True, slots=True)
class Histograms:
    """The positive codes of some features by size.

    Args:
        sizes: int64 `[features, bins]`.
        rows: How many rows were looked at.
    """

    sizes: npt.NDArray[np.int64]
    rows: int

    def of(self, place: int) -> tuple[list[float], list[int]]:
        """Edges and counts of one feature, from the first bin to the last that holds a code."""
        full = np.flatnonzero(self.sizes[place])
        if not len(full):
            return [], []
        first, last = int(full[0]), int(full[-1])
        edges = [float(f"{edge:.4g}") for edge in EDGES[first : last + 2]]
        return edges, self.sizes[place, first : last + 1].tolist()


def histograms(sae: Sae, rows: Rows, held: Peaks, numbers: Sequence[int], seed: int) -> Histograms:
    """Count codes in random samples of those in `held`: whole samples, up to 20,000 rows.

    Args:
        sae: The SAE.
        rows: Its rows.
        held: Of the samples.
        numbers: The features.
        seed: Of the random samples.
    """
    order = generator(seed, "sae", "histograms").permutation(len(held.samples))
    behind = np.cumsum(held.rows[order])
    some = order[: max(1, int(np.searchsorted(behind, _ROWS, side="right")))]
    sizes = np.zeros((len(numbers), _BINS), np.int64)
    for _, codes in row_codes(sae, rows, [held.samples[i] for i in some], numbers):
        _add(sizes, codes)
    return Histograms(sizes, int(held.rows[some].sum()))


def _add(sizes: npt.NDArray[np.int64], codes: csr_array) -> None:
    positive = codes.data > 0
    places = np.searchsorted(EDGES, codes.data[positive], side="right") - 1
    np.add.at(sizes, (codes.indices[positive], places.clip(0, _BINS - 1)), 1)
