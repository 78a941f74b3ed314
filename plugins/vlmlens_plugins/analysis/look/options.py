"""Options of a look, and what it costs."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from vlmlens.abc import ModelAdapter, Options
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._altered import Fill
from vlmlens_plugins.analysis.look.windows import SHARES, windows

BLANKS: Final[tuple[Fill, ...]] = ("gray", "white", "noise")
"""What stands in place of the whole picture."""

COVERS: Final[tuple[Fill, ...]] = ("mean", "noise")
"""What stands in place of the part on which the answer rests."""

_FINE, _COARSE = 8, 6
_LENS, _GRADIENTS = 1, 6
_ROWS = 4
"""Groups of rows that are exchanged for a comparison."""
_LARGE = 500_000_000


class LookOptions(Options):
    """How closely the model is looked at."""

    samples: int = Field(
        8, ge=1, description="Look at so many questions of the run, the first ones."
    )
    grid: int | None = Field(
        None,
        ge=3,
        le=32,
        description="Steps along each side of the picture for the map of evidence. Default: 8, and "
        "6 for models of more than half a billion parameters.",
    )
    controls: int = Field(
        6, ge=0, description="How many other parts of the same size are covered for comparison."
    )
    components: int = Field(
        8, ge=1, description="So many heads and MLPs are really exchanged, the strongest ones."
    )
    blocks: int = Field(
        16, ge=1, description="At most so many blocks are exchanged for a comparison (--against)."
    )
    max_new_tokens: int = Field(16, ge=1, description="The most tokens of an answer.")
    max_passes: int = Field(
        5000, ge=1, description="Refuse to start if about more passes are needed."
    )

    def steps(self, vlm: ModelAdapter) -> int:
        """Steps along each side of a picture.

        Args:
            vlm: The model, or its skeleton.
        """
        if self.grid is not None:
            return self.grid
        count = sum(parameter.numel() for parameter in vlm.module.parameters())
        return _COARSE if count > _LARGE else _FINE


def passes(vlm: ModelAdapter, options: LookOptions, sample: Sample, *, comparison: bool) -> int:
    """About how many passes of the model a question takes; a token that is written counts as one.

    Args:
        vlm: The model, or its skeleton.
        options: Of the analysis.
        sample: The question.
        comparison: Whether it is compared to another one.
    """
    compares = vlm.choice_scores(()) is not None
    long = not compares and any(len(vlm.answer_ids(choice)) > 1 for choice in sample.choices)
    asking = len(sample.choices) if long else 1
    answer = asking if sample.choices else options.max_new_tokens + 1
    steps = options.steps(vlm)
    covered = 2 + 2 * len(sample.images) * len(windows((steps, steps), steps))
    parts = (len(SHARES) + 1) * len(COVERS) + len(BLANKS) + options.controls
    total = answer * (1 + len(BLANKS) + comparison) + asking * (covered + parts)
    if compares:
        return total
    total += _LENS + _GRADIENTS + options.components + 1
    blocks = min(len(vlm.sites.resolve("llm.block.*")), options.blocks)
    return total + (_ROWS * (blocks + 1) if comparison else 0)
