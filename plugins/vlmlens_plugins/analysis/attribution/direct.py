"""What components add to the logit difference directly: per sample, by model work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext, ModelAdapter, ModelWork, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.passes.contributions import contributions
from vlmlens_plugins.analysis._sweeps.work import encoded

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Asked:
    """A sample, and the answer that is followed.

    Args:
        unit: The unit of model work, with "prefix" and "tokens": the tokens that the compared
            answers begin with, and the next one of the right answer and of the other one, if any.
        task: The task.
        group: What resampling splits by.
    """

    unit: WorkUnit
    task: str
    group: str


class DirectWork(ModelWork):
    """Direct contributions to the logit difference, or to the logit of a single answer.

    Arguments: "prefix" and "tokens", see `Asked`. Result: "names", "added", "constant", "total" and
    "logits", see `Contributions`; "capped": whether the model's logits differ from the total.
    """

    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        """See `ModelWork.run`."""
        results: dict[int, dict[str, JSON]] = {}
        for size in {(len(u.arguments["tokens"]), bool(u.arguments["prefix"])) for u in units}:
            alike = [
                i
                for i, u in enumerate(units)
                if (len(u.arguments["tokens"]), bool(u.arguments["prefix"])) == size
            ]
            results |= zip(alike, _direct(vlm, [units[i] for i in alike]), strict=True)
        return [results[i] for i in range(len(units))]


def _direct(vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
    batch = encoded(vlm, [u.sample for u in units], [u.arguments["prefix"] for u in units])
    found = contributions(vlm, batch, [u.arguments["tokens"] for u in units])
    signs = np.array([1.0, -1.0])[: found.added.shape[-1]]
    added = found.added.cpu().numpy() @ signs
    constant, total, logits = (
        each.cpu().numpy() @ signs for each in (found.constant, found.total, found.logits)
    )
    return [
        {
            "names": list(found.names),
            "added": added[:, i].tolist(),
            "constant": float(constant[i]),
            "total": float(total[i]),
            "logits": float(logits[i]),
        }
        for i in range(len(units))
    ]


@dataclass(frozen=True, slots=True)
class Direct:
    """Direct contributions of all components in all samples.

    Args:
        names: The components, in order of depth, and last "constant".
        values: float64 `[components, samples]`.
        total: float64 `[samples]`: their sum, the logit difference before a soft cap.
        logits: float64 `[samples]`: the logit difference that the model gives.
    """

    names: Sequence[str]
    values: Floats
    total: Floats
    logits: Floats


def direct_of(context: AnalysisContext, asked: Sequence[Asked]) -> Direct:
    """What each component adds in each sample.

    Args:
        context: The context of the analysis.
        asked: The samples.
    """
    results = context.run_units(DirectWork(), [one.unit for one in asked])
    names = list(dict.fromkeys(name for one in results for name in one["names"]))
    values = np.zeros((len(names) + 1, len(results)))
    for i, one in enumerate(results):
        values[[names.index(name) for name in one["names"]], i] = one["added"]
        values[-1, i] = one["constant"]
    total, logits = (np.array([one[key] for one in results]) for key in ("total", "logits"))
    return Direct([*names, "constant"], values, total, logits)
