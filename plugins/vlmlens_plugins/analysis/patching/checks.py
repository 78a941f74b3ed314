"""The conformance kit for patching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from vlmlens_plugins.analysis.manifests import PATCHING

_PAIRS = 10


class PatchingChecks(AnalysisTests):
    """Whether image rows carry the answer from the clean run into the corrupted one.

    - present: the two pictures of a pair differ, and the model's answer with them.
    - absent: the picture is the same, and another word in the prompt changes the answer.
    - confounded: both differ, and the model is blind, so that only the word can change the answer.
    """

    manifest: ClassVar[Manifest] = PATCHING
    options: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"rows": ("image", "last"), "draws": 200, "controls": 1, "patches": 1, "min_difference": 0}
    )

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        return _planted(signal)

    def claims(self, result: Result) -> bool:
        """See `AnalysisTests.claims`."""
        of_image = [one for one in result.findings if one.values.get("rows") == "image"]
        return any(
            one.verdict is Verdict.DIFFERS and float(one.values["effect"] or 0) > 0
            for one in of_image
        )


@cache
def _planted(signal: Signal) -> Planted:
    """Once for all analyses that look for it; see `PatchingChecks`."""
    vlm = tiny_model(blind=signal == "confounded")
    asked = [
        Sample(
            f"s{i}",
            "Which letter is that?" if signal == "present" else f"{f'{letter} ' * 6}?",
            (_picture(0 if signal == "absent" else i),),
            choices=tuple(ascii_lowercase),
            task="planted",
        )
        for i, letter in enumerate(ascii_lowercase)
    ]
    labelled = [
        replace(sample, label=label)
        for sample, label in zip(asked, answered(vlm, asked), strict=True)
    ]
    samples = _paired(labelled)
    return Planted(samples, columns_of(vlm, samples), lambda: vlm)


def _paired(samples: Sequence[Sample]) -> list[Sample]:
    """Pairs of samples with different answers."""
    rest = list(samples)
    found: list[Sample] = []
    while rest and len(found) < 2 * _PAIRS:
        clean = rest.pop(0)
        partner = next((other for other in rest if other.label != clean.label), None)
        if partner is None:
            continue
        rest.remove(partner)
        for sample, role in ((clean, "clean"), (partner, "corrupted")):
            named = {"pair": clean.id, "role": role}
            found.append(replace(sample, attributes=named, group=clean.id))
    return found


def _picture(number: int) -> Image.Image:
    colours = np.random.default_rng(number).integers(0, 256, (2, 2, 3), np.uint8)
    return Image.fromarray(colours).resize((32, 32), Image.Resampling.NEAREST)


PATCHING_CHECKS = (PatchingChecks,)
