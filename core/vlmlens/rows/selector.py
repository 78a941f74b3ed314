"""Selectors: which rows of a sample are kept, and how they are pooled; and columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from vlmlens.errors import SelectorError
from vlmlens.rows.image_rows import image_rows, not_named
from vlmlens.rows.layouts import Ints, TokenKind, TokenLayout
from vlmlens.rows.named import FORMS, NamedRows

Pool = Literal["mean", "max"]
_KINDS: Mapping[str, TokenKind] = {
    "image": TokenKind.IMAGE,
    "text": TokenKind.TEXT,
    "special": TokenKind.SPECIAL,
    "answer": TokenKind.ANSWER,
    "virtual": TokenKind.VIRTUAL,
}
_INT = "-?[0-9]{1,9}"
_SELECTOR = re.compile(
    rf"(?:(?P<kind>all|image|text|special|answer|virtual|steps)|(?P<named>{FORMS}))?"
    rf"(?:\[(?P<slice>{_INT}|(?:{_INT})?:(?:{_INT})?)\])?"
    r"(?:\.(?P<pool>mean|max))?"
)
_SHORT = {"last": "all[-1]", "first": "all[0]", "mean": "all.mean", "max": "all.max"}
_LONG = {long: short for short, long in _SHORT.items()}


@dataclass(frozen=True, slots=True)
class Selector:
    """Which rows of a sample are kept, and how they are pooled. Made by `Selector.parse`.

    Args:
        kind: Keep rows of that kind; None: all rows of the prompt.
        index: Keep only these of them.
        pool: How to pool the kept rows; None: no pooling.
        steps: Keep the rows that predicted the answer's tokens: for each token, the row before it.
        named: Keep rows that have a name, such as those of a word or a region.
    """

    kind: TokenKind | None = None
    index: int | slice | None = field(default=None, hash=False)
    pool: Pool | None = None
    steps: bool = False
    named: NamedRows | None = None

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Read a selector.

        Raises:
            SelectorError: It does not parse.

        >>> Selector.parse("image.mean").ragged
        False
        >>> str(Selector.parse("all[-1]"))
        'last'
        """
        match = _SELECTOR.fullmatch(_SHORT.get(text, text))
        form = match["named"] if match else None
        named = NamedRows.parse(form) if form else None
        if match is None or not (match["kind"] or named or (match["slice"] and not form)):
            raise SelectorError(
                f"{text!r} is not a selector.",
                subject=text,
                hint="Examples: last, image, image.mean, text[-4:].mean, all, [3:9], question, "
                "word(red), image.region(cube), image.frame(3). docs/extraction.md lists all.",
            )
        kind = _KINDS.get(match["kind"] or "all")
        if named is not None:
            kind = TokenKind.IMAGE if named.of_image else TokenKind.TEXT
        pool: Pool | None = {"mean": "mean", "max": "max"}.get(match["pool"] or "")  # type: ignore[assignment]
        steps = match["kind"] == "steps"
        return cls(kind, _index(match["slice"]), pool, steps, named)

    @property
    def ragged(self) -> bool:
        """Whether the number of kept rows depends on the sample."""
        return self.pool is None and not isinstance(self.index, int)

    def __str__(self) -> str:
        kind = "steps" if self.steps else "all" if self.kind is None else self.kind.name.lower()
        kind = kind if self.named is None else str(self.named)
        pool = f".{self.pool}" if self.pool else ""
        text = f"{kind}{_index_text(self.index)}{pool}"
        if text in _LONG:
            return _LONG[text]
        return text.removeprefix("all") if text.startswith("all[") else text

    def rows(self, layout: TokenLayout) -> Ints:
        """int64 `[k]`: the kept rows of the sample, as row numbers of the flattened output.

        Raises:
            SelectorError: The sample has no such row.
        """
        return layout.rows[self.positions(layout)]

    def positions(self, layout: TokenLayout) -> Ints:
        """int64 `[k]`: the kept rows of the sample, as places in `layout.rows`.

        Raises:
            SelectorError: The sample has no such row, or which rows are meant is not known.
            DataError: The sample's regions cannot be used.
        """
        places = self._of_kind(layout)
        if isinstance(self.index, int):
            inside = -len(places) <= self.index < len(places)
            places = places[[self.index]] if inside else places[:0]
        elif self.index is not None:
            places = places[self.index]
        if not len(places):
            raise SelectorError(
                f"The selector {str(self)!r} keeps no token of a sample with {len(layout)} tokens.",
                subject=str(self),
                hint="A sample without an image has no image tokens. `answer` and `steps` need "
                "--generate, `virtual` a model with a trained soft prompt. Choose another "
                "selector.",
            )
        return places

    def _of_kind(self, layout: TokenLayout) -> Ints:
        if self.named is not None:
            return named_positions(self.named, layout)
        if self.steps:
            return layout.positions(TokenKind.ANSWER) - 1
        if self.kind is None:
            return np.flatnonzero(layout.kinds != TokenKind.ANSWER)
        return layout.positions(self.kind)


def named_positions(named: NamedRows, layout: TokenLayout) -> Ints:
    """int64 `[k]`: the places of named rows in a layout.

    Raises:
        SelectorError: They are not known, or there is no such thing.
        DataError: The sample's regions cannot be used.
        ImageError: A mask cannot be read.
    """
    if named.of_image:
        return image_rows(named, layout)
    if layout.names is None:
        raise not_named(named)
    if layout.names.question is None:
        raise SelectorError(
            f"{str(named)!r}: the question's words do not stand on this axis.",
            subject=str(named),
            hint="Choose a site of the language model (llm.encoder.* where it has an encoder).",
        )
    return layout.names.question().rows(named)


@dataclass(frozen=True, slots=True)
class Column:
    """One site with one selector. Stores keep columns, and analyses read them.

    >>> column = Column.parse("llm.block.14/last")
    >>> column.site, str(column.selector), str(column)
    ('llm.block.14', 'last', 'llm.block.14/last')
    """

    site: str
    selector: Selector

    @classmethod
    def parse(cls, text: str) -> Column:
        """Read `SITE/SELECTOR`.

        Raises:
            SelectorError: The selector is missing or does not parse.
        """
        site, slash, selector = text.partition("/")
        if not slash:
            raise SelectorError(
                f"{text!r} is not a column: it has no selector.",
                subject=text,
                hint=f"Write {text}/last, for example.",
            )
        return cls(site, Selector.parse(selector))

    def __str__(self) -> str:
        return f"{self.site}/{self.selector}"


def _index(text: str | None) -> int | slice | None:
    if text is None:
        return None
    if ":" not in text:
        return int(text)
    low, high = text.split(":")
    return slice(int(low) if low else None, int(high) if high else None)


def _index_text(index: int | slice | None) -> str:
    if index is None:
        return ""
    if isinstance(index, int):
        return f"[{index}]"
    low = "" if index.start is None else index.start
    high = "" if index.stop is None else index.stop
    return f"[{low}:{high}]"
