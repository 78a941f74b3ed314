"""Finds the user's question among a sample's tokens, and names rows for selectors.

Tokenizers differ in what they say of characters, so the tokens are decoded, piece by piece, and
compared with the question and with what the template writes after it. White space and case are
left out: tokenizers change both. The end of the prompt is the anchor: the question is what stands
before the template's end, so equal words elsewhere do not matter.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vlmlens.errors import SelectorError
from vlmlens.hf.frames import Frames
from vlmlens.hf.placeholders import Placeholders, any_of
from vlmlens.hf.row_texts import texts_later
from vlmlens.rows.names import Names
from vlmlens.rows.question import Question
from vlmlens.rows.sample_regions import SampleRegions
from vlmlens.sites import Axis
from vlmlens.tokens import AxisLayout, Ints, TokenKind, TokenLayout
from vlmlens.videos import Video

if TYPE_CHECKING:
    from vlmlens.samples import Sample

_READ = frozenset({Axis.LLM, Axis.ENCODER})
_BROKEN = "\ufffd"
STAND_IN = "vlmlens"
"""Stands for a question, to see what is written around one."""

Decode = Callable[[Sequence[int]], str]
Letter = tuple[str, int]
"""A character as it is compared, and where it is from."""


class Encoder(Protocol):
    """What of `SampleEncoding` tells where a question stands."""

    @property
    def tokenizer(self) -> Any:
        """Names special tokens."""

    @property
    def unseen_text(self) -> str:
        """See `SampleEncoding`."""

    def shown(self, sample: Sample) -> Sequence[Any]:
        """See `PromptWriting`."""

    def marks(self, images: Sequence[Any]) -> Placeholders:
        """See `PromptWriting`."""

    @property
    def special_ids(self) -> frozenset[int]:
        """See `SampleEncoding`."""

    def asked(self, samples: Sequence[Sample]) -> list[str]:
        """See `SampleEncoding`."""

    def templated(self, prompt: str, images: Sequence[Any]) -> str:
        """See `SampleEncoding`."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `ModelAdapter`."""


def with_names(
    vlm: Encoder,
    layouts: Mapping[Axis, AxisLayout],
    samples: Sequence[Sample],
    images: Sequence[Sequence[Any]],
) -> dict[Axis, AxisLayout]:
    """The layouts of a batch, with what selectors by name need; it is worked out when one is used.

    Args:
        vlm: The adapter.
        layouts: Per axis, with one layout per sample.
        samples: The samples of the batch.
        images: The opened images of each.
    """
    sizes = [[image.size for image in group] for group in images]
    regions = [SampleRegions(*each) for each in zip(samples, sizes, strict=True)]

    finder = _Finder(vlm)

    def named(layout: AxisLayout, axis: Axis) -> AxisLayout:
        rows = zip(layout.samples, samples, regions, strict=True)
        found = []
        for one, sample, known in rows:
            question = finder.later(sample, one) if axis in _READ else None
            names = Names(known, question, sample, texts_later(one, vlm.decode))
            found.append(replace(one, names=names))
        return AxisLayout(layout.total, found, [named(other, axis) for other in layout.others])

    return {axis: named(layout, axis) for axis, layout in layouts.items()}


class _Finder:
    """Finds questions among the tokens of a batch.

    Args:
        vlm: The adapter.
    """

    def __init__(self, vlm: Encoder) -> None:
        self._vlm = vlm
        self._unseen = {char for char, _ in _letters(vlm.unseen_text)}
        self._around = cache(self._ends)
        self._one = cache(lambda token: vlm.decode([token]))

    def later(self, sample: Sample, layout: TokenLayout) -> Callable[[], Question] | None:
        """Finds a sample's question, once; None if the layout is of no words."""
        ids = layout.token_ids
        if ids is None or not len(layout.positions(TokenKind.TEXT)):
            return None
        return cache(partial(self.find, sample, ids, layout))

    def find(self, sample: Sample, token_ids: Ints, layout: TokenLayout) -> Question:
        """The question of a sample, with the characters of each row.

        Raises:
            SelectorError: The tokens do not spell it: the tokenizer does not know some of its
                characters, or the adapter writes prompts in another way than it says.
        """
        asked, shown = self._vlm.asked([sample])[0], self._vlm.shown(sample)
        mark = (self._vlm.marks(shown).mark if sample.images else None) or ""
        parts = asked.split(mark) if mark else [asked]
        rows = np.flatnonzero(layout.kinds == TokenKind.TEXT)
        tokens = spelled(token_ids[rows].tolist(), self._decode)
        prompt = _Spelling.of(tokens, rows, self._unseen)
        ends = self._template(() if len(parts) > 1 else shown)
        for said in (parts, [self._special.sub(_blank, part) for part in parts]):
            wanted = self._compared(said, len(mark))
            places = prompt.places(["".join(c for c, _ in part) for part in wanted], ends, layout)
            if places is None:
                continue
            spans = np.full((len(layout), 2), -1, np.int64)
            for place, letters in zip(places, wanted, strict=True):
                prompt.mark(spans, place, [index for _, index in letters])
            return Question(sample.id, (" " * len(mark)).join(parts), spans, sample.choices)
        read = self._vlm.decode(token_ids[rows].tolist())
        raise SelectorError(
            f"Where the question of the sample {sample.id!r} stands among its tokens is not known: "
            f"they read {read[-80:]!r}.",
            subject=sample.id,
            hint="The tokenizer may not know some of its characters. Change them, or use text and "
            "[3:9].",
        )

    def _compared(self, parts: Sequence[str], between: int) -> list[list[Letter]]:
        """The characters of parts of a question, each with its place in the question.

        Args:
            parts: The parts.
            between: How many characters stand between two.
        """
        start, found = 0, list[list[Letter]]()
        for part in parts:
            found.append([(c, start + i) for c, i in _letters(part) if c not in self._unseen])
            start += len(part) + between
        return found

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """Special tokens, which are no rows of text, as a user could write them."""
        names = self._vlm.tokenizer.convert_ids_to_tokens(sorted(self._vlm.special_ids))
        return any_of(str(name) for name in names)

    def _template(self, shown: Sequence[Any]) -> tuple[str, str]:
        """What the template writes before and after a question, as it is compared.

        Args:
            shown: The images that the template writes, or `Frames`.
        """
        return self._around(
            0 if isinstance(shown, Frames) else len(shown), isinstance(shown, Frames)
        )

    def _ends(self, images: int, video: bool) -> tuple[str, str]:
        shown = Frames([None], Video()) if video else [None] * images
        whole = self._vlm.templated(STAND_IN, shown)
        head, _, tail = self._special.sub("", whole).rpartition(STAND_IN)
        before, after = ("".join(c for c, _ in part) for part in self._compared([head, tail], 0))
        return before, after

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._one(token_ids[0]) if len(token_ids) == 1 else self._vlm.decode(token_ids)


