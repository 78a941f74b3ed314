"""Evidence: the same question with parts of the image hidden, exchanged, or a hint in the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options, WorkUnit
from vlmlens.errors import MissingAnnotation, SpecError
from vlmlens.regions import ATTRIBUTE as REGIONS
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.statistics import holm
from vlmlens_plugins.analysis._altered import Question, ask
from vlmlens_plugins.analysis._answer_work import WriteOptions, WrittenAnswers
from vlmlens_plugins.analysis._key_regions import check_regions, key_regions
from vlmlens_plugins.analysis._sweeps.effects import too_few
from vlmlens_plugins.analysis._sweeps.sweeping import heard
from vlmlens_plugins.analysis._tasks import rows_by_task
from vlmlens_plugins.analysis.evidence import report
from vlmlens_plugins.analysis.evidence.cases import Case, Known, cases_of
from vlmlens_plugins.analysis.evidence.conditions import answered
from vlmlens_plugins.analysis.evidence.measured import Scores, TaskNumbers, numbers, scores
from vlmlens_plugins.analysis.evidence.options import EvidenceOptions
from vlmlens_plugins.analysis.evidence.tables import figures, tables
from vlmlens_plugins.analysis.evidence.verdict import judge

_OTHERS = 7
"""Conditions that do not need a region."""


class Evidence(Analysis):
    """On which part of the image an answer rests, task by task; see `verdict.judge`."""

    Options: ClassVar[type[Options]] = EvidenceOptions
    options: EvidenceOptions

    def needs(self) -> frozenset[str]:
        """See `Analysis.needs`."""
        return frozenset({"text-only"} if self.options.blind == "text" else ())

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        del columns
        shown = [sample for sample in samples if sample.images]
        if not shown:
            raise MissingAnnotation(
                "The evidence analysis hides parts of images, and no sample has one.",
                subject="images",
                hint="Give the table an image column, or leave the analysis out.",
            )
        keys = key_regions(shown, self.options.region)
        if not any(keys):
            raise MissingAnnotation(
                "The evidence analysis hides a region of the image, and no sample has one.",
                subject=REGIONS,
                hint='Give samples an attribute `regions`: {"NAME": [left, top, right, bottom]}, '
                "in pixels, or masks; see docs/evidence.md.",
            )
        if any(sample.label is not None for sample in shown):
            _check_followed(_labelled(shown, keys)[0])
        first = self._first(shown)
        for i in first:
            check_regions(shown[i], keys[i])
        with_region = 2 * len(self.options.fills) + self.options.random_regions + 1
        most = sum(_OTHERS + with_region if keys[i] else _OTHERS for i in first)
        if most > self.options.max_questions:
            raise SpecError(
                f"The evidence analysis would ask the model up to {most:,} questions; "
                f"max_questions is {self.options.max_questions:,}.",
                subject="max_questions",
                hint="Set samples or random_regions lower, or max_questions higher.",
            )

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`: a model that compares choices writes no answer of its own."""
        del columns
        labelled = any(sample.label is not None for sample in samples)
        if skeleton.choice_scores(()) is None or labelled or all(s.choices for s in samples):
            return
        raise MissingAnnotation(
            "This model compares answers and writes none, and the samples have neither labels nor "
            "choices.",
            subject="choices",
            hint="Give the data a column of labels or choices.",
        )

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        self.check(context.samples, ())
        context, warnings = heard(context)
        cases = self._cases(context)
        asked = answered(context, cases, self.options)
        every = [scores(*pair) for pair in zip(cases, asked, strict=True)]
        tasks = self._tasks(context, cases, every)
        judged = [judge(task, self.options) for task in tasks]
        return Result(
            analysis="evidence",
            title="What the answer rests on",
            findings=report.findings(tasks, judged),
            tables=tables(tasks, judged, cases, every),
            figures=figures(tasks, cases, every, self.options.pictures),
            options=self.options.model_dump(mode="json"),
            notes=report.notes(self.options, _overlap(cases)),
            warnings=warnings,
            overview=report.overview(tasks, judged),
        )

    def _tasks(
        self, context: AnalysisContext, cases: Sequence[Case], every: Sequence[Scores]
    ) -> list[TaskNumbers]:
        by_task = rows_by_task([case.known.sample for case in cases])
        draws, seed = self.options.draws, context.seed
        found = _corrected(
            [
                numbers(name, rows, cases, every, draws=draws, seed=seed)
                for name, rows in by_task.items()
            ]
        )
        tested = [task for task in found if np.isfinite(task.p)]
        for task in tested:
            few = too_few(task.name, task.means["specificity"].groups, len(tested))
            if few:
                context.warn(few)
        return found

    def _first(self, samples: Sequence[Sample]) -> list[int]:
        """The numbers of the first samples of each task."""
        return [i for rows in rows_by_task(samples).values() for i in rows[: self.options.samples]]

    def _cases(self, context: AnalysisContext) -> list[Case]:
        shown = [sample for sample in context.samples if sample.images]
        if len(shown) < len(context.samples):
            without = len(context.samples) - len(shown)
            context.warn(f"{without} samples are left out: they have no image.")
        keys = key_regions(shown, self.options.region)
        pool = self._known(context, shown, keys)
        _check_followed(pool)
        chosen = [pool[i] for i in self._first([known.sample for known in pool])]
        if len(chosen) < len(pool):
            context.warn(
                f"{len(chosen)} of {len(pool)} samples are asked about, the first "
                f"{self.options.samples} of each task (option samples)."
            )
        return cases_of(chosen, pool, count=self.options.random_regions, seed=context.seed)

    def _known(
        self, context: AnalysisContext, samples: Sequence[Sample], keys: Sequence[tuple[str, ...]]
    ) -> list[Known]:
        """The samples with an answer to follow: their label, or what the model answers."""
        if all(sample.label is None for sample in samples):
            rows = self._first(samples)
            context.warn("No sample has a label; the model's own answers are followed.")
            own = self._own(context, [samples[i] for i in rows])
            return [Known(samples[i], text, keys[i]) for i, text in zip(rows, own, strict=True)]
        found, foreign = _labelled(samples, keys)
        missing = sum(sample.label is None for sample in samples)
        if missing:
            context.warn(f"{missing} of {len(samples)} samples are left out: without a label.")
        if foreign:
            context.warn(
                f"{len(foreign)} samples are left out (for example {foreign[0]!r}): their label "
                "is not among their choices."
            )
        return found

    def _own(self, context: AnalysisContext, samples: Sequence[Sample]) -> list[str]:
        """What the model answers: its most probable choice, or what it writes."""
        closed = [i for i, sample in enumerate(samples) if sample.choices]
        opened = [i for i, sample in enumerate(samples) if not sample.choices]
        asked = [Question(samples[i], samples[i].choices) for i in closed]
        logs = ask(context, asked, mean=self.options.score == "mean")
        found = {
            i: samples[i].choices[int(each.argmax())] for i, each in zip(closed, logs, strict=True)
        }
        work = WrittenAnswers(WriteOptions(max_new_tokens=16))
        texts = context.run_units(work, [WorkUnit(samples[i]) for i in opened])
        found |= {i: text.strip() for i, text in zip(opened, texts, strict=True)}
        return [found[i] for i in range(len(samples))]


