"""Where the rows of places come from: the store, or passes of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from vlmlens.abc import AnalysisContext, ModelAdapter
from vlmlens_plugins.analysis.sae.options import TrainOptions
from vlmlens_plugins.analysis.sae.places import Place
from vlmlens_plugins.sae import JoinedRows, KeptRows, Passes, Rows, SomeRows, StoredRows
from vlmlens_plugins.sae.feeding import equal_scales


class Sources:
    """Rows by column. Rows that the model gives stay in memory, as far as they fit.

    Args:
        context: The context of the analysis.
        vlm: The model, if there is one.
        places: The places.
        options: The analysis's options.
    """

    def __init__(
        self,
        context: AnalysisContext,
        vlm: ModelAdapter | None,
        places: Sequence[Place],
        options: TrainOptions,
    ) -> None:
        self._context, self._vlm, self._options = context, vlm, options
        self._passed = [
            name
            for place in places
            if not place.stored
            for name in (*place.columns, *filter(None, [place.target]))
        ]
        self._known: dict[str, Rows] = {}

    def rows(self, column: str, *, stored: bool) -> Rows:
        """All rows of a column."""
        if stored:
            ids = [sample.id for sample in self._context.samples]
            return self._known.setdefault(column, StoredRows(self._context.store, column, ids))
        return self._from_model[column]

    def whole(self, place: Place, learn: Sequence[int]) -> tuple[Rows, Rows | None]:
        """The rows of a place, and those of its target.

        Columns that are joined are scaled by what their rows in the samples to learn from are like.
        """
        parts = [self.rows(name, stored=place.stored) for name in place.columns]
        target = self.rows(place.target, stored=place.stored) if place.target else None
        if len(parts) == 1:
            return parts[0], target
        return JoinedRows(parts, equal_scales(parts, learn, self._context.seed)), target

    def trained_on(self, rows: Rows, *, stored: bool) -> Rows:
        """Those of the rows that are trained on."""
        few = self._options.per_image
        if few is None:
            return rows
        return SomeRows(rows, few, seed=self._context.seed, fixed=not stored)

    @cached_property
    def _from_model(self) -> Mapping[str, Rows]:
        assert self._vlm is not None  # noqa: S101  `places` sees to it
        names = list(dict.fromkeys(self._passed))
        passes = Passes(self._vlm, names, self._context.samples, warn=self._context.warn)
        return dict(zip(names, map(KeptRows, passes.rows()), strict=True))