def spelled(ids: Sequence[int], decode: Decode) -> Iterator[tuple[str, int, int]]:
    """The characters that tokens spell, each with the numbers of its first and last token.

    A character may take several tokens, which decode to it only together.

    Args:
        ids: The tokens.
        decode: Gives their text, with U+FFFD for what is incomplete.
    """
    start, waiting, known = 0, 0, ""
    for i in range(len(ids)):
        text = decode(ids[start : i + 1])
        whole = text if i + 1 == len(ids) else text.rstrip(_BROKEN)
        new = whole.removeprefix(known)
        for number, char in enumerate(new):
            yield char, waiting if number == 0 else i, i
        if len(whole) == len(text):
            start, waiting, known = i + 1, i + 1, ""
        else:
            waiting, known = i if new else waiting, whole


@dataclass(frozen=True, slots=True)
class _Spelling:
    """The characters of a prompt as they are compared, with the places of their first and last row.

    Args:
        text: The characters.
        first: int64 `[characters]`, places among the sample's rows; `last` likewise.
        rows: int64 `[k]`: the places of all rows of text.
    """

    text: str
    first: Ints
    last: Ints
    rows: Ints

    @classmethod
    def of(cls, tokens: Iterator[tuple[str, int, int]], rows: Ints, unseen: set[str]) -> _Spelling:
        found = [
            (char, first, last)
            for text, first, last in tokens
            for char, _ in _letters(text)
            if char not in unseen
        ]
        tokens_of = np.array([each[1:] for each in found], np.int64).reshape(-1, 2)
        return cls(
            "".join(each[0] for each in found), rows[tokens_of[:, 0]], rows[tokens_of[:, 1]], rows
        )

    def places(
        self, parts: Sequence[str], ends: Sequence[str], layout: TokenLayout
    ) -> list[int] | None:
        """Where the parts of a question begin, images between them; None if they are not there.

        Args:
            parts: At least one; only a part between two images is searched for.
            ends: What the template writes before and after the question.
            layout: The sample's layout.
        """
        head, tail = ends
        stop = len(self.text) - len(tail)
        found = [stop - len(parts[-1])]
        if found[0] < 0 or self.text[found[0] :] != parts[-1] + tail:
            return None
        images = layout.positions(TokenKind.IMAGE)
        for number, part in reversed(list(enumerate(parts[:-1]))):
            after = self.first[found[0]] if found[0] < len(self.first) else len(layout)
            image = images[images < after][-1:].sum()
            before = int(np.searchsorted(self.last, image))
            place = self.text.rfind(part, 0, before) if part else before
            if number == 0 and self.text.startswith(head + part):
                place = len(head)
            if place < 0:
                return None
            found.insert(0, place)
        return found

    def mark(self, spans: Ints, place: int, indices: Sequence[int]) -> None:
        """Write the characters of a part into the spans of its rows.

        Args:
            spans: int64 `[rows, 2]`; changed in place.
            place: Where the part begins in the prompt.
            indices: Where its characters stand in the question.
        """
        if not indices:
            return
        index, end = np.array(indices), place + len(indices)
        first, last = self.first[place:end], self.last[place:end]
        start = np.full(len(spans), np.iinfo(np.int64).max)
        stop = np.full(len(spans), -1)
        for rows in (first, last):
            np.minimum.at(start, rows, index)
            np.maximum.at(stop, rows, index + 1)
        for number in np.flatnonzero(last > first + 1):
            inner = self.rows[(self.rows > first[number]) & (self.rows < last[number])]
            start[inner], stop[inner] = index[number], index[number] + 1
        inside = self.rows[(self.rows >= first[0]) & (self.rows <= last[-1])]
        blank = inside[stop[inside] < 0]
        stop[inside] = np.maximum.accumulate(stop[inside])
        start[blank] = stop[blank]
        spans[inside] = np.stack([start[inside], stop[inside]], 1)


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


def _letters(text: str) -> Iterator[Letter]:
    """What of a text is compared: its characters without case, composition and white space."""
    for i, char in enumerate(text):
        for part in unicodedata.normalize("NFKD", char.casefold()):
            if not part.isspace() and unicodedata.category(part) not in ("Cc", "Cf"):
                yield part, i
