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
    rows = zip(layout.samples, grids, strict=True)
    found = [one if grid is None else _marked(one, grid.image, opening) for one, grid in rows]
    return replace(layout, samples=found)


def _marked(layout: TokenLayout, images: npt.NDArray[np.int64], opening: int) -> TokenLayout:
    """A sample's layout; `images` has the number of its image for each image token."""
    assert layout.token_ids is not None
    kinds, places = layout.kinds.copy(), layout.positions(TokenKind.IMAGE)
    for number in np.unique(images):
        own = places[images == number]
        before = np.flatnonzero(layout.token_ids[: own[0]] == opening)
        start = before[-1] if len(before) else own[0]
        inside = kinds[start : own[-1]]
        inside[inside == TokenKind.TEXT] = TokenKind.SPECIAL
    return replace(layout, kinds=kinds)
