"""The conformance kit for the analysis of attention."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from vlmlens.abc import ModelAdapter, Values
from vlmlens.manifest import Manifest
from vlmlens.samples import Sample
from vlmlens.testing import AnalysisTests, Planted, Signal
from vlmlens.testing.planting import columns_of, in_model
from vlmlens_plugins.analysis.manifests import ATTENTION

_PATCH, _SIDE = 8, 4
"""Pictures of the kit are cut into 4 x 4 patches of 8 x 8 pixels."""

_QUICK = MappingProxyType(
    {"draws": 100, "maps": 1, "samples": 20, "methods": ("relevance",), "heads": ()}
)
Floats = npt.NDArray[np.float64]


class AttentionChecks(AnalysisTests):
    """Whether the last row looks at a region of 2 x 2 patches more than elsewhere.

    - present: it is where the model looks.
    - absent: it is anywhere.
    - confounded: it is where the model looks in another picture, which may be the same place.
    """

    manifest: ClassVar[Manifest] = ATTENTION
    options: ClassVar[Mapping[str, Any]] = _QUICK

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        vlm, samples = looking(), in_model("present").samples
        looks = [int(own.argmax()) for own in _windows(vlm, samples)]
        if signal == "absent":
            looks = np.random.default_rng(0).integers(0, (_SIDE - 1) ** 2, len(looks)).tolist()
        elif signal == "confounded":
            looks = np.random.default_rng(0).permutation(looks).tolist()
        given = [with_region(one, place) for one, place in zip(samples, looks, strict=True)]
        return Planted(given, columns_of(vlm, given), lambda: vlm)


class AttentionColumnsChecks(AnalysisTests):
    """The same of stored weights.

    - present: most of the weight is in the region.
    - absent: all patches get the same.
    - confounded: all weight is on one patch, wherever the region is.
    """

    manifest: ClassVar[Manifest] = ATTENTION
    options: ClassVar[Mapping[str, Any]] = _QUICK

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        made = in_model("present")
        places = np.arange(len(made.samples)) % (_SIDE - 1) ** 2
        samples = [with_region(s, int(p)) for s, p in zip(made.samples, places, strict=True)]
        rows = np.full((len(samples), _SIDE**2, 2), 0.5 / _SIDE**2, np.float32)
        if signal == "present":
            for number, place in enumerate(places):
                rows[number, _inside(int(place))] = 0.15
        elif signal == "confounded":
            rows[:] = 0
            rows[:, 5] = 1
        lengths = (_SIDE**2,) * len(samples)
        values = Values(rows.reshape(-1, 2), "float32", lengths)
        columns = {f"llm.block.{i}.attn/last": values for i in (0, 1)}
        return Planted(samples, columns, made.model)


@cache
def looking() -> ModelAdapter:
    """The tiny model, with keys and queries so large that attention is far from even."""
    import torch

    from vlmlens.testing.model import TinyLlava, request

    vlm = TinyLlava.load(request())
    with torch.no_grad():
        for site in vlm.sites.resolve("llm.block.*.attn"):
            for name in ("q_proj", "k_proj"):
                module = vlm.module.get_submodule(f"{site.path}.{name}")
                module.get_parameter("weight").mul_(6)
    return vlm


def with_region(sample: Sample, place: int) -> Sample:
    """The sample with a region of 2 x 2 patches at one of the 3 x 3 places."""
    top, left = (_PATCH * each for each in divmod(place, _SIDE - 1))
    box = [left, top, left + 2 * _PATCH, top + 2 * _PATCH]
    return replace(sample, attributes={"regions": json.dumps({"main": box})})


def _inside(place: int) -> list[int]:
    top, left = divmod(place, _SIDE - 1)
    return [_SIDE * (top + y) + left + x for y in (0, 1) for x in (0, 1)]


def _windows(vlm: ModelAdapter, samples: Sequence[Sample]) -> Floats:
    """`[samples, 9]`: what the last row pays to each 2 x 2 patches, mean over heads and blocks."""
    from vlmlens_plugins.analysis._maps import METHODS

    maps = METHODS["attention"](vlm, vlm.encode(samples), [[0]] * len(samples))
    return np.array(
        [[one.values[_inside(place)].sum() for place in range((_SIDE - 1) ** 2)] for one in maps]
    )


ATTENTION_CHECKS = (AttentionChecks, AttentionColumnsChecks)
