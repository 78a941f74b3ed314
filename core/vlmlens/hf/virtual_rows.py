"""Room for virtual tokens among the tokens of encoded samples.

A virtual token stands where one more token of text would: each tensor that is aligned with the
tokens gets rows that are copies of a word's of the same sample. So positions, masks and token types
are those of that much more text, in every family, and no id appears that the prompt has not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vlmlens.errors import DataError, SelectorError
from vlmlens.passes.soft_prompt import Place
from vlmlens.rows.named import NamedRows
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import AxisLayout, TokenKind, TokenLayout

_QUESTION = NamedRows("question")


@dataclass(frozen=True, slots=True)
class Room:
    """Where rows are added to the samples of a batch.

    Args:
        axis: The axis of the prompt's tokens.
        places: Per sample, the position, padding included, before which they are added.
        before: Per sample, how many of its own rows stand before them.
        sources: Per sample, the position of the word of which they are copies.
        size: How many are added to each.
    """

    axis: Axis
    places: Sequence[int]
    before: Sequence[int]
    sources: Sequence[int]
    size: int

    @classmethod
    def of(
        cls,
        place: Place,
        size: int,
        samples: Sequence[Sample],
        layouts: Mapping[Axis, AxisLayout],
        image: torch.Tensor,
        added: AbstractSet[int],
    ) -> Room:
        """The room for virtual tokens in encoded samples.

        Args:
            place: Where they stand.
            size: How many there are.
            samples: The samples.
            layouts: Theirs, without room, with names.
            image: bool `[samples, positions]`: the positions that image features replace.
            added: Ids of tokens that are no words.

        Raises:
            DataError: A sample has no such place.
        """
        axis = Axis.ENCODER if Axis.ENCODER in layouts else Axis.LLM
        length, places, before, sources = image.shape[1], list[int](), list[int](), list[int]()
        for i, (sample, layout) in enumerate(zip(samples, layouts[axis].samples, strict=True)):
            own = replace(layout, rows=layout.rows - i * length)
            behind = np.flatnonzero(image[i].cpu().numpy())
            found = behind[-1] + 1 if len(behind) else None
            at = _question(sample, own) if place == "before-question" else found
            places.append(_known(at if at is not None else found, sample, place))
            before.append(int((own.rows < places[-1]).sum()))
            sources.append(_word(sample, own, places[-1], added))
        return cls(axis, places, before, sources, size)

    def made(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs with the rows added.

        Args:
            inputs: With `attention_mask`, `[samples, positions]`.
        """
        aligned = inputs["attention_mask"].shape
        return {
            name: self._grown(value)
            if isinstance(value, torch.Tensor)
            and value.shape[:2] == aligned
            and not value.is_floating_point()
            else value
            for name, value in inputs.items()
        }

    def marked(self, layouts: Mapping[Axis, AxisLayout]) -> dict[Axis, AxisLayout]:
        """The layouts of the grown inputs, in which the added rows are of kind VIRTUAL."""
        axis, marked = layouts[self.axis], list[TokenLayout]()
        for layout, first in zip(axis.samples, self.before, strict=True):
            kinds = layout.kinds.copy()
            kinds[first : first + self.size] = TokenKind.VIRTUAL
            marked.append(replace(layout, kinds=kinds))
        return {**layouts, self.axis: replace(axis, samples=marked)}

    def _grown(self, value: torch.Tensor) -> torch.Tensor:
        rows = [
            torch.cat([row[:at], row[word : word + 1].expand(self.size, *row.shape[1:]), row[at:]])
            for row, at, word in zip(value, self.places, self.sources, strict=True)
        ]
        return torch.stack(rows)


def _question(sample: Sample, layout: TokenLayout) -> int | None:
    """The position of the question's first token; None if the sample asks nothing."""
    question = layout.names.question if layout.names is not None else None
    if question is None:
        return None
    try:
        rows = question().rows(_QUESTION)
    except SelectorError as error:
        raise DataError(
            f"There is no place for virtual tokens before the question. {error.message}",
            subject=sample.id,
            hint="Change these characters of the prompt, or put the virtual tokens after-image.",
        ) from error
    return int(layout.rows[rows[0]]) if len(rows) else None


def _known(place: int | None, sample: Sample, wanted: Place) -> int:
    if place is not None:
        return int(place)
    lacks = "no image" if wanted == "after-image" else "neither a question nor an image"
    raise DataError(
        f"The sample {sample.id!r} has {lacks}, so there is no place for virtual tokens "
        f"({wanted}).",
        subject=sample.id,
        hint="Leave such samples out, or use virtual tokens that stand before-question.",
    )


def _word(sample: Sample, layout: TokenLayout, place: int, added: AbstractSet[int]) -> int:
    """The position of the word that is nearest to a place, and best behind it."""
    ids = layout.token_ids
    assert ids is not None  # noqa: S101
    words = layout.rows[(layout.kinds == TokenKind.TEXT) & ~np.isin(ids, sorted(added))]
    if not len(words):
        raise DataError(
            f"The prompt of the sample {sample.id!r} has no word, so there is no room for virtual "
            "tokens.",
            subject=sample.id,
            hint="Ask something: one word is enough.",
        )
    away = np.where(words >= place, words - place, layout.rows[-1] + place - words)
    return int(words[away.argmin()])
