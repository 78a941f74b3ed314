"""The conformance kit for looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.results import Result
from vlmlens.testing import AnalysisTests, Planted, Signal
from vlmlens_plugins.analysis.look.options import BLANKS
from vlmlens_plugins.analysis.manifests import LOOK
from vlmlens_plugins.analysis.patching.checks import PatchingChecks

_CHOICES = ("a", "b")


class LookChecks(AnalysisTests):
    """Whether the answer needs the picture.

    - present: the tiny model, whose answers depend on the picture.
    - absent: a blind model, asked about the same pictures.
    - confounded: the blind model, and another word in each prompt changes its answers.
    """

    manifest: ClassVar[Manifest] = LOOK
    options: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"samples": 1, "grid": 3, "components": 2, "controls": 1, "max_new_tokens": 2}
    )

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        made = PatchingChecks().planted("present" if signal == "present" else "confounded")
        samples = [
            replace(one, attributes={}, choices=_CHOICES, label=_CHOICES[0]) for one in made.samples
        ]
        if signal == "absent":
            samples = [replace(one, prompt=samples[0].prompt) for one in samples]
        return replace(made, samples=samples)

    def claims(self, result: Result) -> bool:
        """See `AnalysisTests.claims`: without a picture the answer has another probability."""
        answer, *rest = (finding.values for finding in result.findings)
        blind = next(values for values in rest if "survives" in values)
        found = [float(blind[f"{fill}_probability"] or 0) for fill in BLANKS]
        return max(abs(one - float(answer["probability"] or 0)) for one in found) > _LITTLE


_LITTLE = 1e-3

LOOK_CHECKS = (LookChecks,)
