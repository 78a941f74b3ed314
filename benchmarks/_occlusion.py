"""What maps cost beside bare passes: the part of `causal` that is about occlusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks._compare import Target, in_turn, ratios, table
from vlmlens.abc import AnalysisContext
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import TokenKind
from vlmlens_plugins.analysis._blank_images import image_sizes
from vlmlens_plugins.analysis._maps.aims import Aim
from vlmlens_plugins.analysis._maps.cells import Cells
from vlmlens_plugins.analysis._maps.map_work import maps_by
from vlmlens_plugins.analysis._maps.occluding import occlusion_maps
from vlmlens_plugins.analysis._maps.replacing import row_maps
from vlmlens_plugins.analysis._maps.sliding import units_of_windows

Floats = npt.NDArray[np.float64]
GRID, BATCH = 3, 9
LIMIT, NEAR = 1.1, 1e-3


def occlusions(vlm: Any, samples: Sequence[Sample], answer: str, rounds: int) -> list[Target]:
    """Maps of pixels, of rows and of gradients beside a loop over the altered images.

    The loop opens each image once, fills a window in an array, and gives batches of such images to
    `encode` and `forward`. Windows are as wide as the image, so that none has to be widened.

    Args:
        vlm: The model.
        samples: Samples with one image.
        answer: What is followed, all its tokens in turn.
        rounds: Of timing.
    """
    context = AnalysisContext([], None, cache(lambda: vlm), batch_size=BATCH)  # type: ignore[arg-type]
    asked = [(Aim(one, (answer,)), Cells(image_sizes(one), GRID)) for one in samples]
    bare, own, rows, slopes = "a loop over images", "occlusion", "rows", "gradients"
    found: dict[str, list[Floats]] = {}

    def keep(name: str, made: list[Floats]) -> None:
        found[name] = made

    variants: dict[str, Callable[[], object]] = {
        bare: lambda: keep(bare, [_by_hand(vlm, aim) for aim, _ in asked]),
        own: lambda: keep(own, [one.values for one in occlusion_maps(context, asked, window=GRID)]),
        rows: lambda: row_maps(context, asked, "projector", window=GRID),
        slopes: lambda: maps_by(context, slopes, [aim for aim, _ in asked]),
    }
    seconds = in_turn(variants, rounds)
    passes = units_of_windows(1, GRID, GRID)
    print(
        f"a map of {GRID} x {GRID} cells takes {passes} passes of a sample, in batches of {BATCH}; "
        f"the map of rows as many, without the vision tower; that of gradients one, and back"
    )
    print(table(seconds, bare, per=len(samples) * passes, unit="sample and pass"))
    apart = float(np.abs(np.array(found[own]) - np.array(found[bare])).max())
    print(f"largest difference between {own} and {bare}: {apart:.1e}", end="\n\n")
    assert apart < NEAR < np.ptp(found[bare])
    wall, cpu = (median(ratios(seconds[own], seconds[bare], kind)) for kind in ("wall", "cpu"))
    return [Target("occlusion map, of a loop over images", wall, LIMIT, cpu=cpu)]


def _by_hand(vlm: Any, aim: Aim) -> Floats:
    """The mean falls of the log-probability, cell by cell."""
    pixels = np.asarray(aim.sample.open_images()[0])
    height, width = pixels.shape[:2]
    mean = pixels.mean((0, 1)).round().astype(np.uint8)
    shown = [Image.fromarray(pixels), Image.fromarray(np.broadcast_to(mean, pixels.shape).copy())]
    covers = []
    for y in range(1 - GRID, GRID):
        for x in range(1 - GRID, GRID):
            top, left, bottom, right = (
                max(0, y),
                max(0, x),
                min(GRID, y + GRID),
                min(GRID, x + GRID),
            )
            hidden = pixels.copy()
            hidden[
                round(top * height / GRID) : round(bottom * height / GRID),
                round(left * width / GRID) : round(right * width / GRID),
            ] = mean
            shown.append(Image.fromarray(hidden))
            rows, cols = (
                np.minimum(at + 1, GRID - at).clip(0)
                for at in (np.arange(GRID) - y, np.arange(GRID) - x)
            )
            covers.append(np.outer(rows, cols).ravel())
    ids = vlm.answer_ids(aim.answer)
    scores: list[float] = []
    for start in range(0, len(shown), BATCH):
        some = [
            Sample(f"{aim.sample.id} {start + i}", aim.sample.prompt, (image,))
            for i, image in enumerate(shown[start : start + BATCH])
        ]
        batch = vlm.encode(some, answers=[ids] * len(some))
        flat = vlm.forward(batch, logits="all").logits.flatten(0, 1)
        for layout in batch.layouts[Axis.LLM].samples:
            before = layout.rows[layout.positions(TokenKind.ANSWER) - 1]
            logs = flat[before].double().log_softmax(-1)
            scores.append(float(logs[range(len(ids)), ids].sum()))
    weights = np.array(covers) / np.sum(covers, 0)
    falls: Floats = (scores[0] - np.array(scores[2:])) @ weights
    return falls
