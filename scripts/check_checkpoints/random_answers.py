"""Right answers for pairs that random weights are asked: those that the model prefers itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from vlmlens.abc import ModelAdapter
    from vlmlens.samples import Sample

Floats = npt.NDArray[np.float64]


def preferred(vlm: ModelAdapter, samples: Sequence[Sample], most: int) -> list[Sample]:
    """Pairs with labels on which the model's preference differs; those where it differs most.

    Random weights answer hardly any pair rightly, so nothing would be left to patch. A choice whose
    first token is that of another choice is no label: it could not be followed by itself.

    Args:
        vlm: The model.
        samples: Pairs as of `demo:pairs`, the two samples of each one after the other.
        most: How many pairs are kept.
    """
    choices = samples[0].choices
    found = []
    scores = _scores(vlm, samples)
    for i in range(0, len(samples), 2):
        margin, own, other = _answers(scores[i], scores[i + 1])
        pair = (
            replace(samples[i], label=choices[own]), replace(samples[i + 1], label=choices[other])
        )  # fmt: skip
        found.append((margin, pair))
    best = sorted(found, key=lambda each: each[0], reverse=True)[:most]
    return [sample for _, pair in best for sample in pair]


def _scores(vlm: ModelAdapter, samples: Sequence[Sample]) -> Floats:
    """Logits `[samples, choices]` of the first token that differs; NaN where two have the same."""
    ids = [vlm.answer_ids(choice) for choice in samples[0].choices]
    shared = next(i for i, tokens in enumerate(zip(*ids, strict=False)) if len(set(tokens)) > 1)
    batch = vlm.encode(samples, answers=[ids[0][:shared]] * len(samples))
    logits = vlm.forward(batch, logits="last").logits
    assert logits is not None
    tokens = [each[shared] for each in ids]
    scores: Floats = logits.double().cpu().numpy()[:, tokens]
    scores[:, [tokens.count(token) > 1 for token in tokens]] = np.nan
    return scores


def _answers(clean: Floats, corrupted: Floats) -> tuple[float, int, int]:
    """The choices of which the first is preferred in one, the second in the other; by how much.

    Args:
        clean: Logits of the choices, `[choices]`.
        corrupted: The same of the other sample.
    """
    here = clean[:, None] - clean[None]
    there = corrupted[None] - corrupted[:, None]
    margin = np.minimum(here, there)
    np.fill_diagonal(margin, np.nan)
    own, other = divmod(int(np.nanargmax(margin)), len(clean))
    return float(margin[own, other]), own, other
