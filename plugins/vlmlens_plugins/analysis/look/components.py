"""Which heads and MLPs carry what the picture says: estimated by gradients, and really exchanged.

The other run is that of a gray picture of the same size: exchanging a component with what it
computes there takes from the answer what the component got from the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext, ModelAdapter
from vlmlens.errors import VlmlensError
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens_plugins.analysis._altered import Fill
from vlmlens_plugins.analysis._attribution import Node, node_scores, nodes_of
from vlmlens_plugins.analysis._sweeps import Cell, Change, Item
from vlmlens_plugins.analysis._sweeps.work import CellWork, packed_sample, unit_of
from vlmlens_plugins.analysis.look.answers import Answer
from vlmlens_plugins.analysis.look.evidence import Evidence, blank
from vlmlens_plugins.analysis.look.options import LookOptions
from vlmlens_plugins.analysis.patching import grid

Floats = npt.NDArray[np.float64]
ROWS = ("image", "question", "last")
_FILL: Final[Fill] = "gray"
_COMPARED = 2


@dataclass(frozen=True, slots=True)
class Components:
    """What exchanging components does to an answer.

    Args:
        nodes: All components at groups of rows.
        estimates: float64 `[nodes]`: by how much exchanging each lowers the logit difference to
            what the model would say to a gray picture, by gradients.
        strongest: Numbers of the nodes that were really exchanged, the highest estimates first.
        base: The log-odds of the answer.
        drops: By how much exchanging each of `strongest` lowers it.
        together: All of them at once.
    """

    nodes: tuple[Node, ...]
    estimates: Floats
    strongest: tuple[int, ...]
    base: float
    drops: tuple[float, ...]
    together: float

    @property
    def best(self) -> int:
        """The number in `strongest` of the one that does most."""
        return int(np.argmax(self.drops))


def components(
    context: AnalysisContext,
    samples: Sequence[Sample],
    found: Sequence[Answer],
    rest_on: Sequence[Evidence | None],
    options: LookOptions,
) -> list[Components | None]:
    """What carries each answer; None where this cannot be told, with a warning.

    Args:
        context: The context of the analysis.
        samples: The questions, with pictures.
        found: Their answers.
        rest_on: What these rest on.
        options: Of the analysis.
    """
    results: list[Components | None] = []
    for sample, answer, evidence in zip(samples, found, rest_on, strict=True):
        if len(answer.tokens) < _COMPARED:
            results.append(None)
            continue
        try:
            results.append(_of(context, sample, _contrasted(answer, evidence), options))
        except VlmlensError as error:
            context.warn(f"Heads and MLPs are left out: {error.message}")
            results.append(None)
    return results


def _of(
    context: AnalysisContext, sample: Sample, answer: Answer, options: LookOptions
) -> Components | None:
    vlm = context.model()
    item = Item(sample, (), donor=blank(sample, _FILL, context.seed))
    nodes = nodes_of(vlm, _rows(context, vlm, item))
    compared = [list(answer.prefix)], [list(answer.tokens)]
    estimates = -node_scores(context, [item], compared, nodes).values[:, 0]
    order = np.argsort(-estimates, kind="stable")[: options.components]
    changes = [Change(f"{nodes[i].site}/{nodes[i].rows} = patch") for i in order]
    cells = [*(Cell((change,)) for change in changes), Cell(tuple(changes))]
    told = run_cells(context, item, answer, cells)
    base = answer.token_score(told[0]["base"])
    drops = [base - answer.token_score(one["edited"]) for one in told]
    strongest = tuple(int(i) for i in order)
    return Components(tuple(nodes), estimates, strongest, base, tuple(drops[:-1]), drops[-1])


def _contrasted(answer: Answer, evidence: Evidence | None) -> Answer:
    """The answer, compared to what the model would say to a gray picture, if that differs.

    The best alternative to the picture may be one that no picture speaks for.
    """
    if evidence is None:
        return answer
    blind = evidence.blind[_FILL]
    rival = next((token for token in blind.tokens if token != answer.tokens[0]), None)
    if answer.chosen:
        text = next((text for text, _ in blind.options if text != answer.text), None)
        known = dict(zip(answer.scored, answer.tokens, strict=False))
        rival = known.get(str(text))
    if rival is None or rival == answer.tokens[0]:
        return answer
    rest = [token for token in answer.tokens[1:] if token != rival]
    return replace(answer, tokens=(answer.tokens[0], rival, *rest))


def run_cells(
    context: AnalysisContext, item: Item, answer: Answer, cells: Sequence[Cell]
) -> list[dict[str, Any]]:
    """The results of `CellWork`, for the tokens of an answer."""
    packed = packed_sample(item)
    units = [
        unit_of(item, packed, answer.prefix, answer.tokens, cell, str(number))
        for number, cell in enumerate(cells)
    ]
    return context.run_units(CellWork(), units)


def _rows(context: AnalysisContext, vlm: ModelAdapter, item: Item) -> list[str]:
    """The groups of rows that the language model has for this question."""
    rows, _ = grid.applicable(ROWS, Axis.LLM, grid.layouts_of(vlm, [item], context.batch_size))
    return rows
