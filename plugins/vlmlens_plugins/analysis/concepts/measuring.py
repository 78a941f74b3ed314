"""All concept sets at all columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from vlmlens.abc import AnalysisContext, ColumnInfo
from vlmlens_plugins.analysis._separating import draws_for
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.concepts import pca
from vlmlens_plugins.analysis.concepts.learning import Learned, learn
from vlmlens_plugins.analysis.concepts.options import ConceptsOptions
from vlmlens_plugins.analysis.concepts.rows import NotFinite, Rows, blocks, centred, read
from vlmlens_plugins.analysis.concepts.scores import Score, judged, score
from vlmlens_plugins.analysis.concepts.sets import ConceptSet

SHOWN = 280
"""So many samples are points of a picture at most."""
_AXES = 3


@dataclass(frozen=True, slots=True)
class Placed:
    """Samples in the first components of a column.

    Args:
        column: The column.
        components: The components.
        places: float64 `[shown, components]`.
    """

    column: str
    components: pca.Components
    places: pca.Floats


@dataclass(slots=True)
class Found:
    """What was measured of a set of concepts.

    Args:
        given: The set, with all its samples.
        drawn: The samples for directions and neighbours.
        shown: The samples of pictures.
        scores: By column, in order of depth.
        learned: Directions, likewise.
        placed: Points, likewise.
    """

    given: ConceptSet
    drawn: ConceptSet
    shown: ConceptSet
    scores: list[Score] = field(default_factory=list)
    learned: list[Learned] = field(default_factory=list)
    placed: list[Placed] = field(default_factory=list)


class Measuring:
    """Measures sets of concepts at columns.

    Args:
        context: The context of the analysis.
        options: Its options.
        infos: The columns, in order of depth.
        advance: Called once for each set and column.
    """

    def __init__(
        self,
        context: AnalysisContext,
        options: ConceptsOptions,
        infos: Sequence[ColumnInfo],
        advance: Callable[[], None],
    ) -> None:
        self._context, self._options, self._infos = context, options, infos
        self._advance, self._told = advance, set[str]()
        self._ids = {info.name: set(context.store.ids(info.name)) for info in infos}
        self._origin = _origin(context)

    def measure(self, sets: Sequence[ConceptSet]) -> list[Found]:
        """All of them; p-values are corrected over everything that is tested."""
        tests = len(sets) * len(self._infos)
        draws = draws_for(tests, self._options.permutations)
        found = [self._of_set(each, draws) for each in sets]
        scores = iter(judged([s for each in found for s in each.scores], self._options))
        for each in found:
            each.scores = [next(scores) for _ in each.scores]
        return [each for each in found if each.scores]

    def _of_set(self, given: ConceptSet, draws: int) -> Found:
        rng = generator(self._context.seed, "concepts", "shown", given.name)
        shown = np.sort(rng.permutation(len(given.samples))[:SHOWN])
        found = Found(
            given, given.drawn(self._options.samples, self._context.seed), given.take(shown)
        )
        for info in self._infos:
            try:
                self._at(info, found, draws)
            except NotFinite:
                self._warn(f"{info.name} was not measured: it holds values that are not finite.")
            self._advance()
        return found

    def _at(self, info: ColumnInfo, found: Found, draws: int) -> None:
        there = self._ids[info.name]
        if not all(sample.id in there for sample in found.shown.samples + found.drawn.samples):
            self._warn(f"{info.name} was not measured: some samples of {found.given.name} lack it.")
            return
        store = self._context.store
        rows = read(store, info, found.drawn.ids)
        if not centred(rows).any():
            self._warn(f"{info.name} was not measured: it is the same for all samples.")
            return
        components = self._components(info, found, rows)
        made = score(info.name, rows, found.drawn, self._options, draws, self._context.seed)
        if made is None:
            self._warn(f"{found.given.name}: no sample has a neighbour in another group.")
            return
        places = components.place(read(store, info, found.shown.ids))
        found.scores.append(made)
        found.placed.append(Placed(info.name, components, places))
        found.learned.append(
            learn(
                info.name,
                rows,
                found.drawn,
                reference=self._options.reference,
                origin=self._origin,
            )
        )

    def _components(self, info: ColumnInfo, found: Found, rows: Rows) -> pca.Components:
        """Of all samples; of those that were drawn, where rows are very wide."""
        everything = len(found.drawn.samples) == len(found.given.samples)
        if everything or info.width > pca.WIDEST:
            return pca.of_rows(rows, _AXES)
        ids = [sample_id for sample_id in found.given.ids if sample_id in self._ids[info.name]]
        return pca.of_blocks(partial(blocks, self._context.store, info, ids), info.width, _AXES)

    def _warn(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._context.warn(message)


def _origin(context: AnalysisContext) -> Mapping[str, Any]:
    meta = context.store.get_meta()
    model = meta.get("fingerprint") or {
        name: meta[name] for name in ("model", "adapter") if name in meta
    }
    return {"analysis": "concepts", "model": model, "seed": context.seed}
