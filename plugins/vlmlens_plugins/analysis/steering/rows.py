"""Model work: the rows that a direction is learnt from."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext, ModelAdapter, ModelWork, WorkUnit
from vlmlens.passes.others import Others
from vlmlens.samples import Sample
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._sweeps.work import encoded

Rows = npt.NDArray[np.float64]


class MeanRows(ModelWork):
    """The mean of a sample's rows at several places.

    Arguments: "columns", a list of SITE/SELECTOR; "prefix", tokens that count as the end of
    the prompt. Result: for each, float32 numbers `[width]`,
    little-endian in base64, since millions of them are kept.
    """

    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[list[str]]:
        """See `ModelWork.run`."""
        places = []
        for column in units[0].arguments["columns"]:
            name, _, selector = column.partition("/")
            places += [(site, Selector.parse(selector)) for site in vlm.sites.resolve(name)]
        prefixes = [unit.arguments["prefix"] for unit in units]
        batch = encoded(vlm, [unit.sample for unit in units], prefixes)
        found = Others(vlm, ()).rows(batch, places)
        means = [[rows.double().mean(0).float().cpu().numpy() for rows in each] for each in found]
        return [[_packed(each[i]) for each in means] for i in range(len(units))]


def mean_rows(
    context: AnalysisContext,
    samples: Sequence[Sample],
    columns: Sequence[str],
    prefix: Sequence[int] = (),
    *,
    work: MeanRows | None = None,
) -> dict[str, Rows]:
    """float64 `[samples, width]` by column; the model runs once per sample.

    Args:
        context: The context of the analysis.
        samples: The samples.
        columns: SITE/SELECTOR with single sites.
        prefix: Tokens that all compared answers begin with.
        work: What reads them; None: `MeanRows`.
    """
    arguments = {"columns": list(columns), "prefix": list(prefix)}
    units = [WorkUnit(sample, arguments) for sample in samples]
    found = context.run_units(work or MeanRows(), units)
    return {
        column: np.stack([_unpacked(one[i]) for one in found]) for i, column in enumerate(columns)
    }


def _packed(row: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


def _unpacked(text: str) -> Rows:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float64)
