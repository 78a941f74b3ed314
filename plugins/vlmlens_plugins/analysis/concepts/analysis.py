"""The analysis `concepts`: what lies near what in stored columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

from vlmlens.abc import Analysis, AnalysisContext, ColumnInfo, Options
from vlmlens.abc.analysis import COLUMNS
from vlmlens.errors import CompositionError, MissingAnnotation, SpecError
from vlmlens.results import Finding, Result, Table
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._columns import choose
from vlmlens_plugins.analysis.concepts import comparing, report
from vlmlens_plugins.analysis.concepts.figures import figures
from vlmlens_plugins.analysis.concepts.learning import Learned, save
from vlmlens_plugins.analysis.concepts.measuring import Found, Measuring
from vlmlens_plugins.analysis.concepts.options import IMAGE_NAME, ConceptsOptions
from vlmlens_plugins.analysis.concepts.projecting import Projected, opened, project
from vlmlens_plugins.analysis.concepts.scores import overall
from vlmlens_plugins.analysis.concepts.sets import ConceptSet, find_sets, stored_images
from vlmlens_plugins.analysis.concepts.tables import tables


class Concepts(Analysis):
    """Neighbours, cosines, silhouettes, components and directions of concepts, beside controls."""

    Options: ClassVar[type[Options]] = ConceptsOptions
    options: ConceptsOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        self._check_vlm_lens()
        opened(self.options.onto, columns)
        if columns:
            choose(self.options.columns, columns)
        known_by_store = self._by(IMAGE_NAME) and not any(sample.images for sample in samples)
        if not self.options.onto and not known_by_store:
            find_sets(self.options.by, samples)

    def uses(self, samples: Sequence[Sample]) -> frozenset[str]:
        """See `Analysis.uses`."""
        del samples
        return frozenset({COLUMNS})

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        heard = _Heard(context)
        # A run's table makes a sample whenever it is asked for one; all parts share these.
        context = replace(context, warn=heard.warn, samples=list(context.samples))
        infos = self._infos(context)
        given = opened(self.options.onto, [info.name for info in context.columns()])
        images = stored_images(context.store) if self._by(IMAGE_NAME) else {}
        sets = self._sets(context.samples, images, context.warn)
        compared = len(infos) if self.options.vlm_lens else 0
        steps = _Steps(context, len(sets) * len(infos) + len(given) + compared)
        said, more = self._as_vlm_lens(context, infos, steps) if compared else ([], [])
        found = Measuring(context, self.options, infos, steps.advance).measure(sets)
        projected = []
        for file, direction in given:
            projected.append(project(context, file, direction))
            steps.advance()
        if not (found or projected or more):
            raise CompositionError(
                "No column can be measured.",
                subject="columns",
                hint="Read the warnings; extract in float32, or choose other columns.",
            )
        steps.end()
        return self._result(context, heard, found, projected, (said, more))

    def _result(
        self,
        context: AnalysisContext,
        heard: _Heard,
        found: Sequence[Found],
        projected: Sequence[Projected],
        others: tuple[Sequence[Finding], Sequence[Table]],
    ) -> Result:
        saved = self._save(context, found)
        for each in found:
            if left := each.given.left_out:
                some = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")
                context.warn(f"{each.given.name}: left out as rare, or in a single group: {some}.")
        return Result(
            analysis="concepts",
            title="What lies near what",
            findings=[
                *report.findings(found, self.options),
                *report.projections(projected),
                *others[0],
            ]
            or [Finding("VLM-Lens' numbers are in the tables.")],
            tables=[*tables(found, projected, saved), *others[1]],
            figures=figures(found),
            options=self.options.model_dump(mode="json"),
            notes=report.notes(self.options, found, len(saved)),
            warnings=heard.messages,
            overview=report.overview(found),
        )

    def _sets(
        self, samples: Sequence[Sample], images: dict[str, str], warn: Callable[[str], None]
    ) -> list[ConceptSet]:
        """The sets of concepts; none where samples are projected only."""
        try:
            return find_sets(self.options.by, samples, images)
        except MissingAnnotation as error:
            if not self.options.onto or self.options.by != type(self.options)().by:
                raise
            warn(f"Samples are projected only: {error.message}")
            return []

    def _check_vlm_lens(self) -> None:
        """Raise an error for options that would do nothing."""
        for name in ("prototypes", "components"):
            if getattr(self.options, name) is not None and not self.options.vlm_lens:
                raise SpecError(
                    f"{name} is an option of VLM-Lens' numbers, which are not asked for.",
                    subject=name,
                    hint="Set vlm_lens=true, or leave it out.",
                )

    def _by(self, attribute: str) -> bool:
        return any(spec.partition("@")[0] == attribute for spec in self.options.by)

    def _infos(self, context: AnalysisContext) -> list[ColumnInfo]:
        by_name = {info.name: info for info in context.columns()}
        if not by_name:
            raise CompositionError(
                "No column is stored.",
                subject="columns",
                hint="Extract some: --sites llm.block.*/last.",
            )
        return [by_name[name] for name in choose(self.options.columns, list(by_name))]

    def _as_vlm_lens(
        self, context: AnalysisContext, infos: Sequence[ColumnInfo], steps: _Steps
    ) -> tuple[list[Finding], list[Table]]:
        with comparing.opened_bank(context, self.options) as bank:
            comparing.check_size(bank, len(context.samples), len(infos))
            if bank.own:
                context.warn(
                    "VLM-Lens' numbers are of samples compared with themselves too, so the nearest "
                    "prototype is the sample itself. Name the concepts' own run: prototypes=RUN."
                )
            found = []
            for number, each in enumerate(comparing.compared(context, bank, infos, self.options)):
                found += [each] if each is not None else []
                if number < len(infos):
                    steps.advance()
            return comparing.findings(found, bank, self.options.k), comparing.tables(found)

    def _save(
        self, context: AnalysisContext, found: Sequence[Found]
    ) -> dict[tuple[str, str, str], str]:
        if self.options.directions == "off":
            return {}
        if context.folder is None:
            context.warn("The directions were not saved: there is no run folder.")
            return {}
        chosen: list[Learned] = []
        for each in found:
            best = overall(each.scores)[1].column
            everything = self.options.directions == "all"
            chosen += [one for one in each.learned if everything or one.column == best]
        return save(context.folder, chosen)


class _Heard:
    """Tells the user once, and keeps what was told."""

    def __init__(self, context: AnalysisContext) -> None:
        self._tell = context.warn
        self.messages: list[str] = []

    def warn(self, message: str) -> None:
        """Tell it, unless it was told."""
        if message not in self.messages:
            self.messages.append(message)
            self._tell(message)


class _Steps:
    """Progress by steps."""

    def __init__(self, context: AnalysisContext, total: int) -> None:
        self._context, self._done, self._total = context, 0, max(total, 1)

    def advance(self) -> None:
        """One more."""
        self._done = min(self._done + 1, self._total)
        self._context.progress(self._done, self._total)

    def end(self) -> None:
        """All of them."""
        self._context.progress(self._total, self._total)
