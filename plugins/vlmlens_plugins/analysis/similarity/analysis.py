"""The analysis: how alike columns are, layer by layer and model by model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vlmlens.abc import Analysis, AnalysisContext, Options
from vlmlens.abc.analysis import COLUMNS
from vlmlens.cka import Cka, drawn, linear_cka
from vlmlens.errors import CompositionError
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.similarity import report, sources, tables
from vlmlens_plugins.analysis.similarity.compared import Compared
from vlmlens_plugins.analysis.similarity.measures import (
    CKA,
    NEIGHBOURS,
    Pairs,
    Settings,
    geometries,
    measured,
    subset_of,
)
from vlmlens_plugins.analysis.similarity.options import SimilarityOptions
from vlmlens_plugins.analysis.similarity.sources import Sources

_HALF = 1000
"""Steps of the progress for CKA, and for all else."""


class Similarity(Analysis):
    """CKA, RSA and mutual neighbours of columns of one run, or of two on the same samples."""

    Options: ClassVar[type[Options]] = SimilarityOptions
    options: SimilarityOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        sources.check(self.options, samples, columns)

    def uses(self, samples: Sequence[Sample]) -> frozenset[str]:
        """See `Analysis.uses`."""
        del samples
        return frozenset({COLUMNS})

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        options = self.options
        with sources.opened(options.against) as other:
            found = sources.sources(options, context.samples, context.store, context.folder, other)
            warnings = list(found.warnings)
            compared = _compared(found, options, context, warnings)
        for message in warnings:
            context.warn(message)
        return Result(
            analysis="similarity",
            title="How alike representations are",
            findings=report.findings(compared, options.parted),
            tables=tables.tables(compared, options.parted),
            figures=tables.figures(compared),
            options=options.model_dump(mode="json"),
            notes=report.notes(compared, options),
            warnings=warnings,
        )


def _compared(
    found: Sources, options: SimilarityOptions, context: AnalysisContext, warnings: list[str]
) -> Compared:
    """All measures; warns of columns and measures that are left out."""
    columns = [name for _, name in found.columns]
    rng = generator(context.seed, "similarity", "samples")
    chosen = drawn(found.groups, options.samples, rng)
    cka = linear_cka(
        lambda c, rows: found.read(c, chosen[rows]),
        len(columns),
        [found.groups[i] for i in chosen],
        block=options.block,
        memory=options.memory << 19,
        seed=context.seed,
        progress=lambda done, total: context.progress(_HALF * done // total, 2 * _HALF),
    )
    used = len(found.first.columns)
    kept, said = _usable(columns, cka, used)
    warnings += said
    pairs = Pairs(sum(c < used for c in kept), sum(c >= used for c in kept))
    if not pairs.first or (found.second is not None and not pairs.second) or len(kept) < 2:
        raise CompositionError(
            "There are not enough columns that vary over samples and are finite. " + " ".join(said),
            subject=columns[0],
            hint="Choose other columns, or extract in float32.",
        )
    if cka.samples < len(chosen):
        warnings.append(
            f"CKA rests on {cka.samples:,} of {len(chosen):,} samples: groups are of very "
            "unequal size, and some samples of the largest are left out."
        )
    subset = subset_of(found.groups, len(kept), options, context.seed)
    ways = geometries(options, len(subset))
    if NEIGHBOURS not in ways:
        warnings.append(
            f"Mutual neighbours are left out: {len(subset)} samples of different groups are too "
            f"few for {options.neighbours} neighbours. Set analysis.similarity.neighbours lower."
        )
    steps = len(ways) * (len(kept) + options.permutations)
    done = iter(range(1, steps + 1))

    def step() -> None:
        context.progress(_HALF + _HALF * next(done) // steps, 2 * _HALF)

    settings = Settings(options.permutations, context.seed, step)
    whole = _kept(cka, kept)
    made = {
        name: measured(
            name,
            lambda c: found.read(kept[c], subset),
            way,
            pairs,
            whole if name == CKA else None,
            settings,
        )
        for name, way in ways.items()
    }
    names = [columns[c] for c in kept]
    second = found.first if found.second is None else found.second
    return Compared(
        names[: pairs.first],
        names[pairs.first :] or names,
        (found.first.name, second.name),
        made,
        cka.samples,
        len({found.groups[i] for i in chosen}),
        len(found.samples),
        cka.blocks,
        len(subset),
        alone=found.second is None,
    )


def _usable(columns: Sequence[str], cka: Cka, own: int) -> tuple[list[int], list[str]]:
    """Numbers of the columns that can be compared, and what is said of the others."""
    said = []
    for numbers, why in ((cka.broken, "not finite"), (cka.constant, "the same for all samples")):
        for where, some in (
            ("", sorted(c for c in numbers if c < own)),
            (" of the other run", sorted(c for c in numbers if c >= own)),
        ):
            if some:
                names = ", ".join(columns[c] for c in some)
                said.append(f"Left out, since values are {why}{where}: {names}.")
    return [c for c in range(len(columns)) if c not in cka.broken | cka.constant], said


def _kept(cka: Cka, columns: Sequence[int]) -> Cka:
    places = np.ix_(columns, columns)
    return Cka(
        cka.value[places],
        cka.error[places],
        cka.folds,
        cka.samples,
        cka.blocks,
        frozenset(),
        frozenset(),
    )
