"""Where the rows of places come from: the store, or passes of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from vlmlens.abc import AnalysisContext, ModelAdapter
from vlmlens_plugins.analysis.sae.options import SaeOptions, TrainOptions
from vlmlens_plugins.analysis.sae.places import Place, blocks_of, places
from vlmlens_plugins.sae import JoinedRows, KeptRows, Passes, Rows, SomeRows, StoredRows
from vlmlens_plugins.sae.feeding import equal_scales

_KEPT = 2**27


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
        options: SaeOptions,
    ) -> None:
        self._context, self._vlm, self._options = context, vlm, options
        self._stored = {info.name for info in context.columns()}
        self._embedded = embedded_by(options.embeddings, vlm, sorted(self._stored))
        self._passed = [
            name
            for place in places
            if not place.stored
            for name in (*place.columns, *filter(None, [place.target]))
        ]
        if self._embedded and self._embedded not in self._stored:
            self._passed.append(self._embedded)
        self._known: dict[str, Rows] = {}
        self._scales: dict[Place, tuple[float, ...]] = {}

    def rows(self, column: str, *, stored: bool) -> Rows:
        """All rows of a column."""
        if stored:
            ids = [sample.id for sample in self._context.samples]
            return self._known.setdefault(column, StoredRows(self._context.store, column, ids))
        return self._known.setdefault(column, KeptRows(self._passes[column], _KEPT))

    def whole(self, place: Place, learn: Sequence[int]) -> tuple[Rows, Rows | None]:
        """The rows of a place, and those of its target.

        Columns that are joined are scaled by what their rows in the samples to learn from are like.
        """
        found = [self.rows(name, stored=place.stored) for name in place.columns]
        target = self.rows(place.target, stored=place.stored) if place.target else None
        if len(found) == 1:
            return found[0], target
        if place not in self._scales:
            self._scales[place] = equal_scales(found, learn, self._context.seed)
        return JoinedRows(found, self._scales[place]), target

    def embeddings(self) -> tuple[Rows | None, str]:
        """Rows whose mean says how alike pictures are, and the name of their column."""
        if not self._embedded:
            return None, ""
        return self.rows(self._embedded, stored=self._embedded in self._stored), self._embedded

    def trained_on(self, place: Place, learn: Sequence[int]) -> tuple[Rows, Rows | None]:
        """What of `whole` is trained on; equal numbers of samples give equal rows, bit for bit."""
        if place.stored:
            rows, target = self.whole(place, learn)
        else:
            parts = [self._passes[name] for name in place.columns]
            target = self._passes[place.target] if place.target else None
            rows = parts[0] if len(parts) == 1 else JoinedRows(parts, self._scales[place])
        few = self._options.per_image
        if few is None:
            return rows, target
        drawn = [
            None if one is None
            else SomeRows(one, few, seed=self._context.seed, fixed=not place.stored)
            for one in (rows, target)
        ]  # fmt: skip
        return drawn[0] or rows, drawn[1]

    @cached_property
    def _passes(self) -> Mapping[str, Rows]:
        assert self._vlm is not None  # noqa: S101  `places` sees to it
        names = list(dict.fromkeys(self._passed))
        passes = Passes(
            self._vlm, names, self._context.samples, warn=self._context.warn, keep=_KEPT
        )
        return dict(zip(names, passes.rows(), strict=True))


def embedded_by(wanted: str | None, vlm: ModelAdapter | None, stored: Sequence[str]) -> str:
    """The column whose rows say how alike pictures are; "" without one.

    By default the last block of the vision tower: pooled, if that is stored.

    Raises:
        SpecError, SiteError: The column that is wanted names no single site.
        CompositionError: It is not stored, and there is no model.
    """
    if wanted is not None:
        (place,) = places(TrainOptions(column=(wanted,)), vlm, stored)
        return place.column
    if vlm is None:
        return ""
    blocks = blocks_of(vlm.sites.canonical, "vision")
    if not blocks:
        return ""
    rows = f"{blocks[-1]}/image"
    return f"{rows}.mean" if f"{rows}.mean" in stored else rows
