"""Token layouts (what each row of an activation stands for), selectors, and pooling.

A layout describes one sample on one axis: which rows of a module's flattened output
`[rows, width]` belong to the sample, and what each row stands for. Padding belongs to no sample,
so it is never pooled. A selector keeps some of a sample's rows, and can pool them into one:

=====================  ================================================================
`last`, `first`        the last (first) row
`image`                the image's rows; `text`: all other rows of the prompt but `special`
                       ones (CLS, separators), so the chat template's words, too
`all`                  every row of the prompt
`question`             the user's words, without the chat template
`word(red)`            the rows of a word of the question, each time that it occurs
`option(B)`            the rows of an answer option, without its letter; also `option(red)`
`image.region(cube)`   the patches that overlap a region of the sample (its attribute
                       `regions`); `image.region(cube, ring=1)`: with their neighbours
`image.rest(cube)`     the other image rows; `image.rest`: those in no region
`image.view(0)`        the rows of a view: of a tile, of the whole image; by number or name
`image.patch(2, 3)`    a patch by row and column, from 0, in each view
`image.frame(3)`       the rows of a frame of a video, or of one of several images, from 0;
                       `image.frame(-1)`, `image.frame(2:5)`. Rows that stand for several
                       frames belong to each of them
`video`                the rows of all frames; `video.mean`: pooled over all of them
`steps`                one row per generated token: the position that predicted it
`answer`               the rows of the generated tokens themselves (`steps` and `answer` need
                       `--generate` or an appended answer)
`[3:9]`, `[-1]`        rows by position, as Python slices; also `image[3:9]`, `word(red)[-1]`
`image.mean`           pooled: `.mean` or `.max` after any of these
`mean`, `max`          short for `all.mean`, `all.max`
=====================  ================================================================

The modules of `vlmlens.rows` define them; import the names from here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmlens.errors import SiteShapeError
from vlmlens.rows.layouts import AxisLayout, Ints, PatchGrid, TokenKind, TokenLayout
from vlmlens.rows.selector import Column, Pool, Selector
from vlmlens.rows.uploads import KeptRows

if TYPE_CHECKING:
    import torch

    from vlmlens.sites import Site

__all__ = [
    "AxisLayout",
    "Column",
    "Ints",
    "PatchGrid",
    "Pool",
    "Selector",
    "TokenKind",
    "TokenLayout",
    "layout_of",
    "pooled",
    "select",
]


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
    activation: torch.Tensor,
    selector: Selector,
    layout: AxisLayout,
    site: Site,
    kept: KeptRows | None = None,
) -> list[torch.Tensor] | torch.Tensor:
    """The selected (and pooled) rows of every sample of a batch.

    Args:
        activation: A module's output, `[..., width]`; its leading dimensions are flattened.
        selector: Which rows to keep, and how to pool them.
        layout: The batch's layout on the site's axis.
        site: The site, for error messages.
        kept: What is known of the batch's rows; give the same one for all columns of a batch.

    Returns:
        `[samples, width]`, or a list of `[k_i, width]` for a ragged selector. Means are computed
        in float32 (in float64 for float64) and returned in the activation's dtype.

    Raises:
        SiteShapeError: The number of rows is neither `layout.total` nor that of another layout.
        SelectorError: A sample has no such token.
    """
    found = layout_of(activation, layout, site)
    flat = activation.reshape(found.total, activation.shape[-1])
    index, counts = (kept or KeptRows()).of(selector, found, flat.device)
    chosen = flat.index_select(0, index)
    if selector.pool is None and not selector.ragged:
        return chosen
    blocks = chosen.split(list(counts))
    return list(blocks) if selector.pool is None else pooled(blocks, selector.pool)


def pooled(blocks: Sequence[torch.Tensor], pool: Pool) -> torch.Tensor:
    """Each block `[rows, width]` pooled into one row: `[blocks, width]`; means in float32."""
    import torch

    if pool == "max":
        return torch.stack([block.amax(0) for block in blocks])
    dtype = blocks[0].dtype
    precise = torch.promote_types(dtype, torch.float32)
    return torch.stack([block.mean(0, dtype=precise) for block in blocks]).to(dtype)
