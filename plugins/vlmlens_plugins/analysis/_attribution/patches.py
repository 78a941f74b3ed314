"""Where image rows are exchanged, and the number whose gradient is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlmlens.abc import ModelAdapter
from vlmlens.errors import CompositionError
from vlmlens.passes.gradients import Metric, logit, logit_difference
from vlmlens.sites import Site


def patch_site(vlm: ModelAdapter) -> Site:
    """Where patches are exchanged: the projector's output, else the input of the first block.

    Raises:
        CompositionError: The model has neither.
    """
    known: Any = vlm.sites.canonical
    for name, pattern in (("projector", "projector"), ("llm.block.0", "llm.block.0:in")):
        if name in known:
            return vlm.sites.resolve(pattern)[0]
    raise CompositionError(
        "The model has no projector and no language model whose image rows could be followed.",
        subject="patches",
        hint="Leave patches out: --set analysis.attribution.methods=[direct].",
    )


def metric_of(tokens: Sequence[Sequence[int]]) -> Metric:
    """The logit difference of two answers, or the logit of one."""
    first = [own[0] for own in tokens]
    if any(len(own) == 1 for own in tokens):
        return logit(first)
    return logit_difference(first, [own[1] for own in tokens])
