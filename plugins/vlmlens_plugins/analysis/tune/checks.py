"""The conformance kit for the analysis `tune`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from vlmlens.manifest import Manifest
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.testing import AnalysisTests, Planted, Signal
from vlmlens.testing.model import tiny_model
from vlmlens.testing.planting import columns_of
from vlmlens_plugins.analysis.manifests import TUNE

_SAMPLES, _OF_GROUP, _SIDE = 48, 6, 28
_LETTERS = ("a", "b")


class TuneChecks(AnalysisTests):
    """Whether a tiny model of random weights learns to tell dark pictures from light ones.

    - present: the label says whether the picture is light.
    - absent: labels are random.
    - confounded: pictures of a group are the same and have the same random label. It can be
      learned by heart; of another group nothing is known.
    """

    manifest: ClassVar[Manifest] = TUNE
    options: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "component": "llm", "method": "weights", "epochs": 5, "rate": 1e-2, "batch_size": 8,
            "draws": 200,
            "train": 0.4, "held_out": 0.1, "test": 0.5, "patience": 0,
        }
    )  # fmt: skip

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        return _planted(signal)

    def claims(self, result: Result) -> bool | None:
        """Whether the task is said to be learned."""
        return any(
            finding.verdict == "differs" and finding.subject == "planted"
            for finding in result.findings
        )


@cache
def _planted(signal: Signal) -> Planted:
    rng = np.random.default_rng(["present", "absent", "confounded"].index(signal))
    groups = np.arange(_SAMPLES) // (_OF_GROUP if signal == "confounded" else 1)
    light = rng.permutation(np.arange(groups[-1] + 1) % 2 == 0)
    told = light if signal == "present" else rng.permutation(light)
    samples = [
        Sample(
            f"s{i}", "Which letter?", (_picture(int(group), light=bool(light[group])),),
            label=_LETTERS[int(told[group])], choices=_LETTERS, group=f"g{group}", task="planted",
        )
        for i, group in enumerate(groups)
    ]  # fmt: skip
    if signal == "confounded":
        samples = [replace(one, prompt="Which letter?") for one in samples]
    return Planted(samples, columns_of(tiny_model(), samples), tiny_model)


def _picture(number: int, *, light: bool) -> Image.Image:
    """A light or dark picture with noise."""
    rng = np.random.default_rng(number)
    low = 160 if light else 0
    return Image.fromarray(rng.integers(low, low + 96, (_SIDE, _SIDE, 3), dtype=np.uint8))


CHECKS = (TuneChecks,)
"""The kit of this analysis."""
