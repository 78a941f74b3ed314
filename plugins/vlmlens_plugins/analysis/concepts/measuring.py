"""All concept sets at all columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlmlens.abc import AnalysisContext, ColumnInfo
from vlmlens_plugins.analysis._separating import draws_for
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.concepts import pca
from vlmlens_plugins.analysis.concepts.learning import Learned, learn
from vlmlens_plugins.analysis.concepts.options import ConceptsOptions
from vlmlens_plugins.analysis.concepts.rows import MOST, NotFinite, Rows, centred, placed, read
from vlmlens_plugins.analysis.concepts.scores import Score, judged, score
from vlmlens_plugins.analysis.concepts.sets import ConceptSet

SHOWN = 280
"""So many samples are points of a picture at most."""
_AXES, _LEAST = 3, 10


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
        self._most = options.samples
        self._origin = _origin(context)

    def measure(self, sets: Sequence[ConceptSet]) -> list[Found]:
        """All of them; p-values are corrected over everything that is tested."""
        tests = len(sets) * len(self._infos)
        draws = draws_for(tests, self._options.permutations)
        self._most = self._drawn_at_most() if sets else 0
        found = [self._of_set(each, draws) for each in sets]
        scores = iter(judged([s for each in found for s in each.scores], self._options))
        for each in found:
            each.scores = [next(scores) for _ in each.scores]
        return [each for each in found if each.scores]

    def _of_set(self, given: ConceptSet, draws: int) -> Found:
        rng = generator(self._context.seed, "concepts", "shown", given.name)
        shown = np.sort(rng.permutation(len(given.samples))[:SHOWN])
        found = Found(given, given.drawn(self._most, self._context.seed), given.take(shown))
        for info in self._infos:
            try:
                self._at(info, found, draws)
            except NotFinite:
                self._warn(f"{info.name} was not measured: it holds values that are not finite.")
            self._advance()
        return found

    def _at(self, info: ColumnInfo, found: Found, draws: int) -> None:
        there = set(self._context.store.ids(info.name))
        if not all(sample.id in there for sample in found.shown.samples + found.drawn.samples):
            self._warn(f"{info.name} was not measured: some samples of {found.given.name} lack it.")
            return
        store = self._context.store
        rows = read(store, info, found.drawn.ids)
        if not centred(rows).any():
            self._warn(f"{info.name} was not measured: it is the same for all samples.")
            return
        components = self._components(info, found, rows, there)
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

    def _components(
        self, info: ColumnInfo, found: Found, rows: Rows, there: Set[str]
    ) -> pca.Components:
        """Of all samples; of those that were drawn, where rows are very wide."""
        everything = len(found.drawn.samples) == len(found.given.samples)
        if everything or info.width > pca.WIDEST:
            return pca.of_rows(rows, _AXES)
        ids = [sample_id for sample_id in found.given.ids if sample_id in there]
        store = self._context.store
        return pca.of_blocks(
            lambda: (block for _, block in placed(store, info, ids)), info.width, _AXES
        )

    def _drawn_at_most(self) -> int:
        """How many samples' rows are held together; fewer where rows are very wide."""
        asked = self._options.samples
        widest = max(self._infos, key=lambda info: info.width)
        most = max(_LEAST, MOST // (4 * max(1, widest.width)))
        if most < min(asked, len(self._context.samples)):
            self._warn(
                f"Directions and neighbours are of {most:,} samples of a set at most, not of "
                f"{asked:,}: rows of {widest.name} are {widest.width:,} numbers wide."
            )
        return min(asked, most)

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
