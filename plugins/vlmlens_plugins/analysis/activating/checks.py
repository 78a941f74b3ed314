"""The conformance kit for activating."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from vlmlens.manifest import Manifest
from vlmlens.testing import AnalysisTests, Planted, Signal
from vlmlens.testing.model import tiny_model
from vlmlens.testing.planting import columns_of, in_model
from vlmlens_plugins.analysis._separating import areas
from vlmlens_plugins.analysis.manifests import ACTIVATING

_COLUMN, _NUMBER = "llm.block.1/last", 5
_GROUPS = 8
_TRAP = 0.8


class ActivatingChecks(AnalysisTests):
    """Whether a coordinate of a tiny model separates labels.

    - present: the label says whether the coordinate is above its median.
    - absent: labels are random.
    - confounded: eight pictures, each asked six times, and a label for each picture. By chance the
      labels fit the values well: sample by sample they look separated, picture by picture not.
    """

    manifest: ClassVar[Manifest] = ACTIVATING
    options: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "coordinates": (f"{_COLUMN}#{_NUMBER}", "vision.block.0/image.mean#1"),
            "top": 2,
            "quantiles": (0.5,),
            "random": 1,
            "references": 4,
            "steps": 2,
            "controls": 1,
        }
    )

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        vlm = tiny_model()
        samples = list(in_model("present").samples)
        if signal == "confounded":
            first = [replace(one, prompt=samples[0].prompt) for one in samples[:_GROUPS]]
            samples = [
                replace(first[i % _GROUPS], id=one.id, group=f"g{i % _GROUPS}")
                for i, one in enumerate(samples)
            ]
        columns = columns_of(vlm, samples)
        values = columns[_COLUMN].numpy()[:, _NUMBER].astype(np.float64)
        high = values > np.median(values)
        if signal == "absent":
            high = np.random.default_rng(0).random(len(samples)) < 0.5
        if signal == "confounded":
            high = np.resize(_trap(values[:_GROUPS]), len(samples))
        labelled = [
            replace(one, label="high" if is_high else "low")
            for one, is_high in zip(samples, high, strict=True)
        ]
        return Planted(labelled, columns, lambda: vlm)


def _trap(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which half of some values is called high: the one whose area is nearest to that of a trap."""

    def far(chosen: tuple[int, ...]) -> float:
        labels = ["high" if i in chosen else "low" for i in range(len(values))]
        return abs(float(areas(values, labels, ["high"])[0]) - _TRAP)

    best = min(combinations(range(len(values)), len(values) // 2), key=far)
    return np.isin(np.arange(len(values)), best)


ACTIVATING_CHECKS = (ActivatingChecks,)
