"""Chosen words as tokens: every single-token spelling of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmlens.abc import ModelAdapter
from vlmlens.errors import SpecError
from vlmlens.tokens import TokenKind, TokenLayout
from vlmlens_plugins.analysis.logit_lens.vocabulary import Ints

_MARKS = "\u2581\u0120"
"""What some vocabularies write for a space."""


def spellings(vlm: ModelAdapter, words: Sequence[str], size: int) -> list[Ints]:
    """The tokens of each word: with and without a space before it, in any capitals.

    Args:
        vlm: Decodes tokens.
        words: As the user gave them.
        size: Of the vocabulary, which is looked through once.

    Returns:
        Per word, int64 token ids in ascending order.

    Raises:
        SpecError: No single token spells a word.
    """
    found: dict[str, list[int]] = {_plain(word): [] for word in words}
    for token in range(size) if words else ():
        spelled = _plain(_text(vlm, token))
        if spelled in found:
            found[spelled].append(token)
    for word in words:
        if not found[_plain(word)]:
            raise SpecError(
                f"No single token of the model spells the word {word!r}.",
                subject=word,
                hint="Choose a more common word, or its first part as the tokenizer cuts it.",
            )
    return [np.array(found[_plain(word)], dtype=np.int64) for word in words]


def token_text(vlm: ModelAdapter, token: int) -> str:
    """A token's text with its white space made visible."""
    text = _text(vlm, token)
    return text.replace(" ", "\u2423").replace("\n", "\\n").replace("\t", "\\t") or f"<{token}>"


def row_text(vlm: ModelAdapter, layout: TokenLayout, row: int) -> str:
    """What stands in a row of the language model: its token's text, or that it is virtual.

    Args:
        vlm: Decodes tokens.
        layout: Of a sample, with token ids.
        row: The place among the sample's rows.
    """
    assert layout.token_ids is not None  # noqa: S101
    if layout.kinds[row] == TokenKind.VIRTUAL:
        return f"<virtual {int((layout.kinds[:row] == TokenKind.VIRTUAL).sum()) + 1}>"
    return token_text(vlm, int(layout.token_ids[row]))


def _text(vlm: ModelAdapter, token: int) -> str:
    """Vocabularies are often padded; some tokenizers refuse the numbers behind their last."""
    try:
        return vlm.decode([token])
    except (IndexError, KeyError, TypeError, OverflowError):
        return ""


def _plain(text: str) -> str:
    return text.strip().strip(_MARKS).strip().casefold()
