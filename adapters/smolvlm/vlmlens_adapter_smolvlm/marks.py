"""What the processor writes around the tokens of an image: no words of the prompt.

Tiles are announced by their row and column (`<row_1_col_2>`), and rows of tiles end in a line
break. In the small checkpoints a mark is a special token. Elsewhere (Idefics3-8B, SmolVLM 2.2B) it
is spelled, and line breaks are text everywhere: without this module they would count as the user's
text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vlmlens.tokens import AxisLayout, PatchGrid, TokenKind, TokenLayout


def without_marks(
    layout: AxisLayout, grids: Sequence[PatchGrid | None], opening: int
) -> AxisLayout:
    """The layout of a sequence in which the marks of images are special tokens.

    Args:
        layout: With one layout per sample.
        grids: The patch grid of each sample.
        opening: Id of the token before each mark (`<fake_token_around_image>`).
    """
    found = []
    for one, grid in zip(layout.samples, grids, strict=True):
        if grid is None or one.token_ids is None:
            found.append(one)
        else:
            found.append(_marked(one, grid.image, np.equal(one.token_ids, opening)))
    return replace(layout, samples=found)


def _marked(
    layout: TokenLayout, images: npt.NDArray[np.int64], opening: npt.NDArray[np.bool_]
) -> TokenLayout:
    """A sample's layout, its marks special.

    Args:
        layout: Of the sample.
        images: The number of its image, of each image token.
        opening: Where a mark may begin, of each token.
    """
    kinds, places = layout.kinds.copy(), layout.positions(TokenKind.IMAGE)
    for number in np.unique(images):
        own = places[images == number]
        before = np.flatnonzero(opening[: own[0]])
        start = before[-1] if len(before) else own[0]
        inside = kinds[start : own[-1]]
        inside[inside == TokenKind.TEXT] = TokenKind.SPECIAL
    return replace(layout, kinds=kinds)
