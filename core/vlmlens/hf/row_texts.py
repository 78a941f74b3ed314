"""The text of each row of a prompt, for pictures of it and for people who look at rows.

A token is decoded behind the one before it, since tokenizers leave out a space at the beginning of
a text, and some at its end. Tokens that hold parts of one character are decoded together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import groupby

import numpy as np
import numpy.typing as npt

from vlmlens.tokens import Ints, TokenKind, TokenLayout

Decode = Callable[[Sequence[int]], str]

_WITHOUT_TEXT = (TokenKind.IMAGE, TokenKind.VIRTUAL)
_BROKEN = "\ufffd"
_MOST = 8
"""More tokens than one character takes; then the tokenizer itself writes U+FFFD."""


def texts_later(layout: TokenLayout, decode: Decode) -> Callable[[], Sequence[str]] | None:
    """See `vlmlens.tokens.TokenLayout.texts`; worked out once, when it is asked for.

    Args:
        layout: On any axis.
        decode: Gives the text of tokens.
    """
    if layout.token_ids is None:
        return None
    return cache(partial(row_texts, layout.token_ids, layout.kinds, decode))


def row_texts(token_ids: Ints, kinds: npt.NDArray[np.uint8], decode: Decode) -> tuple[str, ...]:
    """The text of each row, in reading order.

    Args:
        token_ids: int64 `[n]`. Those of image rows and virtual tokens are not read: they need not
            be in the vocabulary.
        kinds: uint8 `[n]`, a `TokenKind` per row.
        decode: Gives the text of tokens.
    """
    silent = np.isin(kinds, _WITHOUT_TEXT).tolist()
    texts: list[str] = []
    for is_silent, rows in groupby(range(len(token_ids)), silent.__getitem__):
        ids = [int(token_ids[row]) for row in rows]
        texts += [""] * len(ids) if is_silent else token_texts(ids, decode)
    return tuple(texts)


def token_texts(ids: Sequence[int], decode: Decode) -> list[str]:
    """What each token adds to the text of those before it.

    Args:
        ids: Tokens that follow each other.
        decode: Gives their text, with U+FFFD for what is incomplete.

    >>> words = ["Red", " cube"]
    >>> token_texts([0, 1], lambda ids: "".join(words[i] for i in ids).strip())
    ['Red', ' cube']
    """
    texts = [""] * len(ids)
    start, before = 0, 0
    for end in range(1, len(ids) + 1):
        text = _added(ids[before:start], ids[start:end], decode)
        if text.endswith(_BROKEN) and end - start < _MOST and end < len(ids):
            continue
        texts[start] = text
        before = start if text.strip() else max(before, end - _MOST)
        start = end
    return texts


def _added(before: Sequence[int], ids: Sequence[int], decode: Decode) -> str:
    known = decode(before) if before else ""
    whole = decode([*before, *ids])
    return whole[len(known) :] if whole.startswith(known) else decode(ids)
