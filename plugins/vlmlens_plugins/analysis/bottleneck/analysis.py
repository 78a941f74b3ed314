"""The analysis: where do errors come from?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options
from vlmlens.abc.analysis import MODEL
from vlmlens.errors import MissingAnnotation, SpecError, did_you_mean
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._finite import finite_cases
from vlmlens_plugins.analysis._grading import rules_of
from vlmlens_plugins.analysis._sweeps.sweeping import heard
from vlmlens_plugins.analysis._tasks import rows_by_task
from vlmlens_plugins.analysis.bottleneck.asked import asked, conditions
from vlmlens_plugins.analysis.bottleneck.charts import bottlenecks
from vlmlens_plugins.analysis.bottleneck.measured import Measured, measured
from vlmlens_plugins.analysis.bottleneck.options import BottleneckOptions
from vlmlens_plugins.analysis.bottleneck.report import report
from vlmlens_plugins.analysis.bottleneck.tuning.tuned import check_tunable, closed_gap
from vlmlens_plugins.analysis.bottleneck.usable import usable
from vlmlens_plugins.benchmarks.card import STRICT

_DEFAULTS = BottleneckOptions.model_fields


class Bottleneck(Analysis):
    """Each error is put down to eye, alignment, language, reasoning or prior."""

    Options: ClassVar[type[Options]] = BottleneckOptions
    options: BottleneckOptions

    def needs(self) -> frozenset[str]:
        """See `Analysis.needs`."""
        return frozenset({"text-only"} if self.options.blank == "none" else ())

    def uses(self, samples: Sequence[Sample]) -> frozenset[str]:
        """See `Analysis.uses`: the model reads every stage anew, so that edits hold."""
        del samples
        return frozenset({MODEL})

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`: there are labels, and what options name exists."""
        del columns
        known, _ = usable(samples, self.options)
        self._check_task(samples, known)
        if not known:
            raise MissingAnnotation(
                "bottleneck needs samples with an image and a label, one of the choices where "
                "there are some, and there are none.",
                subject="labels",
                hint="Give the data labels, or leave the analysis out.",
            )
        for option in ("ocr", "scene", "description", "fact"):
            self._check_named(option, known)
        rule = self.options.rule
        if not rules_of(known, rule) and rule != STRICT:
            raise SpecError(
                f"analysis.bottleneck.rule={rule}: no sample is an open question of a benchmark.",
                subject=rule,
                hint="Leave the option out: choices are compared, and other answers are read by "
                "the labels of their task.",
            )

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`: a model that only compares choices is given some."""
        del columns
        closed = skeleton.choice_scores(()) is not None
        known = usable(samples, self.options, closed=closed)[0]
        _check_choices(known)
        if self.options.tune:
            check_tunable(skeleton, known, self.options)

    def cost(self, skeleton: ModelAdapter, samples: Sequence[Sample]) -> str:
        """See `Analysis.cost`."""
        reads = skeleton.choice_scores(()) is None
        known, _ = usable(samples, self.options, closed=not reads)
        passes = sum(1 + len(conditions(one, self.options, reads=reads)) for one in known)
        tuned = ""
        if self.options.tune:
            number = len(self.options.components) * self.options.seeds + 1
            tuned = f", and {number} trainings"
        return f"about {passes} passes of the model{tuned}"

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        context, warnings = heard(context)
        retrieves = context.model().choice_scores(()) is not None
        samples, left_out = usable(context.samples, self.options, closed=retrieves)
        for message in left_out:
            context.warn(message)
        _check_choices(samples)
        cases = finite_cases(asked(context, samples, self.options), context, "bottleneck")
        rows = rows_by_task([case.sample for case in cases])
        tasks = {task: [cases[i] for i in own] for task, own in rows.items()}
        found = [measured(tasks, task, self.options, context.seed) for task in tasks]
        charts = {}
        if self.options.charts:
            charts = {
                one.task: bottlenecks(
                    one.cases, one.questions, self.options, context.seed, retrieves=retrieves
                )
                for one in found
            }
            _warn_of_charts(found, context)
        closed = closed_gap(context, samples, self.options) if self.options.tune else None
        return report(found, charts, closed, self.options, warnings)

    def _check_task(self, samples: Sequence[Sample], known: Sequence[Sample]) -> None:
        """The task that the user names exists; where one is tuned for, there is one."""
        task, tasks = self.options.task, list(rows_by_task(samples))
        if task is not None and task not in tasks:
            raise SpecError(
                f"analysis.bottleneck.task: there is no task {task!r}.",
                subject=task,
                hint=did_you_mean(task, tasks) or f"Its tasks: {', '.join(tasks)}.",
            )
        if self.options.tune and len(rows_by_task(known)) > 1:
            raise SpecError(
                f"Components are tuned for one task, and the data has {len(tasks)}: "
                f"{', '.join(tasks)}.",
                subject="task",
                hint="Name one: --set analysis.bottleneck.task=NAME; in `vlmlens bottleneck`, "
                "--task NAME.",
            )

    def _check_named(self, option: str, samples: Sequence[Sample]) -> None:
        """An attribute that the user names exists."""
        given = getattr(self.options, option)
        if given == _DEFAULTS[option].default:
            return
        names = (given,) if isinstance(given, str) else given
        known = sorted({name for sample in samples for name in sample.attributes})
        if not set(names) & set(known):
            name = names[0] if names else ""
            raise MissingAnnotation(
                f"analysis.bottleneck.{option}: no sample has an attribute {name!r}.",
                subject=name,
                hint=did_you_mean(name, known) or f"Known: {', '.join(known) or 'none'}.",
            )


def _check_choices(samples: Sequence[Sample]) -> None:
    if not samples:
        raise MissingAnnotation(
            "bottleneck: this model only compares choices, and no sample has any.",
            subject="choices",
            hint="Give the data a column of choices, or choose a model that writes.",
        )


def _warn_of_charts(found: Sequence[Measured], context: AnalysisContext) -> None:
    for one in found:
        reasons = sorted({each.why_not for each in one.questions if each.why_not})
        if reasons:
            context.warn(f"{one.task}: not all questions are probed, since {'; '.join(reasons)}.")
