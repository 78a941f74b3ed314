"""The analysis: which samples, patches and words activate a coordinate of a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options
from vlmlens.errors import CompositionError, MissingAnnotation, did_you_mean
from vlmlens.results import Figure, Result
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._separating import targets_of
from vlmlens_plugins.analysis._sweeps.sweeping import heard
from vlmlens_plugins.analysis.activating import pictured, report, tables
from vlmlens_plugins.analysis.activating.choosing import Shown, shown
from vlmlens_plugins.analysis.activating.coordinates import (
    Coordinate,
    Measured,
    check_stored,
    measured,
    most_varied,
)
from vlmlens_plugins.analysis.activating.driving import Drives, check_cost, drives, model_of
from vlmlens_plugins.analysis.activating.labels import Separation, separations
from vlmlens_plugins.analysis.activating.options import ActivatingOptions


class Activating(Analysis):
    """Samples with large, typical and random values of a coordinate, and what drives it there."""

    Options: ClassVar[type[Options]] = ActivatingOptions
    options: ActivatingOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`: coordinates and files can be read, and columns are stored."""
        given = self._given()
        if columns:
            check_stored(given, columns)
        check_cost(len(given) or self.options.most, self.options)
        known = sorted({name for sample in samples for name in sample.attributes})
        for name in self.options.by:
            if name != "label" and name not in known:
                raise MissingAnnotation(
                    f"No sample has an attribute {name!r}.",
                    subject=name,
                    hint=did_you_mean(name, known) or f"Known: {', '.join(known) or 'none'}.",
                )

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        told, warnings = heard(context)
        return replace(self._result(told), warnings=warnings)

    def _result(self, context: AnalysisContext) -> Result:
        chosen = self.options
        values = self._measured(context)
        own = [(one, shown(one, context.samples, chosen, context.seed)) for one in values]
        targets = targets_of(context.samples, chosen.by)
        separated = separations(values, context.samples, targets, chosen.permutations, context.seed)
        vlm = model_of(context, chosen)
        found = self._drives(context, vlm, own)
        rows = [pictured.seen(vlm, one, context.samples) for one in found]
        self._warn_of_places(context, vlm, found, rows)
        asked = any(one.driven for one in found)
        gradient = "gradient" if chosen.steps == 1 else "integrated gradient"
        label = f"{gradient} x {'(row - mean)' if chosen.against == 'mean' else 'row'}"
        maps = [
            pictured.figure(one, each, "value" if one.measured.rows is not None else label)
            for one, each in zip(found, rows, strict=True)
        ]
        return Result(
            analysis="activating",
            title="What activates single coordinates",
            findings=report.findings(found, separated, context.samples, chosen),
            tables=tables.tables(found, rows, separated, context.samples),
            figures=[*filter(None, maps), *self._histograms(values, separated)],
            options=chosen.model_dump(mode="json"),
            notes=report.notes(chosen, chosen=chosen.coordinates is None, asked=asked),
            overview=report.overview(separated),
        )

    def _given(self) -> list[Coordinate]:
        """The coordinates that the options name."""
        return list(
            dict.fromkeys(Coordinate.parse(text) for text in self.options.coordinates or ())
        )

    def _measured(self, context: AnalysisContext) -> list[Measured]:
        infos = {info.name: info for info in context.columns()}
        given = self._given()
        check_stored(given, list(infos))
        for each in given:
            at = each.along.learnt_at if each.along is not None else each.column
            if at and at != each.column:
                context.warn(f"The direction of {each.text!r} was learnt at {at}.")
        wanted = given or most_varied(context, list(infos.values()), self.options.most)
        if not wanted:
            raise CompositionError(
                "No coordinate of a stored column varies over samples.",
                subject="coordinates",
                hint="Extract several different samples.",
            )
        found = measured(context, infos, wanted)
        for one in found:
            lost = len(one.values) - len(one.finite)
            if not len(one.finite):
                raise CompositionError(
                    f"{one.coordinate.text} has no finite value.",
                    subject=one.coordinate.text,
                    hint="Choose another coordinate, or extract in float32.",
                )
            if lost:
                context.warn(
                    f"{one.coordinate.text} is not finite in {lost} samples: they are left out."
                )
        return found

    def _drives(
        self,
        context: AnalysisContext,
        vlm: ModelAdapter | None,
        own: Sequence[tuple[Measured, Sequence[Shown]]],
    ) -> list[Drives]:
        """What drives each coordinate; of ragged columns the rows themselves say it."""
        asked = [(one, each) for one, each in own if one.rows is None] if vlm is not None else []
        told = iter(drives(context, vlm, asked, self.options) if vlm is not None and asked else [])
        known = {id(one) for one, _ in asked}
        found = [next(told) if id(one) in known else Drives(one, each) for one, each in own]
        for one in found:
            if one.unknown:
                context.warn(f"What drives {one.coordinate.text} is not known: {one.unknown}")
        return found

    @staticmethod
    def _warn_of_places(
        context: AnalysisContext,
        vlm: ModelAdapter | None,
        found: Sequence[Drives],
        rows: Sequence[Sequence[pictured.Seen]],
    ) -> None:
        """Say so where it is not known what the rows of a column are."""
        for one, seen in zip(found, rows, strict=True):
            placed = any(each.patches or each.words for each in seen)
            if vlm is not None and not placed and not one.unknown:
                context.warn(
                    f"Which patches or words the rows of {one.coordinate.text} stand for is not "
                    "known, so none are shown."
                )

    @staticmethod
    def _histograms(values: Sequence[Measured], separated: Sequence[Separation]) -> list[Figure]:
        made = []
        for one in values:
            of_one = [each for each in separated if each.measured is one and each.label]
            best = min(of_one, key=lambda each: (each.corrected, -each.area), default=None)
            made.append(tables.histogram(one, best))
        return made
