"""Random tokens in three orders: repeated, repeated in another order, and never repeated."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Literal, get_args

import numpy as np

from vlmlens.abc import ModelAdapter
from vlmlens.errors import CompositionError
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import generator

Order = Literal["repeated", "reordered", "fresh"]
ORDERS: tuple[Order, ...] = get_args(Order)
_MARKED = (("<", ">"), ("[", "]"))
"""How names of special tokens begin and end."""
_UNREADABLE = "\N{REPLACEMENT CHARACTER}"
_FEWEST, _MOST = 4, 4096


def ordinary_tokens(vlm: ModelAdapter, sample: Sample, seed: int) -> list[int]:
    """Tokens that stand for text, in random order: no special ones, no placeholders of images.

    Left out are those that are marked as special, whose text is empty or no whole character, or is
    a name in angle or square brackets. So unused entries of the vocabulary are left out, too. Of a
    large vocabulary, not all are looked at.

    Args:
        vlm: The loaded model.
        sample: Any sample that it can read.
        seed: Of the order.

    Returns:
        At most 4,096 token ids, evenly drawn.
    """
    logits = vlm.forward(vlm.encode([sample]), logits="last").logits
    assert logits is not None  # noqa: S101
    special: frozenset[int] = getattr(vlm, "special_ids", frozenset())
    order = generator(seed, "heads", "vocabulary").permutation(logits.shape[-1]).tolist()
    known = (token for token in order if token not in special and _is_ordinary(vlm.decode([token])))
    return list(islice(known, _MOST))


def length_for(tokens: int, wanted: int, copies: int) -> int:
    """How many unlike tokens a copy can have, if those of all copies must differ.

    Args:
        tokens: How many ordinary tokens there are.
        wanted: The most.
        copies: How many copies.

    Raises:
        CompositionError: There are too few for any sequence.
    """
    length = min(wanted, tokens // copies)
    if length < _FEWEST:
        raise CompositionError(
            f"The model has {tokens} ordinary tokens, too few for {copies} copies of {_FEWEST}.",
            subject="copies",
            hint="Set analysis.heads.copies lower.",
        )
    return length


def drawn(
    number: int, order: Order, known: Sequence[int], length: int, copies: int, seed: int
) -> list[int]:
    """The tokens of one sequence: `copies` times `length`.

    The first copy of the same number is the same in all orders. Later copies are the same again
    (repeated), each the same tokens in an order of its own (reordered), or other tokens (fresh).

    Args:
        number: Which sequence.
        order: See above.
        known: The tokens to draw from.
        length: How many tokens a copy has.
        copies: How many copies.
        seed: Of the run.
    """
    rng = generator(seed, "heads", str(number))
    tokens = rng.choice(np.asarray(known), (copies, length), replace=False)
    if order == "repeated":
        tokens[:] = tokens[0]
    elif order == "reordered":
        tokens[1:] = [rng.permutation(tokens[0]) for _ in range(copies - 1)]
    found: list[int] = tokens.ravel().tolist()
    return found


def _is_ordinary(text: str) -> bool:
    inner = text.strip()
    marked = any(inner.startswith(a) and inner.endswith(b) and len(inner) > 1 for a, b in _MARKED)
    return inner.isprintable() and bool(inner) and _UNREADABLE not in inner and not marked
