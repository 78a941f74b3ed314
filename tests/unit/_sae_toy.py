"""A toy whose features are known: rows are sums of few of 48 directions in 32 dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vlmlens.samples import Sample
from vlmlens.tokens import PatchGrid, TokenKind, TokenLayout
from vlmlens_plugins.analysis.sae.held import split
from vlmlens_plugins.analysis.sae.judging import Material
from vlmlens_plugins.sae import About, Sae, TensorRows, TopK

WIDTH, FEATURES, IMAGE, TEXT = 32, 48, 24, 24
ROWS, SAMPLES, ACTIVE = 8, 200, 2
COLUMN = "llm.block.1/all"


@dataclass(frozen=True)
class Toy:
    """The rows, and what is true of them.

    Args:
        directions: float32 `[48, 32]`, of length 1; the first 24 occur in image rows, the others
            in text rows.
        codes: float32 `[rows, 48]`.
        mean: float32 `[32]`, added to all rows.
        rows: float32 `[rows, 32]`.
        samples: Attributes "first" (whether direction 0 occurs) and "coin" (at random).
    """

    directions: torch.Tensor
    codes: torch.Tensor
    mean: torch.Tensor
    rows: torch.Tensor
    samples: list[Sample]

    @classmethod
    def made(cls, seed: int = 0) -> Toy:
        """Draw one: of each sample 6 image rows, a grid of 2 by 3, and 2 text rows."""
        drawn = torch.Generator().manual_seed(seed)
        directions = torch.randn(FEATURES, WIDTH, generator=drawn)
        directions /= directions.norm(dim=1, keepdim=True)
        count = SAMPLES * ROWS
        text = torch.tensor(([False] * 6 + [True] * 2) * SAMPLES)
        fires = torch.zeros(count, FEATURES)
        for row in range(count):
            start = IMAGE if text[row] else 0
            chosen = start + torch.randperm(IMAGE, generator=drawn)[:ACTIVE]
            fires[row, chosen] = 1
        codes = fires * (0.5 + torch.rand(count, FEATURES, generator=drawn))
        mean = torch.randn(WIDTH, generator=drawn)
        has = codes.view(SAMPLES, ROWS, FEATURES)[:, :, 0].amax(1) > 0
        coins = torch.randint(2, (SAMPLES,), generator=drawn)
        samples = [
            Sample(
                f"s{i}", "What?", (f"{i}.png",), group=f"g{i // 2}", label="a" if has[i] else "b",
                task="first", attributes={"coin": "heads" if coins[i] else "tails"},
            )
            for i in range(SAMPLES)
        ]  # fmt: skip
        return cls(directions, codes, mean, codes @ directions + mean, samples)

    def sae(self, column: str = COLUMN) -> Sae:
        """The SAE that has the true directions, and codes that are nearly the true ones."""
        tied = self.directions.T.contiguous()
        none, about = torch.zeros(FEATURES), About(column=column)
        return Sae(tied, none, self.directions, self.mean, TopK(ACTIVE), about=about)

    def material(self, rows: torch.Tensor | None = None) -> Material:
        """What SAEs of the toy are judged on."""
        given = TensorRows(self.rows if rows is None else rows, [ROWS] * SAMPLES, COLUMN)
        return Material(
            given, self.samples, split(self.samples, COLUMN, 0.3, 0), layouts=layouts,
            embeddings=given, embedded=COLUMN,
        )  # fmt: skip


def layouts(samples: Sequence[int]) -> list[TokenLayout]:
    """Six patches in two rows of a grid, and two words."""
    row, col = np.divmod(np.arange(6), 3)
    box = np.stack([col / 3, row / 2, (col + 1) / 3, (row + 1) / 2], 1).astype(np.float32)
    grid = PatchGrid(
        np.zeros(6, np.int64), ("image",) * 6, row, col, np.full(6, 2), np.full(6, 3), box
    )
    kinds = np.array([TokenKind.IMAGE] * 6 + [TokenKind.TEXT] * 2, np.uint8)
    return [TokenLayout(np.arange(ROWS), kinds, None, grid) for _ in samples]
