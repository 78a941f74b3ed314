"""The analysis: which rows at which sites carry the answer from one run into another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options
from vlmlens.errors import CompositionError, MissingAnnotation, SpecError
from vlmlens.pairs import pairs_of
from vlmlens.results import Figure, Result
from vlmlens.samples import Sample
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._sweeps import Cell, CellOptions, Item, Swept, check_cost, sweep
from vlmlens_plugins.analysis._sweeps.effects import too_few
from vlmlens_plugins.analysis._sweeps.pictures import patch_sheets
from vlmlens_plugins.analysis._sweeps.sweeping import Onward, check_writes
from vlmlens_plugins.analysis.patching import grid, report
from vlmlens_plugins.analysis.patching.measured import Grid, measure
from vlmlens_plugins.analysis.patching.options import PatchingOptions
from vlmlens_plugins.analysis.patching.runs import (
    TRACE,
    directions,
    items_of,
    labelled_clean,
    moved,
    noise_place,
    traced,
    usable_pairs,
    with_noise_rows,
)


class Patching(Analysis):
    """Activations of one run in place of those of another, and how far the answer follows them."""

    Options: ClassVar[type[Options]] = PatchingOptions
    options: PatchingOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`: there are pairs, or labels; and selectors can be read."""
        del columns
        for rows in self.options.rows or ():
            for part in grid.parts_of(rows):
                if Selector.parse(part).pool is not None:
                    raise SpecError(
                        f"{part!r} pools rows, and patching exchanges each of them.",
                        subject="rows",
                        hint="Name rows without .mean or .max.",
                    )
        if self.options.mode == "trace":
            noise_place(self.options.noise_at)
        if self.options.mode == "pairs":
            pairs, dropped = pairs_of(samples)
            if not pairs:
                raise MissingAnnotation(
                    f"None of {len(dropped)} pairs can be used, for example {dropped[0].pair!r}: "
                    f"{dropped[0].reason}.",
                    subject=dropped[0].pair,
                    hint="The two samples of a pair must differ, each with an answer of its own.",
                )
        elif not any(sample.label for sample in samples):
            raise MissingAnnotation(
                "Causal tracing follows the right answer, and no sample has a label.",
                subject="label",
                hint="Give the samples labels, or use mode=pairs.",
            )
        elif not with_noise_rows(labelled_clean(samples), self.options.noise_at):
            raise MissingAnnotation(
                f"Causal tracing puts noise on {self.options.noise_at}, and no sample with a label "
                "has an image.",
                subject="images",
                hint="Give the data images, or other rows: "
                "--set analysis.patching.noise_at=llm.embed/question.",
            )

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`: the sites exist, and the model writes answers."""
        del samples, columns
        check_writes(skeleton, "patching")
        grid.places(skeleton, self.options.sites, self.options.window)
        self._patch_places(skeleton)
        if self.options.mode == "trace":
            skeleton.sites.resolve(noise_place(self.options.noise_at))

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        warnings: list[str] = []

        def warn(message: str) -> None:
            warnings.append(message)
            context.warn(message)

        grids, figures = self._measured(
            replace(context, warn=warn, progress=Onward(context.progress))
        )
        return Result(
            analysis="patching",
            title="Which activations carry the answer",
            findings=report.findings(grids, self.options),
            tables=report.tables(grids),
            figures=[*report.figures(grids), *figures],
            options=self.options.model_dump(mode="json"),
            notes=report.notes(self.options),
            warnings=warnings,
            overview=report.overview(grids),
        )

    def _measured(self, context: AnalysisContext) -> tuple[list[Grid], list[Figure]]:
        named: CellOptions | None = None
        vlm = context.model()
        by_direction: dict[str, list[Item]] = {}
        if self.options.mode == "trace":
            by_direction[TRACE], named = traced(context, self.options)
        else:
            pairs = usable_pairs(context, self.options)
            for direction in directions(self.options):
                by_direction[direction] = items_of(pairs, direction)
        grids, figures = [], []
        for direction, items in by_direction.items():
            cells = self._cells(context, grid.layouts_of(vlm, items, context.batch_size), items)
            singly = self._single_patches(context, items)
            swept = sweep(context, items, cells, self.options, named)
            tasks = dict.fromkeys(item.task for item in swept.items)
            grids += [measure(swept, task, direction, self.options, context.seed) for task in tasks]
            for place, chosen, patches in singly:
                alone = sweep(context, chosen, patches, self.options, named)
                figures.append(_patch_figure(vlm, place, alone, direction))
        few = (too_few(each.task, each.effect.groups, len(each.places)) for each in grids)
        for message in filter(None, dict.fromkeys(few)):
            context.warn(message)
        return grids, figures

    def _cells(
        self, context: AnalysisContext, layouts: grid.Layouts, items: Sequence[Item]
    ) -> list[Cell]:
        """The grid of the sweep, in order of depth."""
        wanted = self.options.rows or grid.default_rows(
            [one for item in items for one in (item.target, item.donor) if one is not None]
        )
        seeds = range(context.seed, context.seed + self.options.controls)
        cells: list[Cell] = []
        absent: dict[tuple[str, str], list[str]] = {}
        places = grid.places(context.model(), self.options.sites, self.options.window)
        for place in places:
            rows, missing = grid.applicable(wanted, place.axis, layouts)
            for left_out in missing.items():
                absent.setdefault(left_out, []).append(place.name)
            for name in rows:
                cells += grid.cell(place, name, seeds, layouts)
        for (name, why), where in absent.items():
            at = "" if len(where) == len(places) else f" at {_named_sites(where)}"
            context.warn(f"The rows {name!r} are left out{at}: {why}")
        if not cells:
            raise CompositionError(
                f"None of the rows {', '.join(wanted)} exists at the chosen sites.",
                subject="rows",
                hint="Name rows that all samples have: "
                "--set 'analysis.patching.rows=[image, last]'.",
            )
        return cells

    def _single_patches(self, context: AnalysisContext, items: Sequence[Item]) -> list[_Singly]:
        """What each image row alone does is asked here, for the first samples of each task."""
        chosen: list[Item] = []
        for task in dict.fromkeys(item.task for item in items):
            chosen += [item for item in items if item.task == task][: self.options.patches]
        if not chosen:
            return []
        vlm = context.model()
        layouts = grid.layouts_of(vlm, chosen, context.batch_size)
        found: list[_Singly] = []
        for place in self._patch_places(vlm):
            counts = grid.image_rows(layouts[place.axis])
            if len(counts) != 1 or 0 in counts:
                context.warn(
                    f"Single patches at {place.name} are left out: the samples have "
                    f"{' and '.join(map(str, counts))} image rows."
                )
                continue
            cells = grid.patch_cells(place, *counts)
            check_cost(len(cells), -(-len(chosen) // context.batch_size), self.options)
            found.append((place, chosen, cells))
        return found

    def _patch_places(self, vlm: ModelAdapter) -> list[grid.Place]:
        patterns = self.options.patches_at
        if patterns is not None:
            return grid.places(vlm, patterns, 1)
        return grid.places(vlm, self.options.sites, 1)[:1]


_Singly = tuple[grid.Place, Sequence[Item], Sequence[Cell]]


def _patch_figure(vlm: ModelAdapter, place: grid.Place, swept: Swept, direction: str) -> Figure:
    changes, scale = moved(swept, direction)
    values = (changes / np.where(scale == 0, np.nan, scale)).T[:, None, :]
    samples = [item.target for item in swept.items]
    return Figure(
        f"patches-{direction}-{place.name.replace('.', '-')}",
        f"What each patch alone does at {place.name} ({direction})",
        "patches",
        x=(),
        y=[place.name],
        y_label="share of the effect",
        sheets=patch_sheets(vlm, samples, place.axis, list(values)),
    )


def _named_sites(names: Sequence[str]) -> str:
    """The first of some sites, and how many more there are."""
    more = len(names) - 1
    return f"{names[0]} and {more} more sites" if more > 1 else " and ".join(names)
