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
from vlmlens.testing.planting import answered, columns_of, in_model
from vlmlens_plugins.analysis.manifests import (
    ABLATION,
    BLIND_TEST,
    KNOCKOUT,
    LOGIT_LENS,
    PROBE,
)

_FEW = MappingProxyType({"samples": 16, "draws": 200, "controls": 1})
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


class KnockoutChecks(AnalysisTests):
    """Whether the last row must read the image.

    - present: the model with larger heads.
    - absent: no row gets anything from others.
    - confounded: the last row pays attention to the image, whose rows are all like those of text.
    """

    manifest: ClassVar[Manifest] = KNOCKOUT
    options: ClassVar[Mapping[str, Any]] = {**_FEW, "routes": ["image -> last"]}

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        import torch

        vlm = _with_heads(0 if signal == "absent" else 4)
        if signal == "confounded":
            weights = dict(vlm.module.named_parameters())
            (embedded,) = (own for name, own in weights.items() if "embed_tokens" in name)
            with torch.no_grad():
                embedded[:] = embedded[-1]
                weights["model.multi_modal_projector.linear_2.weight"].zero_()
                weights["model.multi_modal_projector.linear_2.bias"].copy_(embedded[-1])
        return _own_answers(vlm)


class AblationChecks(AnalysisTests):
    """Whether one head is needed.

    - present: one head does more than the others.
    - absent: no head does anything.
    - confounded: one head has large values, and its output projection drops them.
    """

    manifest: ClassVar[Manifest] = ABLATION
    options: ClassVar[Mapping[str, Any]] = {**_FEW, "parts": ["heads"]}

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        import torch

        vlm = _with_heads(1 if signal == "present" else 0)
        first = vlm.module.get_submodule(vlm.sites.resolve("llm.block.0.attn")[0].path)
        columns = vlm.sites.resolve("llm.block.0.attn.heads[1]")[0].columns
        assert columns is not None  # noqa: S101
        name = "o_proj" if signal == "present" else "v_proj"
        with torch.no_grad():
            weight = first.get_submodule(name).get_parameter("weight")
            if signal == "present":
                weight[:, slice(*columns)] *= 8
            elif signal == "confounded":
                weight[slice(*columns)] *= 8
        return _own_answers(vlm)


def _with_heads(factor: float) -> ModelAdapter:
    """The tiny model, with output projections of attention times a factor."""
    import torch

    from vlmlens.testing.model import TinyLlava, request

    vlm = TinyLlava.load(request())
    with torch.no_grad():
        for site in vlm.sites.resolve("llm.block.*.attn"):
            module = vlm.module.get_submodule(site.path)
            module.get_submodule("o_proj").get_parameter("weight").mul_(factor)
    return vlm


def _own_answers(vlm: ModelAdapter) -> Planted:
    """Questions whose labels are the model's own answers."""
    samples = in_model("present").samples
    labelled = [
        replace(sample, label=label)
        for sample, label in zip(samples, answered(vlm, samples), strict=True)
    ]
    return Planted(labelled, columns_of(vlm, labelled), lambda: vlm)


PROBE_CHECKS = (ProbeChecks,)
LOGIT_LENS_CHECKS = (LogitLensChecks,)
BLIND_TEST_CHECKS = (BlindTestChecks,)
KNOCKOUT_CHECKS = (KnockoutChecks,)
ABLATION_CHECKS = (AblationChecks,)
