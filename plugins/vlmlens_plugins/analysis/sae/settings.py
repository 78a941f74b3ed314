"""The SAEs that the options mean, once it is known how wide and how many rows are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vlmlens_plugins.analysis.sae.options import TrainOptions

_STEPS = 1000
_MOST_ROWS = 20_000_000
_USUAL_K = 32
_ROWS_PER_FEATURE = 60
_LEAST_STEPS_A_ROUND = 32


@dataclass(frozen=True, slots=True)
class Setting:
    """What sets one SAE apart from the others at its place.

    Args:
        features: How many features.
        k: How many of them fire in a row.
        seed: Of its start.
    """

    features: int
    k: float
    seed: int

    @property
    def name(self) -> str:
        """In a few words: `1024 features, k 8, seed 0`."""
        return f"{self.features} features, k {self.k:g}, seed {self.seed}"


def settings(options: TrainOptions, width: int, rows: int, seed: int) -> list[Setting]:
    """All combinations of widths, sparsities and seeds; seeds of one setting follow each other.

    Args:
        options: The options.
        width: Numbers in a row.
        rows: About how many rows there are to learn from.
        seed: The first seed.
    """
    found = []
    for features in _sizes(options, width, rows):
        for k in _sparsities(options, width):
            kept = min(k, max(1.0, features / 8))
            found += [Setting(features, kept, seed + i) for i in range(options.seeds)]
    return list(dict.fromkeys(found))


def batch_size(options: TrainOptions, rows: int) -> int:
    """Rows per step: as the options say, or so few that rows are not gone round in a few steps."""
    return max(1, min(options.batch, max(rows // _LEAST_STEPS_A_ROUND, min(rows, 64))))


def rows_seen(options: TrainOptions, rows: int, batch: int) -> int:
    """How many rows each SAE is trained on, with repeats."""
    if options.rows is not None:
        return options.rows
    return max(_STEPS * batch, min(rows, _MOST_ROWS))


def _sizes(options: TrainOptions, width: int, rows: int) -> list[int]:
    if options.width is None:
        return [min(8 * width, max(width, rows // _ROWS_PER_FEATURE))]
    return [int(text[:-1]) * width if text.endswith("x") else int(text) for text in options.width]


def _sparsities(options: TrainOptions, width: int) -> Iterator[float]:
    yield from options.k or [min(float(_USUAL_K), max(1.0, width / 8))]
