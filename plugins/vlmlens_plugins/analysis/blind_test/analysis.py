"""The blind test: the same questions with the image and with blank ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options
from vlmlens.errors import MissingAnnotation
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._scoring import AnswerScorer
from vlmlens_plugins.analysis.blind_test import report
from vlmlens_plugins.analysis.blind_test.answers import (
    untold_labels,
    without_class_labels,
)
from vlmlens_plugins.analysis.blind_test.conditions import Conditions
from vlmlens_plugins.analysis.blind_test.figures import figures
from vlmlens_plugins.analysis.blind_test.interviewer import ask
from vlmlens_plugins.analysis.blind_test.missing_choices import samples_by_task, with_choices
from vlmlens_plugins.analysis.blind_test.options import BlindOptions
from vlmlens_plugins.analysis.blind_test.question_forms import check_letters, is_yes_no
from vlmlens_plugins.analysis.blind_test.scores import score_tasks
from vlmlens_plugins.analysis.blind_test.tables import tables


class BlindTest(Analysis):
    """Whether answers depend on the image, task by task; see `verdict.judge` for the rule."""

    Options: ClassVar[type[Options]] = BlindOptions
    options: BlindOptions

    def needs(self) -> frozenset[str]:
        """See `Analysis.needs`."""
        chosen = self.options
        writes = chosen.form != "plain" or chosen.polarity or chosen.calibrate
        found = {"text-only"} if "none" in chosen.blank else set()
        return frozenset(found | ({"generate"} if writes or chosen.open == "generate" else set()))

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        del columns
        shown = [sample for sample in samples if sample.images]
        if not shown:
            raise MissingAnnotation(
                "The blind test needs images, and no sample has one.",
                subject="images",
                hint="Give the table an image column, or leave blind-test out.",
            )
        if self.options.form != "plain":
            check_letters(shown)
        if self.options.polarity and not any(is_yes_no(sample) for sample in shown):
            raise MissingAnnotation(
                "polarity=true needs yes/no questions, and no sample has the choices yes and no.",
                subject="choices",
                hint="Give the questions these choices, or leave polarity out.",
            )
        Conditions(shown, self.options, 0)

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`: a model that compares choices needs two labels at least."""
        del columns
        if skeleton.choice_scores(()) is not None:
            with_choices([sample for sample in samples if sample.images])

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        self.check(context.samples, ())
        warnings = self._warnings(context.samples)
        samples = [sample for sample in context.samples if sample.images]
        scorer = AnswerScorer(context.model(), mean=self.options.score == "mean")
        if scorer.by_choice:
            samples, more = with_choices(samples)
            warnings += more
        for message in warnings:
            context.warn(message)
        asked = ask(context, self.options, scorer, samples_by_task(samples))
        tasks, more = without_class_labels(asked)
        more = [*untold_labels(asked), *more]
        for message in more:
            context.warn(message)
        warnings += more
        scores = score_tasks(tasks, self.options, context.seed)
        return Result(
            analysis="blind-test",
            title="Whether the model looks at the image",
            findings=report.findings(scores, self.options),
            tables=tables(tasks, scores, self.options, context.seed),
            figures=figures(tasks, scores),
            options=self.options.model_dump(mode="json"),
            notes=report.notes(self.options, by_choice=scorer.by_choice),
            warnings=warnings,
            overview=report.overview(scores, self.options),
        )

    def _warnings(self, samples: Sequence[Sample]) -> list[str]:
        warnings = []
        without = sum(not sample.images for sample in samples)
        if without:
            warnings.append(f"{without} samples were left out: they have no image.")
        foreign = [
            sample.id
            for sample in samples
            if sample.choices and sample.label is not None and sample.label not in sample.choices
        ]
        if foreign:
            warnings.append(
                f"{len(foreign)} labels are not among their sample's choices (for example of "
                f"{foreign[0]!r}); these samples count as answered wrong."
            )
        return warnings
