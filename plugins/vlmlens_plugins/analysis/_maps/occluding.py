"""Occlusion maps: a box slides over the image, and the score of the answer falls or not.

M. Zeiler, R. Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, arXiv
1311.2901. Pixels of the original image are hidden, before any processing.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.abc import AnalysisContext
from vlmlens_plugins.analysis._altered import Alteration, Fill, Question, ask
from vlmlens_plugins.analysis._maps.aims import Aim
from vlmlens_plugins.analysis._maps.cells import Cells
from vlmlens_plugins.analysis._maps.maps import PatchMap


def occlusion_maps(
    context: AnalysisContext,
    asked: Sequence[tuple[Aim, Cells]],
    *,
    window: int = 1,
    fill: Fill = "mean",
) -> list[PatchMap]:
    """How far the score of the answer falls where pixels are hidden, for each cell of the images.

    Windows are moved cell by cell, see `Cells.windows`. The value of a cell is the mean of what
    hiding the windows over it does.

    Args:
        context: The context of the analysis.
        asked: Per sample, what is followed, and the cells.
        window: Cells along each side of a window.
        fill: What hidden pixels are filled with.
    """
    questions: list[Question] = []
    for aim, cells in asked:
        questions.append(aim.question())
        questions += [
            aim.question(Alteration(hide=cells.area(own), fill=fill))
            for own in cells.windows(window)
        ]
    found = iter(ask(context, questions))
    made = []
    for aim, cells in asked:
        whole = aim.score(next(found))
        falls = [whole - aim.score(next(found)) for _ in cells.windows(window)]
        made.append(PatchMap(cells.of_windows(falls, window), cells.grid))
    return made


def windows(images: int, side: int, window: int) -> int:
    """How many windows a map of so many images takes."""
    return images * (side + window - 1) ** 2
