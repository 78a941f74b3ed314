"""Which output tokens a feature's direction raises and lowers, by the model's own readout."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vlmlens.abc import ModelAdapter
from vlmlens_plugins.analysis.logit_lens.words import token_text
from vlmlens_plugins.analysis.sae.pages.pictured import short
from vlmlens_plugins.analysis.weights.vocabulary import Words
from vlmlens_plugins.sae import Sae

_MOST = 10
_STREAM = re.compile(r"llm\.(embed|block\.-?[0-9]+(:in)?)")
"""Sites whose rows are the residual stream."""
_WHAT = (
    "What the direction adds to the logits through the final norm and the unembedding, less the "
    "mean over the vocabulary, in standard deviations. Later blocks may do more with it."
)


@dataclass(frozen=True, slots=True)
class Written:
    """The tokens of one direction.

    Args:
        raised: (token, how much), the most raised first.
        lowered: (token, how much), the most lowered first.
    """

    raised: tuple[tuple[str, float], ...] = ()
    lowered: tuple[tuple[str, float], ...] = ()


def written(
    vlm: ModelAdapter | None, sae: Sae, column: str, numbers: Sequence[int]
) -> tuple[list[Written], str]:
    """The output tokens of some features, and what the numbers are, or why there are none.

    Args:
        vlm: The model.
        sae: The SAE.
        column: The column that its decoder writes to.
        numbers: The features.
    """
    words = None if vlm is None else Words.of(vlm, fold=True)
    reason = _why_not(vlm, words, sae, column)
    if reason or vlm is None or words is None:
        return [Written() for _ in numbers], reason
    directions = sae.W_dec[list(numbers)].to(words.embed([0]))
    logits = words.logits(directions)
    apart = logits - logits.mean(1, keepdim=True)
    scaled = apart / apart.std(1, keepdim=True).clamp(min=1e-30)
    return [_written(vlm, row) for row in scaled], _WHAT


def _why_not(vlm: ModelAdapter | None, words: Words | None, sae: Sae, column: str) -> str:
    site = column.partition("/")[0]
    if vlm is None:
        return "Output tokens need the model, which is not loaded."
    if not site.startswith("llm."):
        return (
            f"No output tokens: {site or 'its site'} is no site of the language model, and its "
            "directions are not those of the readout."
        )
    if not _STREAM.fullmatch(site):
        return f"No output tokens: the rows of {site} are not the residual stream."
    if words is None:
        return "No output tokens: the model has no embedding and readout in memory."
    width = words.embed([0]).shape[-1]
    if width != sae.outputs:
        return (
            f"No output tokens: directions have {sae.outputs} numbers, the readout reads {width}."
        )
    return ""


def _written(vlm: ModelAdapter, row: torch.Tensor) -> Written:
    most = min(_MOST, len(row))
    up, down = row.topk(most), (-row).topk(most)
    raised = [(token_text(vlm, int(i)), short(float(row[i]))) for i in up.indices if row[i] > 0]
    lowered = [(token_text(vlm, int(i)), short(float(row[i]))) for i in down.indices if row[i] < 0]
    return Written(tuple(raised), tuple(lowered))
