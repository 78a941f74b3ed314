"""Which key a head of each role reads from which query: patterns over a sequence of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Cells = Iterator[tuple[int, int]]


def patterns(tokens: Sequence[int], length: int) -> Mapping[str, Floats]:
    """The patterns, by name: float32 `[queries, keys]`, 1 in the pattern, else 0.

    A head's score is the attention in the pattern, mean over the queries that have a cell in it.

    - previous: from i to i - 1; `before`: to i - 2.
    - duplicate: from a later copy to all earlier places of the same token.
    - induction: from a later copy to all places behind an earlier one of the same token.
    - duplicate_place, induction_place: to where these would be if the first copy were repeated.

    Args:
        tokens: The sequence.
        length: How many tokens a copy has.
    """
    size = len(tokens)
    later = range(length, size)

    def earlier(shift: int) -> Cells:
        return (
            (i, j + shift)
            for i in later
            for j in range(i)
            if tokens[j] == tokens[i] and j + shift < i
        )

    def places(shift: int) -> Cells:
        return ((i, j + shift) for i in later for j in range(i - length, -1, -length))

    def made(cells: Cells) -> Floats:
        matrix = np.zeros((size, size), np.float32)
        for query, key in cells:
            matrix[query, key] = 1
        return matrix

    return {
        "previous": made((i, i - 1) for i in range(1, size)),
        "before": made((i, i - 2) for i in range(2, size)),
        "duplicate": made(earlier(0)),
        "induction": made(earlier(1)),
        "duplicate_place": made(places(0)),
        "induction_place": made(places(1)),
    }


def occurrences(tokens: Sequence[int]) -> tuple[list[int], Floats]:
    """The unlike tokens, and where each stands: float32 `[places, tokens]`."""
    unlike = list(dict.fromkeys(tokens))
    table = np.zeros((len(tokens), len(unlike)), np.float32)
    table[np.arange(len(tokens)), [unlike.index(token) for token in tokens]] = 1
    return unlike, table
