"""The conformance kit for steering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AnalysisTests, Planted, Signal
from vlmlens.testing.planting import in_model
from vlmlens_plugins.analysis.manifests import STEERING


class SteeringChecks(AnalysisTests):
    """Whether a direction learnt from labels moves the answer towards one of them.

    - present: the labels are the model's answers.
    - absent: the model sees nothing, and the labels are random.
    - confounded: each label is another letter than the one that the model answers, in a fixed
      way. The labels can be read, and the direction moves the answer, but to that other letter.
    """

    manifest: ClassVar[Manifest] = STEERING
    options: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"sites": ["llm.block.1"], "strengths": [0, 1], "controls": 12, "samples": 16, "draws": 200}
    )

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        if signal != "confounded":
            return in_model(signal)
        data = in_model("present")
        choices = data.samples[0].choices
        other = dict(zip(choices, (*choices[1:], choices[0]), strict=True))
        samples = [replace(sample, label=other[str(sample.label)]) for sample in data.samples]
        return replace(data, samples=samples)


STEERING_CHECKS = (SteeringChecks,)
