"""Shapes of the model that is checked: a LLaVA with random weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """A LLaVA: a CLIP tower, a projector of two layers, a Llama.

    Args:
        name: Its name.
        width: Of the language model.
        inner: Of its MLPs.
        blocks: How many it has.
        heads: Per block.
        vocabulary: Token ids.
        tower_width: Of the vision tower; `tower_inner`, `tower_blocks`, `tower_heads` likewise.
        side: Of an image, in pixels.
        patch: Of a patch, in pixels.
        samples: How many samples the throughput is measured with.
        budgets: Tokens per batch, for the throughput.
        features: Of the SAE.
        rows: Per step of the SAE.
    """

    name: str
    width: int
    inner: int
    blocks: int
    heads: int
    vocabulary: int
    tower_width: int
    tower_inner: int
    tower_blocks: int
    tower_heads: int
    side: int
    patch: int
    samples: int
    budgets: tuple[int, ...]
    features: int
    rows: int

    @property
    def image_tokens(self) -> int:
        """How many rows of the language model an image has."""
        return int((self.side // self.patch) ** 2)

    @property
    def full(self) -> bool:
        """Whether goals of speed hold for it."""
        return self.name == "7b"


SHAPES = {
    shape.name: shape
    for shape in (
        Shape(
            "7b", 4096, 11008, 32, 32, 32064, 1024, 4096, 24, 16, 336, 14,
            samples=192, budgets=(4096, 8192, 16384, 32768), features=65536, rows=4096,
        ),
        Shape(
            "small", 512, 1376, 8, 8, 2048, 256, 1024, 6, 4, 112, 14,
            samples=48, budgets=(512, 2048), features=4096, rows=1024,
        ),
        Shape(
            "tiny", 32, 64, 2, 4, 320, 32, 64, 3, 4, 32, 8,
            samples=12, budgets=(256,), features=128, rows=256,
        ),
    )
}  # fmt: skip
"""By name: LLaVA-1.5-7B's own, one for a laptop, one for tests."""
