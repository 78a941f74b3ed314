"""The conformance kit for the built-in analyses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from vlmlens.abc import ModelAdapter, Values
from vlmlens.manifest import Manifest
from vlmlens.results import Result
from vlmlens.testing import AnalysisTests, Planted, Signal
from vlmlens.testing.planting import columns_of, in_model
from vlmlens.tokens import TokenKind
from vlmlens_plugins.analysis.manifests import (
    ATTENTION_MAP,
    BLIND_TEST,
    LOGIT_LENS,
    PROBE,
    STEERING,
)

_QUICK = MappingProxyType({"draws": 1000, "resamples": 200})


class ProbeChecks(AnalysisTests):
    """Whether columns tell the label; groups are the confounder."""

    manifest: ClassVar[Manifest] = PROBE
    options: ClassVar[Mapping[str, Any]] = _QUICK


class BlindTestChecks(AnalysisTests):
    """Whether the model looks; always being right without looking is the confounder."""

    manifest: ClassVar[Manifest] = BLIND_TEST
    options: ClassVar[Mapping[str, Any]] = _QUICK


class LogitLensChecks(AnalysisTests):
    """Whether the answer is there from the first block on.

    - present: the second block passes on what the first gives.
    - absent: both compute.
    - confounded: as present, and the rows of the first block are other samples': the same answers
      as a whole, and none at its place.
    """

    manifest: ClassVar[Manifest] = LOGIT_LENS

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        vlm = _model(passes_on=signal != "absent")
        samples = in_model("present").samples
        columns = dict(columns_of(vlm, samples))
        if signal == "confounded":
            first = columns["llm.block.0/last"]
            columns["llm.block.0/last"] = Values(np.roll(first.array, 1, 0), first.dtype)
        return Planted(samples, columns, lambda: vlm)

    def claims(self, result: Result) -> bool:
        """See `AnalysisTests.claims`."""
        return all(finding.values["settling_index"] == 0 for finding in result.findings)


@cache
def _model(*, passes_on: bool) -> ModelAdapter:
    """The tiny model, with blocks that do more, so that answers differ; or the second nothing."""
    import torch

    from vlmlens.testing.model import TinyLlava, request

    vlm = TinyLlava.load(request())
    names = ("llm.block.0", "llm.block.1")
    first, second = (vlm.module.get_submodule(vlm.sites.canonical[n].path) for n in names)
    with torch.no_grad():
        first.get_submodule("self_attn.o_proj").get_parameter("weight").mul_(4)
        for parameter in second.parameters():
            parameter.mul_(0 if passes_on else 4)
    return vlm


class AttentionMapChecks(AnalysisTests):
    """Whether the last token looks at the image; it describes, and claims nothing."""

    manifest: ClassVar[Manifest] = ATTENTION_MAP

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`: even weights on all image tokens, or none."""
        made = in_model("present")
        assert made.model is not None  # noqa: S101
        vlm = made.model()
        counts = [len(vlm.encode([s]).layout(0).positions(TokenKind.IMAGE)) for s in made.samples]
        even = np.full((sum(counts), 2), 0.0 if signal == "absent" else 1 / max(counts), np.float32)
        columns = {
            f"llm.block.{i}.attn/last": Values(even, "float32", tuple(counts)) for i in (0, 1)
        }
        return Planted(made.samples, columns, made.model)


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


PROBE_CHECKS = (ProbeChecks,)
LOGIT_LENS_CHECKS = (LogitLensChecks,)
BLIND_TEST_CHECKS = (BlindTestChecks,)
ATTENTION_MAP_CHECKS = (AttentionMapChecks,)
STEERING_CHECKS = (SteeringChecks,)
