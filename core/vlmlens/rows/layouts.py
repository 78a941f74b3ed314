"""Token layouts: what each row of an activation stands for, and where image rows lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from vlmlens._display import AsHtml, brief, count
from vlmlens.rows.names import Names

Ints = npt.NDArray[np.int64]


class TokenKind(IntEnum):
    """What a row stands for."""

    TEXT = 0
    IMAGE = 1
    SPECIAL = 2
    ANSWER = 3
    VIRTUAL = 4
    """A trained vector in place of a token's embedding; see `vlmlens.passes.soft_prompt`."""


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Where each image row lies in the sample's images: one entry per image row, in row order.

    Args:
        image: int64 `[n]`, number of the image in the sample; of a video, of the frame.
        view: `[n]`, the view of that image: "image", "global", "tile 0", ...
        row: int64 `[n]`, row in the view's grid; `col` likewise.
        rows: int64 `[n]`, number of rows in the grid; `cols` likewise.
        box: float32 `[n, 4]`, (left, top, right, bottom) as fractions of the original image's
            width and height. Values are outside 0..1 if the model pads the image, and NaN for
            rows that stand for no region.
        span: int64 `[n]`, how many frames a row stands for, from `image` on, where a family merges
            frames of a video; None: one.
    """

    image: Ints
    view: tuple[str, ...]
    row: Ints
    col: Ints
    rows: Ints
    cols: Ints
    box: npt.NDArray[np.float32]
    span: Ints | None = None

    def __len__(self) -> int:
        return len(self.view)

    @property
    def end(self) -> Ints:
        """int64 `[n]`: one more than the number of the last image, or frame, of each row."""
        return self.image + (1 if self.span is None else self.span)

    def of_image(self, number: int) -> npt.NDArray[np.bool_]:
        """Which rows stand for an image, or a frame, by its number in the sample: bool `[n]`."""
        found: npt.NDArray[np.bool_] = (self.image <= number) & (number < self.end)
        return found

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
            span=None if self.span is None else self.span[rows],
        )

    def __repr__(self) -> str:
        views = dict.fromkeys(self.view)
        return brief(self, "", count(len(self), "row"), f"views: {', '.join(views)}")


@dataclass(frozen=True, slots=True)
class TokenLayout(AsHtml):
    """One sample's rows on one axis, in reading order.

    Args:
        rows: int64 `[n]`, row numbers in the module's output flattened to `[rows, width]`.
        kinds: uint8 `[n]`, a `TokenKind` per row.
        token_ids: int64 `[n]` on the language model's axis; None on other axes.
        patches: The patch grid of the rows of kind IMAGE; None if the family has no grid.
        names: What the sample knows of its rows by name; None if the adapter does not say it.
    """

    rows: Ints
    kinds: npt.NDArray[np.uint8]
    token_ids: Ints | None = None
    patches: PatchGrid | None = None
    names: Names | None = field(default=None, compare=False)

    def positions(self, kind: TokenKind) -> Ints:
        """int64 `[k]`: the positions of the sample's rows of that kind."""
        return np.flatnonzero(self.kinds == kind)

    def texts(self) -> Sequence[str] | None:
        """The text of each row, `[n]`: what its token adds to the text before it.

        Empty for rows of images and virtual tokens. A character of several tokens is the text of
        the first one, and the others have none. None where rows are no tokens, or where the adapter
        does not say it.
        """
        known = None if self.names is None else self.names.texts
        return None if known is None else known()

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
