"""Linear CKA of columns without the bias of few samples, in bounded memory; numpy only.

Columns are compared on *blocks* of samples. No two samples of a block are of one group: what a
group shares (five questions about one picture have the same image rows) counts as one observation.
A block's estimate is unbiased whatever its size, so the mean over blocks is too.

It uses nothing of vlmlens. Its jackknife and inner products serve other measures, too.
"""

from __future__ import annotations

from vlmlens.cka._blocks import LEAST_SAMPLES, blocks_of, drawn, folds_of
from vlmlens.cka._estimate import BLOCK, Cka, Reader, linear_cka, unbiased_cka
from vlmlens.cka._jackknife import (
    LEAST_GROUPS,
    Floats,
    Ints,
    Similarities,
    as_cosines,
    jackknife,
    products,
)

__all__ = [
    "BLOCK",
    "LEAST_GROUPS",
    "LEAST_SAMPLES",
    "Cka",
    "Floats",
    "Ints",
    "Reader",
    "Similarities",
    "as_cosines",
    "blocks_of",
    "drawn",
    "folds_of",
    "jackknife",
    "linear_cka",
    "products",
    "unbiased_cka",
]
