"""Token layouts (what each row of an activation stands for), selectors, and pooling.

A layout describes one sample on one axis: which rows of a module's flattened output
`[rows, width]` belong to the sample, and what each row stands for. Padding belongs to no sample,
so it is never pooled. A selector keeps some of a sample's rows, and can pool them into one:

=====================  ================================================================
`last`, `first`        the last (first) row
`image`                the image's rows; `text`: the prompt's; `special`: CLS, separators
`all`                  every row of the prompt
`steps`                one row per generated token: the position that predicted it
`answer`               the rows of the generated tokens themselves (`steps` and `answer` need
                       `--generate` or an appended answer)
`[3:9]`, `[-1]`        rows by position, as Python slices; also `image[3:9]`, `text[-1]`
`image.mean`           pooled: `.mean` or `.max` after any of these
`mean`, `max`          short for `all.mean`, `all.max`
=====================  ================================================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from vlmlens._display import brief, count
from vlmlens.errors import SelectorError, SiteShapeError

if TYPE_CHECKING:
    import torch

    from vlmlens.sites import Site

Ints = npt.NDArray[np.int64]


class TokenKind(IntEnum):
    """What a row stands for."""

    TEXT = 0
    IMAGE = 1
    SPECIAL = 2
    ANSWER = 3


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Where each image row lies in the sample's images: one entry per image row, in row order.

    Args:
        image: int64 `[n]`, number of the image in the sample.
        view: `[n]`, the view of that image: "image", "global", "tile 0", ...
        row: int64 `[n]`, row in the view's grid; `col` likewise.
        rows: int64 `[n]`, number of rows in the grid; `cols` likewise.
        box: float32 `[n, 4]`, (left, top, right, bottom) as fractions of the original image's
            width and height. Values are outside 0..1 if the model pads the image, and NaN for
            rows that stand for no region.
    """

    image: Ints
    view: tuple[str, ...]
    row: Ints
    col: Ints
    rows: Ints
    cols: Ints
    box: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.view)

    def take(self, rows: Ints) -> PatchGrid:
        """The entries of the given image rows, in that order."""
        return PatchGrid(
            image=self.image[rows],
            view=tuple(self.view[i] for i in rows),
            row=self.row[rows],
            col=self.col[rows],
            rows=self.rows[rows],
            cols=self.cols[rows],
            box=self.box[rows],
        )

    def __repr__(self) -> str:
        views = dict.fromkeys(self.view)
        return brief(self, "", count(len(self), "row"), f"views: {', '.join(views)}")


@dataclass(frozen=True, slots=True)
class TokenLayout:
    """One sample's rows on one axis, in reading order.

    Args:
        rows: int64 `[n]`, row numbers in the module's output flattened to `[rows, width]`.
        kinds: uint8 `[n]`, a `TokenKind` per row.
        token_ids: int64 `[n]` on the language model's axis; None on other axes.
        patches: The patch grid of the rows of kind IMAGE; None if the family has no grid.
    """

    rows: Ints
    kinds: npt.NDArray[np.uint8]
    token_ids: Ints | None = None
    patches: PatchGrid | None = None

    def positions(self, kind: TokenKind) -> Ints:
        """int64 `[k]`: the positions of the sample's rows of that kind."""
        return np.flatnonzero(self.kinds == kind)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        found = ((kind.name.lower(), len(self.positions(kind))) for kind in TokenKind)
        kinds = (f"{number} {name}" for name, number in found if number)
        return brief(self, "", count(len(self), "row"), *kinds)


@dataclass(frozen=True, slots=True)
class AxisLayout:
    """The layouts of a batch on one axis.

    Args:
        total: Number of rows of a module's flattened output on this axis, padding included.
        samples: One layout per sample of the batch.
        others: Layouts of the same axis at other resolutions, each with another `total`: for
            modules after patches are merged, or before they are pooled.
    """

    total: int
    samples: Sequence[TokenLayout]
    others: Sequence[AxisLayout] = ()

    def at(self, rows: int) -> AxisLayout | None:
        """The layout of an output with that many rows; None if there is none."""
        return next((one for one in (self, *self.others) if one.total == rows), None)

    def __repr__(self) -> str:
        others = [f"also {', '.join(str(one.total) for one in self.others)}"] if self.others else []
        return brief(self, "", f"{self.total} rows", count(len(self.samples), "sample"), *others)


