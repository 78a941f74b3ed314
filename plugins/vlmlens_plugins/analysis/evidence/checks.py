"""The conformance kit for the evidence analysis."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from string import ascii_lowercase
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from vlmlens.manifest import Manifest
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.testing import AnalysisTests, Planted, Signal
from vlmlens.testing.model import tiny_model
from vlmlens.testing.planting import answered, columns_of
from vlmlens_plugins.analysis.manifests import EVIDENCE

_DRAWN, _SAMPLES = 48, 9
_SIDE = 32
_LIT, _GRAY = [0, 0, 16, 16], [16, 16, 32, 32]


class EvidenceChecks(AnalysisTests):
    """Whether the answer rests on the one quarter of the picture that is not gray.

    - present: it is the key region, and the labels are the model's answers.
    - absent: it is the key region, and the model is blind.
    - confounded: as present, but the key region is another quarter: the answer rests on the image.
    """

    manifest: ClassVar[Manifest] = EVIDENCE
    options: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"draws": 200, "random_regions": 2, "fills": ("gray",), "blind": "gray"}
    )

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        return _planted(signal)

    def claims(self, result: Result) -> bool:
        """See `AnalysisTests.claims`."""
        return any(one.verdict is Verdict.RESTS_ON_REGION for one in result.findings)


@cache
def _planted(signal: Signal) -> Planted:
    vlm = tiny_model(blind=signal == "absent")
    regions = json.dumps({"key": _GRAY if signal == "confounded" else _LIT})
    asked = [
        Sample(
            f"s{i}",
            "Which letter is that?",
            (_picture(i),),
            choices=tuple(ascii_lowercase),
            task="planted",
            attributes={"regions": regions},
        )
        for i in range(_DRAWN)
    ]
    said = answered(vlm, asked)
    if signal == "absent":
        said = np.random.default_rng(0).choice(["a", "b", "c"], _DRAWN).tolist()
    # The answer to a picture that is gray everywhere (the first one) would not miss the quarter.
    often = Counter(answer for answer in said if answer != said[0]).most_common(2)
    letters = {letter for letter, _ in often}
    kept = [i for i in range(_DRAWN) if said[i] in letters][:_SAMPLES]
    choices = tuple(sorted({said[0], *letters}))
    samples = [replace(asked[i], label=said[i], choices=choices) for i in kept]
    return Planted(samples, columns_of(vlm, samples), lambda: vlm)


def _picture(number: int) -> Image.Image:
    """A gray picture with one quarter in a random color; that of number 0 is gray, too."""
    pixels = np.full((_SIDE, _SIDE, 3), 128, np.uint8)
    if number:
        pixels[:16, :16] = np.random.default_rng(number).integers(0, 256, 3)
    return Image.fromarray(pixels)


EVIDENCE_CHECKS = (EvidenceChecks,)