def _labelled(
    samples: Sequence[Sample], keys: Sequence[tuple[str, ...]]
) -> tuple[list[Known], list[str]]:
    """The samples whose label can be followed, and the ids of those where it is no choice."""
    found, foreign = [], []
    for sample, key in zip(samples, keys, strict=True):
        if sample.label is None:
            continue
        if sample.choices and sample.label not in sample.choices:
            foreign.append(sample.id)
        else:
            found.append(Known(sample, sample.label, key))
    return found, foreign


def _check_followed(pool: Sequence[Known]) -> None:
    if not any(known.key for known in pool):
        raise MissingAnnotation(
            "No sample with a key region has an answer that can be followed.",
            subject="regions",
            hint="Give labels that are among the choices.",
        )


def _corrected(tasks: Sequence[TaskNumbers]) -> list[TaskNumbers]:
    """With p-values corrected over the tasks that are tested."""
    tested = [i for i, task in enumerate(tasks) if np.isfinite(task.p)]
    held = dict(zip(tested, holm([tasks[i].p for i in tested]), strict=True))
    return [replace(task, corrected=float(held.get(i, np.nan))) for i, task in enumerate(tasks)]


def _overlap(cases: Sequence[Case]) -> float:
    """By how much random regions overlap the key region, on average."""
    found = [case.places.overlap for case in cases if case.places.shifts]
    return float(np.mean(found)) if found else np.nan
