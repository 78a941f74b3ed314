"""Where an SAE belongs, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vlmlens._display import brief

LARGEST = "largest"
"""In `About.trained`, where it is known: the largest code of each feature in training."""


@dataclass(frozen=True, slots=True)
class About:
    """What an SAE knows of itself.

    Args:
        column: The column of a single site that it was trained on, `llm.block.14/image`; of a
            crosscoder the columns, joined by ` + `; "" if it is not known.
        target: Of a transcoder the column that it predicts; else "".
        model: What tells the model (`ModelAdapter.describe`); empty if it is not known.
        trained: How it was trained, as JSON-ready data: kind, options, rows, seed.
        scales: Of a crosscoder, by column (width, what its rows were multiplied by).
        source: The format that it was read from; "" if it was made here.
        notes: What the reader of the file should know, in sentences.
    """

    column: str = ""
    target: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    trained: Mapping[str, Any] = field(default_factory=dict)
    scales: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def site(self) -> str:
        """The site of the column; "" if it is not known."""
        return self.column.partition("/")[0]

    @property
    def rows(self) -> str:
        """The selector of the column; "" if it is not known."""
        return self.column.partition("/")[2]

    def __repr__(self) -> str:
        return brief(self, self.column or "site not known", self.source)
