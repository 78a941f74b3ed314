"""Internal confidence: how probable the lens finds a word at the image's rows.

N. Jiang et al., "Interpreting and Editing Vision-Language Representations to Mitigate
Hallucinations" (2024, arXiv 2410.02762): the maximum over layers and image positions of
softmax(unembedding x hidden state) of the word's tokens, without the final norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vlmlens.abc import ModelAdapter
from vlmlens.abc.model_work import JSON

Word = Sequence[int]
NORMS = (False, True)
_ROWS = 256


class Confidence:
    """The best place for each text, as layers are read one after the other.

    A text is one word or several. A row tells a text as far as the least of its words, and a word
    as far as the most probable of its tokens.

    Args:
        vlm: The model.
        texts: The texts; one without words is not followed.
    """

    def __init__(self, vlm: ModelAdapter, texts: Sequence[Sequence[Word]]) -> None:
        self._readout = vlm.readout()
        self._texts = texts
        self._best = np.full((len(texts), len(NORMS)), -np.inf)
        self._row = np.zeros((len(texts), len(NORMS)), np.int64)

    def read(self, rows: torch.Tensor) -> None:
        """Take a layer's image rows, `[n, width]`, in."""
        ids = [token for text in self._texts for word in text for token in word]
        if self._readout is None or not ids or not len(rows):
            return
        for k, norm in enumerate(NORMS):
            parts = [_of_tokens(self._readout(part, norm=norm), ids) for part in rows.split(_ROWS)]
            self._take(k, torch.cat(parts).double().cpu().numpy())

    def _take(self, norm: int, logs: np.ndarray[Any, Any]) -> None:
        """Log-probabilities `[n, tokens]` of the tokens of all words, one text after another."""
        start = 0
        for number, text in enumerate(self._texts):
            words = []
            for word in text:
                words.append(logs[:, start : start + len(word)].max(1))
                start += len(word)
            if not words:
                continue
            least = np.min(words, axis=0)
            row = int(least.argmax())
            if least[row] > self._best[number, norm]:
                self._best[number, norm], self._row[number, norm] = least[row], row

    def told(self, inside: np.ndarray[Any, Any] | None) -> list[dict[str, JSON] | None]:
        """Per text, its log-probabilities without and with the norm; None where it has none.

        Args:
            inside: bool `[n]`, which image rows lie in a region; None: there is none.
        """
        found: list[dict[str, JSON] | None] = []
        for best, row in zip(self._best, self._row, strict=True):
            if not np.isfinite(best).all():
                found.append(None)
                continue
            hit = None if inside is None else [float(inside[each]) for each in row]
            found.append({"confidence": best.tolist(), "inside": hit})
        return found


def _of_tokens(logits: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    """Log-probabilities of some tokens."""
    return logits[:, list(ids)] - logits.logsumexp(-1, keepdim=True)
