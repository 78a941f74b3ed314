"""At which layer the answer forms: the logit lens at the row that predicts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from vlmlens.abc import AnalysisContext, ModelAdapter, ModelWork, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._sweeps.measures import measured
from vlmlens_plugins.analysis._sweeps.work import encoded
from vlmlens_plugins.analysis.logit_lens.words import token_text
from vlmlens_plugins.analysis.look.answers import Answer

_TOP = 3
_OFF = 0.05
"""More than bfloat16 explains."""


class LensWork(ModelWork):
    """What every block would answer: its row `last` under the final norm and unembedding.

    Arguments: "prefix", the tokens that the compared answers begin with; "tokens", their next ones.
    Result: "layers", the names of blocks; for each, "told", see `measured`, and "top", a list of
    [text, probability]; "off", how far the lens at the last block is from the model's own logits,
    relative to the largest. None for a model without a readout.
    """

    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON] | None]:
        """See `ModelWork.run`."""
        if vlm.readout() is None:
            return [None] * len(units)
        return [self._unit(vlm, unit) for unit in units]

    def _unit(self, vlm: ModelAdapter, unit: WorkUnit) -> dict[str, JSON]:
        readout = vlm.readout()
        assert readout is not None  # noqa: S101
        names = [site.name for site in vlm.sites.resolve("llm.block.*")]
        batch = encoded(vlm, [unit.sample], [unit.arguments["prefix"]])
        trace = vlm.trace(batch, [*names, readout.site], logits="last")
        assert trace.logits is not None  # noqa: S101
        rows = [_row(trace.select(f"{name}/last")) for name in (*names, readout.site)]
        with torch.inference_mode():
            logits = torch.cat([readout(row) for row in rows]).double()
        own = trace.logits.double().to(logits.device)
        off = float((logits[-1] - own[0]).abs().max() / own.abs().max().clamp(min=1e-9))
        logits = logits[:-1]
        best = logits.softmax(-1).topk(min(_TOP, logits.shape[-1]))
        return {
            "layers": names,
            "told": measured(logits, [unit.arguments["tokens"]] * len(names)),
            "top": [
                [[token_text(vlm, t), p] for t, p in zip(*pair, strict=True)]
                for pair in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ],
            "off": off,
        }


def _row(selected: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
    """The one row of the one sample, `[1, width]`."""
    assert isinstance(selected, torch.Tensor)  # noqa: S101
    return selected.reshape(1, -1)


@dataclass(frozen=True, slots=True)
class Layers:
    """What every block would answer.

    Args:
        names: The blocks, in order of depth.
        scores: The log-odds of the answer at each.
        tops: The most probable tokens at each, as (text, probability).
        formed: The number of the block from which the answer stays the most probable one to the
            end; None: it is not at the last one.
    """

    names: tuple[str, ...]
    scores: tuple[float, ...]
    tops: tuple[tuple[tuple[str, float], ...], ...]
    formed: int | None

    @property
    def jump(self) -> float | None:
        """What the block where the answer forms adds to its log-odds; None of the first."""
        if not self.formed:
            return None
        return self.scores[self.formed] - self.scores[self.formed - 1]


def layers(
    context: AnalysisContext, samples: Sequence[Sample], found: Sequence[Answer]
) -> list[Layers | None]:
    """The lens of each question; None where there is none.

    Args:
        context: The context of the analysis.
        samples: The questions.
        found: Their answers.
    """
    usable = [i for i, one in enumerate(found) if one.tokens]
    units = [
        WorkUnit(samples[i], {"prefix": list(found[i].prefix), "tokens": list(found[i].tokens)})
        for i in usable
    ]
    told = dict(zip(usable, context.run_units(LensWork(), units), strict=True))
    return [_layers(context, one, told.get(i)) for i, one in enumerate(found)]


def _layers(
    context: AnalysisContext, answer: Answer, told: dict[str, JSON] | None
) -> Layers | None:
    if told is None:
        return None
    if not told["off"] <= _OFF:
        context.warn(
            "The lens is left out: at the last block it does not give the model's own logits "
            f"(off by {told['off']:.2g})."
        )
        return None
    first = [
        int(np.argmax(one["logit"])) == 0 if answer.chosen else one["top"] == answer.tokens[0]
        for one in told["told"]
    ]
    formed = None
    for number in reversed(range(len(first))):
        if not first[number]:
            break
        formed = number
    return Layers(
        tuple(told["layers"]),
        tuple(answer.token_score(one) for one in told["told"]),
        tuple(tuple((text, p) for text, p in top) for top in told["top"]),
        formed,
    )
