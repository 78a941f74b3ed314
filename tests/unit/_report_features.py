"""An example figure of features, with texts as hostile as wanted."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.results import (
    FeatureLabel,
    FeatureMap,
    FeaturePage,
    FeaturePlaces,
    FeatureSample,
    FeatureScene,
    Figure,
)
from vlmlens.samples import Sample

SIDE = 4
COLUMN = "vision.block.3/all"


def features(samples: Sequence[Sample], evil: str = "") -> Figure:
    """Three features: feature 7 fires in patch 5, feature 40 in patches 5 and 6, 41 nowhere."""
    shown = samples[:2]
    pages = [
        _page(7, shown, [5], evil, name=f"color: red (AUC 0.99){evil}", label="red"),
        _page(40, shown, [5, 6], evil),
        FeaturePage(41, COLUMN, f"drawn at random{evil}", 0.0, 128, written=f"No readout.{evil}"),
    ]
    return Figure(
        "features", f"Features of {COLUMN}{evil}", "features", [], pages=pages,
        scenes=[_scene(sample) for sample in shown],
    )  # fmt: skip


def _page(
    number: int,
    samples: Sequence[Sample],
    patches: Sequence[int],
    evil: str,
    name: str = "",
    label: str = "blue",
) -> FeaturePage:
    return FeaturePage(
        number,
        COLUMN,
        f"best for color: {label}{evil}",
        0.0625,
        128,
        name,
        [0.5, 1.0, 2.0],
        [3, 5],
        [_sample(each, rank, patches, evil) for rank, each in enumerate(samples)],
        [FeatureLabel(f"color{evil}", f"{label}{evil}", 0.99, 0.6, 0.01 if name else 0.5, 30)],
        [(f"\u2423red{evil}", 3.5)],
        [(f"\u2423blue{evil}", -2.5)],
        f"Standard deviations.{evil}",
        [(47 - number, 0.75), (99, -0.5)],
        {f"image{evil}": 1.0},
        f"Something red.\nReally.{evil}" if name else "",
        f"mine.py:tell{evil}",
    )


def _sample(sample: Sample, rank: int, patches: Sequence[int], evil: str) -> FeatureSample:
    boxes = [_box(patch) for patch in patches]
    values = [2.0 - 0.5 * rank - 0.25 * i for i in range(len(patches))]
    why = f"top {rank + 1}" if rank == 0 else "quantile 0.5"
    tokens = [f"What{evil}", "color?"] if rank or evil else []
    return FeatureSample(
        sample.id, why, values[0], {f"color{evil}": f"red{evil}"},
        [FeatureMap(0, "", boxes, values)], tokens, [None, 1.0] if tokens else [],
    )  # fmt: skip


def _scene(sample: Sample) -> FeatureScene:
    boxes = [_box(patch) for patch in range(SIDE * SIDE)]
    fires: list[list[tuple[int, float]]] = [[] for _ in boxes]
    fires[5], fires[6] = [(40, 2.0), (7, 1.5)], [(40, 1.25)]
    return FeatureScene(sample.id, [(40, 2.0), (7, 1.5)], [FeaturePlaces(0, "", boxes, fires)])


def _box(patch: int) -> tuple[float, float, float, float]:
    row, col = divmod(patch, SIDE)
    return col / SIDE, row / SIDE, (col + 1) / SIDE, (row + 1) / SIDE
