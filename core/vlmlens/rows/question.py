"""Rows of the user's question: all of them, those of a word, those of an answer option."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.errors import SelectorError
from vlmlens.question_text import Span, option_names, option_span, word_spans
from vlmlens.rows.named import NamedRows

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Question:
    """The user's words, and which of their characters each row stands for.

    Args:
        sample: The sample's id.
        text: The question without the chat template; blanks stand where images do.
        spans: int64 `[rows, 2]`: where each row's characters begin and end in `text`; -1 for rows
            of other things. White space between words is an empty span.
        choices: The sample's choices.
    """

    sample: str
    text: str
    spans: Ints
    choices: Sequence[str] = ()

    def rows(self, named: NamedRows) -> Ints:
        """int64 `[k]`: the places of the named rows.

        Raises:
            SelectorError: The question has no such word or option.
        """
        if named.what == "question":
            return np.flatnonzero(self.spans[:, 0] >= 0)
        found = spans_of(named, self.text, self.choices)
        if not found:
            raise missing(named, self.sample, self.text, self.choices)
        start, stop = self.spans.T
        return np.flatnonzero(
            np.any([(start >= 0) & (start < high) & (stop > low) for low, high in found], 0)
        )


def spans_of(named: NamedRows, text: str, choices: Sequence[str]) -> list[Span]:
    """The characters that are meant by a word or an option; empty if there are none."""
    if named.what == "word":
        return word_spans(text, named.name)
    span = option_span(text, choices, named.name)
    return [] if span is None else [span]


def missing(named: NamedRows, sample: str, text: str, choices: Sequence[str]) -> SelectorError:
    """The error for a word or an option that is not in a question."""
    shown = " ".join(text.split())
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    if named.what == "word":
        what = f"no word {named.name!r}"
        hint = "Words are looked for in the user's question, without the chat template."
    else:
        names = option_names(text, choices)
        what = f"no option {named.name!r}, or it is not clear which words are it"
        hint = (
            f"Its options are {', '.join(names)}."
            if names
            else "Options are marked in the question (A. red, (A) red), or it names all choices "
            "of the sample. Other words: word(...)."
        )
    return SelectorError(
        f"{str(named)!r}: the question of the sample {sample!r} has {what}: {shown!r}.",
        subject=str(named),
        hint=hint,
    )
