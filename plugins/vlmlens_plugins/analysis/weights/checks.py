"""The conformance kit for the analysis of weights."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import ClassVar

import numpy as np
import torch

from vlmlens.abc import ModelAdapter, Values
from vlmlens.manifest import Manifest
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.testing import AnalysisTests, Planted, Signal
from vlmlens_plugins.analysis._induction import Induction, induction_model
from vlmlens_plugins.analysis.manifests import WEIGHTS

_SAMPLES = 4
_STRONG = 100.0


class WeightsChecks(AnalysisTests):
    """Whether a head reads an earlier one through its keys.

    - present: the hand-built induction model.
    - absent: the same, and the earlier head writes nothing.
    - confounded: the same, and what the earlier head writes is large, in random directions.
    """

    manifest: ClassVar[Manifest] = WEIGHTS

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        vlm = changed_model(signal)
        asked = [
            Sample(
                f"s{i}", f"w{i + 1} w{i + 2} w{i + 1}", label=f"w{i + 2}",
                choices=(f"w{i + 1}", f"w{i + 2}"), group=f"g{i}", task="planted",
            )
            for i in range(_SAMPLES)
        ]  # fmt: skip
        trace = vlm.trace(vlm.encode(asked), ["llm.block.*"])
        columns = {}
        for site in trace:
            rows = trace.select(f"{site}/last")
            assert isinstance(rows, torch.Tensor)  # noqa: S101
            array = np.ascontiguousarray(rows.float().numpy(), "<f4")
            columns[f"{site}/last"] = Values(array, "float32", None)
        return Planted(asked, columns, lambda: vlm)

    def claims(self, result: Result) -> bool:
        """See `AnalysisTests.claims`."""
        return any(
            one.verdict is Verdict.DIFFERS and one.values.get("kind") == "K"
            for one in result.findings
        )


@cache
def changed_model(signal: Signal) -> ModelAdapter:
    """The induction model, with the output of its first head changed; see `WeightsChecks`."""
    vlm = induction_model()
    if signal == "present":
        return vlm
    vlm = deepcopy(vlm)
    block, head = Induction().previous
    heads = vlm.sites.heads(vlm.sites.resolve(f"llm.block.{block}.attn")[0])
    assert heads is not None  # noqa: S101
    written = vlm.module.get_submodule(heads.projection).weight
    assert isinstance(written, torch.Tensor)  # noqa: S101
    own = slice(*heads.columns(head))
    normal = torch.randn(
        written.shape[1], written.shape[1], generator=torch.Generator().manual_seed(0)
    )
    turned = torch.linalg.qr(normal)[0]
    with torch.no_grad():
        written[own] = 0 if signal == "absent" else _STRONG * written[own] @ turned
    return vlm


WEIGHTS_CHECKS = (WeightsChecks,)