Pool = Literal["mean", "max"]
_KINDS: Mapping[str, TokenKind] = {
    "image": TokenKind.IMAGE,
    "text": TokenKind.TEXT,
    "special": TokenKind.SPECIAL,
    "answer": TokenKind.ANSWER,
}
_INT = "-?[0-9]{1,9}"
_SELECTOR = re.compile(
    r"(?P<kind>all|image|text|special|answer|steps)?"
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
    """

    kind: TokenKind | None = None
    index: int | slice | None = field(default=None, hash=False)
    pool: Pool | None = None
    steps: bool = False

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
        if match is None or not (match["kind"] or match["slice"]):
            raise SelectorError(
                f"{text!r} is not a selector.",
                subject=text,
                hint="Examples: last, image, image.mean, text[-4:].mean, all, [3:9].",
            )
        kind = _KINDS.get(match["kind"] or "all")
        pool: Pool | None = {"mean": "mean", "max": "max"}.get(match["pool"] or "")  # type: ignore[assignment]
        steps = match["kind"] == "steps"
        return cls(kind=kind, index=_index(match["slice"]), pool=pool, steps=steps)

    @property
    def ragged(self) -> bool:
        """Whether the number of kept rows depends on the sample."""
        return self.pool is None and not isinstance(self.index, int)

    def __str__(self) -> str:
        kind = "steps" if self.steps else "all" if self.kind is None else self.kind.name.lower()
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
            SelectorError: The sample has no such row.
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
                "--generate. Choose another selector.",
            )
        return places

    def _of_kind(self, layout: TokenLayout) -> Ints:
        if self.steps:
            return layout.positions(TokenKind.ANSWER) - 1
        if self.kind is None:
            return np.flatnonzero(layout.kinds != TokenKind.ANSWER)
        return layout.positions(self.kind)


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


def layout_of(activation: torch.Tensor, layout: AxisLayout, site: Site) -> AxisLayout:
    """The layout that fits an activation, `[..., width]`, by its number of rows.

    Raises:
        SiteShapeError: The number of rows is neither `layout.total` nor that of another layout.
    """
    rows = math.prod(activation.shape[:-1]) if activation.ndim else 0
    found = layout.at(rows)
    if found is None:
        raise SiteShapeError(
            f"The site {site.name!r} gave {tuple(activation.shape)}: {rows} rows, "
            f"but the {site.axis.value} axis has {layout.total}.",
            subject=site.name,
            hint="The model pools or reshapes the activation there; choose a block instead.",
        )
    return found


def select(
    activation: torch.Tensor, selector: Selector, layout: AxisLayout, site: Site
) -> list[torch.Tensor] | torch.Tensor:
    """The selected (and pooled) rows of every sample of a batch.

    Args:
        activation: A module's output, `[..., width]`; its leading dimensions are flattened.
        selector: Which rows to keep, and how to pool them.
        layout: The batch's layout on the site's axis.
        site: The site, for error messages.

    Returns:
        `[samples, width]`, or a list of `[k_i, width]` for a ragged selector. Means are computed
        in float32 (in float64 for float64) and returned in the activation's dtype.

    Raises:
        SiteShapeError: The number of rows is neither `layout.total` nor that of another layout.
        SelectorError: A sample has no such token.
    """
    import torch

    found = layout_of(activation, layout, site)
    flat = activation.reshape(found.total, activation.shape[-1])
    kept = [selector.rows(sample) for sample in found.samples]
    counts = [len(rows) for rows in kept]
    index = torch.from_numpy(np.concatenate(kept)).to(flat.device)
    chosen = flat.index_select(0, index)
    if selector.ragged:
        return list(chosen.split(counts))
    if selector.pool is None:
        return chosen
    return pooled(chosen.split(counts), selector.pool)


def pooled(blocks: Sequence[torch.Tensor], pool: Pool) -> torch.Tensor:
    """Each block `[rows, width]` pooled into one row: `[blocks, width]`; means in float32."""
    import torch

    if pool == "max":
        return torch.stack([block.amax(0) for block in blocks])
    dtype = blocks[0].dtype
    precise = torch.promote_types(dtype, torch.float32)
    return torch.stack([block.mean(0, dtype=precise) for block in blocks]).to(dtype)


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
