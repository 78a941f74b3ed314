"""Occlusion maps: a box slides over the image, and the score of the answer falls or not.

M. Zeiler, R. Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, arXiv
1311.2901. Pixels of the original image are hidden, before any processing.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.abc import AnalysisContext
from vlmlens_plugins.analysis._altered import Alteration, Fill, ask
from vlmlens_plugins.analysis._maps.cells import Ints
from vlmlens_plugins.analysis._maps.maps import PatchMap
from vlmlens_plugins.analysis._maps.sliding import Asked, Floats, slid


def occlusion_maps(
    context: AnalysisContext, asked: Asked, *, window: int = 1, fill: Fill = "mean"
) -> list[PatchMap]:
    """How far the score of the answer falls where pixels are hidden, for each cell of the images.

    Windows are moved cell by cell, see `Cells.windows`, and widened where they hide too little, see
    `slid`.

    Args:
        context: The context of the analysis.
        asked: Per sample, what is followed, and the cells.
        window: Cells along each side of a window.
        fill: What hidden pixels are filled with.
    """

    def scored(numbers: Sequence[int], hidden: Sequence[Sequence[Ints]]) -> list[list[Floats]]:
        questions = []
        for i, sets in zip(numbers, hidden, strict=True):
            aim, cells = asked[i]
            questions += [
                aim.question(Alteration(hide=cells.area(own), fill=fill) if len(own) else None)
                for own in sets
            ]
        found = iter(ask(context, questions))
        return [[next(found) for _ in sets] for sets in hidden]

    values = slid(asked, window, scored)
    return [PatchMap(own, cells.grid) for own, (_, cells) in zip(values, asked, strict=True)]
