"""The conformance kit for the analysis of bottlenecks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from vlmlens.manifest import Manifest
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.testing import AnalysisTests, Planted, Signal
from vlmlens.testing.model import tiny_model
from vlmlens.testing.planting import columns_of, in_model
from vlmlens_plugins.analysis.bottleneck.causes import Cause
from vlmlens_plugins.analysis.manifests import BOTTLENECK

_PICTURES, _OF_GROUP = 60, 6
_COLUMN, _NUMBER = "llm.block.1/last", 5


class BottleneckChecks(AnalysisTests):
    """Whether errors of a tiny model are put down to the language model.

    Its weights are random, so it says nothing of what it sees.

    - present: the label is whether one coordinate of the last row is high, so it is seen.
    - absent: labels are random.
    - confounded: pictures of a group are the same, and have the same random label. It is read by
      recognizing the group; of another group nothing is known.
    """

    manifest: ClassVar[Manifest] = BOTTLENECK
    options: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"folds": 3, "C": (0.01,), "draws": 200, "charts": True}
    )

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        samples = _pictured()
        rng = np.random.default_rng(0)
        values = columns_of(tiny_model(), samples)[_COLUMN].numpy()[:, _NUMBER]
        high = values > np.median(values)
        if signal == "absent":
            high = rng.random(len(samples)) < 0.5
        if signal == "confounded":
            first = [i - i % _OF_GROUP for i in range(len(samples))]
            samples = [
                replace(sample, images=samples[k].images, group=samples[k].group)
                for sample, k in zip(samples, first, strict=True)
            ]
            high = (rng.random(len(samples)) < 0.5)[first]
        labelled = [
            replace(sample, label=sample.choices[int(is_high)])
            for sample, is_high in zip(samples, high, strict=True)
        ]
        return Planted(labelled, columns_of(tiny_model(), labelled), tiny_model)

    def claims(self, result: Result) -> bool:
        """See `AnalysisTests.claims`."""
        return result.findings[0].values.get("cause") == Cause.LANGUAGE.value


@cache
def _pictured() -> list[Sample]:
    """Questions with two answers; every picture is a group, and a text describes some."""
    return [
        replace(
            one,
            choices=one.choices[:2],
            attributes={} if i % 2 else {"description": f"A letter, number {i}."},
        )
        for i, one in enumerate(in_model("present", samples=_PICTURES).samples)
    ]


BOTTLENECK_CHECKS = (BottleneckChecks,)
