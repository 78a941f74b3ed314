"""Right answers for pairs that random weights are asked: those that the model prefers itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vlmlens.abc import ModelAdapter
    from vlmlens.samples import Sample


def preferred(vlm: ModelAdapter, samples: Sequence[Sample]) -> list[Sample]:
    """The samples, with labels on which the model's preference differs most within each pair.

    Random weights answer hardly any pair rightly, so nothing would be left to patch.

    Args:
        vlm: The model.
        samples: Pairs as of `demo:pairs`, the two samples of each one after the other.
    """
    scores = _scores(vlm, samples)
    labelled = []
    for i in range(0, len(samples), 2):
        clean, corrupted = samples[i : i + 2]
        own, other = _answers(scores[i], scores[i + 1])
        labelled.append(replace(clean, label=clean.choices[own]))
        labelled.append(replace(corrupted, label=clean.choices[other]))
    return labelled


def _scores(vlm: ModelAdapter, samples: Sequence[Sample]) -> np.ndarray:
    """Logits `[samples, choices]` of the first token in which the choices differ.

    NaN for choices that have this token in common with another one.
    """
    ids = [vlm.answer_ids(choice) for choice in samples[0].choices]
    shared = next(i for i, tokens in enumerate(zip(*ids, strict=False)) if len(set(tokens)) > 1)
    batch = vlm.encode(samples, answers=[ids[0][:shared]] * len(samples))
    logits = vlm.forward(batch, logits="last").logits
    assert logits is not None
    tokens = [each[shared] for each in ids]
    scores: np.ndarray = logits.double().cpu().numpy()[:, tokens]
    scores[:, [tokens.count(token) > 1 for token in tokens]] = np.nan
    return scores


def _answers(clean: np.ndarray, corrupted: np.ndarray) -> tuple[int, int]:
    """Which choice is to be right in each: the first is preferred in one, the second in the other.

    Args:
        clean: Logits of the choices, `[choices]`.
        corrupted: The same of the other sample.
    """
    here = clean[:, None] - clean[None]
    there = corrupted[None] - corrupted[:, None]
    margin = np.minimum(here, there)
    np.fill_diagonal(margin, np.nan)
    own, other = divmod(int(np.nanargmax(margin)), len(clean))
    return own, other
