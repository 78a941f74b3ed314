"""Occlusion maps: a box slides over the image, and the score of the answer falls or not.

M. Zeiler, R. Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, arXiv
1311.2901. Pixels of the original image are hidden, before any processing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext
from vlmlens_plugins.analysis._altered import Alteration, Fill, Question, ask
from vlmlens_plugins.analysis._maps.aims import Aim
from vlmlens_plugins.analysis._maps.cells import Cells
from vlmlens_plugins.analysis._maps.maps import PatchMap

Floats = npt.NDArray[np.float64]


def occlusion_maps(
    context: AnalysisContext,
    asked: Sequence[tuple[Aim, Cells]],
    *,
    window: int = 1,
    fill: Fill = "mean",
) -> list[PatchMap]:
    """How far the score of the answer falls where pixels are hidden, for each cell of the images.

    Windows are moved cell by cell, also over the edges, so that each cell is hidden equally often:
    by `window` squared windows. Its value is the mean of what they do.

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
            aim.question(Alteration(hide=cells.box(image, x, y, x + window, y + window), fill=fill))
            for image in range(len(cells.sizes))
            for y in range(1 - window, cells.side)
            for x in range(1 - window, cells.side)
        ]
    found = iter(ask(context, questions))
    made = []
    for aim, cells in asked:
        whole = aim.score(next(found))
        side = cells.side + window - 1
        falls = [whole - aim.score(next(found)) for _ in range(len(cells.sizes) * side**2)]
        by_window = np.array(falls).reshape(-1, side, side)
        views = np.lib.stride_tricks.sliding_window_view(by_window, (window, window), (1, 2))
        made.append(PatchMap(views.mean((-2, -1)).ravel(), cells.grid))
    return made


def windows(images: int, side: int, window: int) -> int:
    """How many windows a map of so many images takes."""
    return images * (side + window - 1) ** 2
