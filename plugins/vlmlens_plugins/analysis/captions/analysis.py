"""Captions: the objects that texts name, held against those that are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmlens.abc import Analysis, AnalysisContext, Options, WorkUnit
from vlmlens.errors import MissingAnnotation, did_you_mean
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._answer_work import WriteOptions, WrittenAnswers
from vlmlens_plugins.analysis._tasks import ALL, rows_by_task
from vlmlens_plugins.analysis.captions import report
from vlmlens_plugins.analysis.captions.options import CaptionOptions
from vlmlens_plugins.analysis.captions.said import Caption, true_objects
from vlmlens_plugins.analysis.captions.scores import scores
from vlmlens_plugins.object_names import ObjectNames, names_in


class Captions(Analysis):
    """Finds objects in texts by a table of synonyms, and counts those that are not there."""

    Options: ClassVar[type[Options]] = CaptionOptions
    options: CaptionOptions

    def needs(self) -> frozenset[str]:
        """See `Analysis.needs`."""
        return frozenset({"generate"} if self.options.texts is None else ())

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        del columns
        true_objects(samples, self._names())
        name = self.options.texts
        if name is not None and not any(_text(sample, name) for sample in samples):
            known = sorted({key for sample in samples for key in sample.attributes})
            raise MissingAnnotation(
                f"No sample has a text in the attribute {name!r}.",
                subject=name,
                hint=did_you_mean(name, known) or f"Known: {', '.join(known) or 'none'}.",
            )

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        names = self._names()
        there, warnings = true_objects(context.samples, names)
        texts, source = self._texts(context, [s for s in context.samples if s.id in there])
        if len(texts) < len(there):
            warnings.append(f"{len(there) - len(texts)} samples are left out: they have no text.")
        empty = sum(not text.strip() for text in texts.values())
        if empty:
            warnings.append(f"{empty} of {len(texts)} texts are empty: they name nothing.")
        for message in warnings:
            context.warn(message)
        captions = [
            Caption(sample, texts[sample.id], there[sample.id], names)
            for sample in context.samples
            if sample.id in texts
        ]
        draws = self.options.draws
        found = [
            scores(task, [captions[i] for i in rows], seed=context.seed, draws=draws)
            for task, rows in rows_by_task([one.sample for one in captions]).items()
        ]
        if len(found) > 1:
            found.insert(0, scores(ALL, captions, seed=context.seed, draws=draws))
        for message in filter(None, (report.too_few(one, len(found)) for one in found)):
            warnings.append(message)
            context.warn(message)
        return Result(
            analysis="captions",
            title="Objects that are named, and objects that are there",
            findings=report.findings(found),
            tables=report.tables(found, self.options.examples),
            figures=report.figures(found),
            options=self.options.model_dump(mode="json"),
            notes=report.notes(source, names, named=self.options.objects),
            warnings=warnings,
            overview=report.overview(found),
        )

    def _names(self) -> ObjectNames:
        return names_in(self.options.objects)

    def _texts(
        self, context: AnalysisContext, samples: Sequence[Sample]
    ) -> tuple[dict[str, str], str]:
        """The text of each sample, and where the texts are from."""
        name = self.options.texts
        if name is not None:
            told = {sample.id: _text(sample, name) for sample in samples}
            given = {one: text for one, text in told.items() if text is not None}
            return given, f"The texts are those in the attribute {name!r} of the samples."
        found = {s.id: context.generated[s.id].text for s in samples if s.id in context.generated}
        rest = [sample for sample in samples if sample.id not in found]
        if not rest:
            return found, f"All {len(found)} texts are the run's own (--generate)."
        work = WrittenAnswers(WriteOptions(max_new_tokens=self.options.max_new_tokens))
        made = context.run_units(work, [WorkUnit(sample) for sample in rest])
        own = f"{len(found)} texts are the run's own (--generate), " if found else ""
        said = (
            f"{own}{len(rest)} texts were written for this analysis, of at most "
            f"{self.options.max_new_tokens} tokens."
        )
        return found | {s.id: text for s, text in zip(rest, made, strict=True)}, said


def _text(sample: Sample, name: str) -> str | None:
    value = sample.attributes.get(name)
    return None if value is None else str(value)
