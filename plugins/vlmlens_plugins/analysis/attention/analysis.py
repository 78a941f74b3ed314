"""The analysis: where attention goes, and maps over the picture that are made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options
from vlmlens.abc.model_work import JSON
from vlmlens.errors import CompositionError, DataError, MissingAnnotation, SpecError
from vlmlens.results import Figure, Finding, Result, Table
from vlmlens.samples import Sample
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._columns import choose
from vlmlens_plugins.analysis._key_regions import check_regions, key_regions
from vlmlens_plugins.analysis._maps.attending import check_images, passed_over
from vlmlens_plugins.analysis._sweeps.effects import too_few
from vlmlens_plugins.analysis._sweeps.sweeping import check_writes, heard
from vlmlens_plugins.analysis._tasks import rows_by_task
from vlmlens_plugins.analysis.attention import asked, pictures, report, stored, tables
from vlmlens_plugins.analysis.attention.measured import Measured
from vlmlens_plugins.analysis.attention.options import FROM_MODEL, AttentionOptions


class AttentionAnalysis(Analysis):
    """Shares of attention by block and head, and maps: attention, rollout, relevance, values."""

    Options: ClassVar[type[Options]] = AttentionOptions
    options: AttentionOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`: there are images, and the key region is one of some sample."""
        Selector.parse(self.options.query)
        if columns and self.options.source != "model":
            choose(self.options.columns, columns)
        if self.options.source == "model" and self.options.columns is not None:
            raise SpecError(
                "columns are named, and source=model does not read any.",
                subject="columns",
                hint="Leave one of the two options out.",
            )
        if not any(sample.images for sample in samples):
            raise MissingAnnotation(
                "attention measures what the image gets, and no sample has one.",
                subject="images",
                hint="Give the data images, or leave the analysis out.",
            )
        chosen = self._chosen(samples, from_model=True)[0]
        for sample, own in zip(chosen, key_regions(chosen, self.options.region), strict=True):
            check_regions(sample, own)

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`: unless columns are read, attention can be."""
        if self.options.source == "columns" or (
            self.options.source is None and stored.may_be_usable(columns)
        ):
            return
        self._check_readable(skeleton, samples)

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        told, warnings = heard(context)
        queries = self._stored(told)
        samples, rest = self._chosen(told.samples, from_model=not queries)
        for message in rest:
            told.warn(message)
        tasks = rows_by_task(samples)
        drawn = [i for rows in tasks.values() for i in rows[: self.options.maps]]
        maps: list[Mapping[str, JSON]] = []
        regions = key_regions(samples, self.options.region)
        if queries:
            found = [
                stored.read(
                    told,
                    query,
                    names,
                    samples,
                    regions=regions,
                    drawn=dict.fromkeys(drawn, self.options.heads),
                )
                for query, names in queries.items()
            ]
        else:
            self._check_readable(told.model(), samples)
            without = passed_over(told.model())
            if without:
                told.warn(without)
            one, maps = asked.measured(told, samples, drawn, self.options, regions)
            found = [one]
        return self._result(told, found, _finite(told, found, tasks), maps, warnings)

    def _check_readable(self, vlm: ModelAdapter, samples: Sequence[Sample]) -> None:
        """Raise an error if the model's attention to the image cannot be read.

        Raises:
            CompositionError: The model only compares choices, its heads are not known, it has not
                those that are named, or its image rows are not among those that self-attention
                reads.
        """
        check_writes(vlm, "attention")
        asked.check_heads(vlm, self.options.heads or ())
        check_images(vlm.encode([next(sample for sample in samples if sample.images)]))

    def _stored(self, context: AnalysisContext) -> dict[str, list[str]]:
        """The columns that are read, by query; none: the model is asked.

        Raises:
            CompositionError: Columns are asked for, and there are none that can be used.
        """
        if self.options.source == "model":
            return {}
        known = bool(context.columns())
        queries = stored.usable(context, self.options.columns) if known else {}
        if not queries and (self.options.source == "columns" or self.options.columns is not None):
            raise CompositionError(
                "No column has a weight per image token.",
                subject="columns",
                hint="Extract with --extractor attention, --set options.extractor.regions=patches "
                "and a selector that keeps one query, such as last; or leave source out.",
            )
        return queries

    def _chosen(
        self, samples: Sequence[Sample], *, from_model: bool
    ) -> tuple[list[Sample], list[str]]:
        """The samples with images, at most so many of each task; and what is left out."""
        having = [sample for sample in samples if sample.images] if from_model else list(samples)
        most = self.options.samples or (FROM_MODEL if from_model else None)
        kept = [i for rows in rows_by_task(having).values() for i in rows[:most]]
        without = len(samples) - len(having)
        said = [f"{without} of {len(samples)} samples are left out: without an image."]
        return [having[i] for i in sorted(kept)], said if without else []

    def _result(
        self,
        context: AnalysisContext,
        found: Sequence[Measured],
        tasks: Mapping[str, Sequence[int]],
        maps: Sequence[Mapping[str, JSON]],
        warnings: Sequence[str],
    ) -> Result:
        seed, draws = context.seed, self.options.draws
        whole = {task: len(rows) for task, rows in rows_by_task(context.samples).items()}
        findings: list[Finding | None] = []
        all_tables: list[Table] = []
        figures: list[Figure] = []
        tests = [{t: one.tested(rows, seed, draws) for t, rows in tasks.items()} for one in found]
        for one, tested in zip(found, tests, strict=True):
            for task, rows in tasks.items():
                every = whole[task] == len(rows)
                findings.append(report.finding(one, task, rows, tested[task], whole=every))
                test = tested[task]
                few = "" if test is None else too_few(task, test.groups, len(test.p))
                if few:
                    context.warn(few)
            findings.append(report.sinks(one))
            all_tables += tables.tables(one, tasks, tested, self.options, seed)
            figures += pictures.figures(one, tasks, context.model(), draws, seed)
        if maps:
            findings += self._of_maps(context, found[0], tasks, maps, all_tables)
        return Result(
            analysis="attention",
            title="Where the model looks",
            findings=[each for each in findings if each is not None],
            tables=all_tables,
            figures=figures,
            options=self.options.model_dump(mode="json"),
            notes=list(report.notes(found[0], self.options, asked=bool(maps))),
            warnings=warnings,
            overview=[
                report.glance(found[0], task, rows, tests[0][task]) for task, rows in tasks.items()
            ],
        )

    def _of_maps(
        self,
        context: AnalysisContext,
        one: Measured,
        tasks: Mapping[str, Sequence[int]],
        maps: Sequence[Mapping[str, JSON]],
        all_tables: list[Table],
    ) -> list[Finding | None]:
        for method in self.options.methods:
            why = next((m["left_out"][method] for m in maps if method in m["left_out"]), None)
            if why is not None:
                context.warn(f"Maps by {method} are left out: {why}")
        shares = {task: tables.in_region(maps, rows) for task, rows in tasks.items()}
        areas = {
            task: float(np.nanmean(own)) if np.isfinite(own := one.area[rows]).any() else np.nan
            for task, rows in tasks.items()
        }
        made = tables.map_table(shares, areas)
        if made is not None:
            all_tables.append(made)
        whole = {task: len(rows) for task, rows in rows_by_task(context.samples).items()}
        ids = {
            task: [] if whole[task] == len(rows) else [one.samples[i].id for i in rows]
            for task, rows in tasks.items()
        }
        return [report.of_maps(task, shares[task], areas[task], ids[task]) for task in tasks]


def _finite(
    context: AnalysisContext, found: Sequence[Measured], tasks: Mapping[str, Sequence[int]]
) -> dict[str, list[int]]:
    """The samples of each task whose weights are finite everywhere.

    Raises:
        DataError: There are none.
    """
    known = np.all([one.finite for one in found], 0)
    kept = {task: [i for i in rows if known[i]] for task, rows in tasks.items()}
    if not known.any():
        raise DataError(
            "The attention weights of no sample are finite.",
            subject="attention",
            hint="Load the model in float32 or bfloat16; in float16, numbers overflow.",
        )
    if not known.all():
        bad = int((~known).sum())
        context.warn(
            f"{bad} of {len(known)} samples are left out: their attention weights are not finite."
        )
    return {task: rows for task, rows in kept.items() if rows}
