"""The conformance kit for the analysis of heads."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from vlmlens.abc import ModelAdapter
from vlmlens.abc.storage import Values
from vlmlens.manifest import Manifest
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.testing import AnalysisTests, Planted, Signal
from vlmlens_plugins.analysis._induction import Induction, induction_model
from vlmlens_plugins.analysis.heads.measured import INDUCTION
from vlmlens_plugins.analysis.manifests import HEADS

LENGTH = 15
"""Two copies of as many tokens as half of the hand-built model's words."""


class HeadsChecks(AnalysisTests):
    """Whether a head is an induction head.

    - present: the hand-built model, which has one.
    - absent: the same without that head.
    - confounded: in its place, a head that always reads the token 14 places back. In sequences that
      are repeated after 15 tokens it reads what an induction head reads.
    """

    manifest: ClassVar[Manifest] = HEADS

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        vlm = induction_model() if signal == "present" else without_induction()
        if signal == "confounded":
            vlm = without_induction(back=LENGTH - 1)
        samples = [Sample(f"s{i}", f"w{i + 1} w{i + 2}", task="planted") for i in range(6)]
        trace = vlm.trace(vlm.encode(samples), ["llm.block.*"])
        rows = {f"{site}/last": trace.select(f"{site}/last") for site in trace}
        columns = {
            name: Values(np.ascontiguousarray(np.stack(list(row)), "<f4"), "float32")
            for name, row in rows.items()
        }
        return Planted(samples, columns, lambda: vlm)

    def claims(self, result: Result) -> bool:
        """See `AnalysisTests.claims`."""
        return any(
            finding.verdict is Verdict.DIFFERS and finding.values.get("role") == INDUCTION
            for finding in result.findings
        )


def without_induction(back: int | None = None) -> ModelAdapter:
    """The hand-built model without its induction head.

    Args:
        back: In its place is a head that reads the token so many places back; None: nothing is.
    """
    import torch

    vlm = induction_model.__wrapped__()
    plan = Induction()
    block, head = plan.induction
    (site,) = vlm.sites.resolve(f"llm.block.{block}.attn")
    attention = vlm.module.get_submodule(site.path)
    inside = slice(head * plan.size, (head + 1) * plan.size)
    weight = attention.get_submodule("c_attn").get_parameter("weight")
    with torch.no_grad():
        queries, keys, _ = (part[:, inside] for part in weight.chunk(3, dim=1))
        attention.get_submodule("c_attn").get_parameter("bias")[: plan.width][inside] = 0
        queries.zero_()
        keys.zero_()
        if back is not None:
            queries[plan.place][back:].diagonal().fill_(plan.sharpness * plan.size**0.5)
            keys[plan.place].diagonal().fill_(1)
        else:
            attention.get_submodule("c_proj").get_parameter("weight")[inside] = 0
    return vlm


HEADS_CHECKS = (HeadsChecks,)
