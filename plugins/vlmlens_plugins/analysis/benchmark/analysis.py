"""BenchmarkScores: the analysis that scores answers by the cards of their question sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from vlmlens.abc import Analysis, AnalysisContext, Options
from vlmlens.abc.analysis import MODEL
from vlmlens.errors import CompositionError
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.benchmark import report
from vlmlens_plugins.analysis.benchmark.answer_file import write_answers
from vlmlens_plugins.analysis.benchmark.asking import Answered, answers, way_of
from vlmlens_plugins.analysis.benchmark.options import BenchmarkScoreOptions
from vlmlens_plugins.analysis.benchmark.parsers import readings
from vlmlens_plugins.analysis.benchmark.question_sets import QuestionSet, question_sets
from vlmlens_plugins.analysis.benchmark.report import Scored
from vlmlens_plugins.analysis.benchmark.scores import scores
from vlmlens_plugins.analysis.benchmark.tables import tables
from vlmlens_plugins.analysis.benchmark.warnings import warnings

if TYPE_CHECKING:
    from vlmlens.abc import ModelAdapter


class BenchmarkScores(Analysis):
    """Scores answers by the rules and metrics of their set, beside what guessing gains."""

    Options: ClassVar[type[Options]] = BenchmarkScoreOptions
    options: BenchmarkScoreOptions

    def needs(self) -> frozenset[str]:
        """See `Analysis.needs`."""
        ways = {"write": {"generate"}, "choose": {"answers"}}
        return frozenset(ways.get(self.options.answers, ()))

    def uses(self, samples: Sequence[Sample]) -> frozenset[str]:
        """See `Analysis.uses`: no columns, and no model where answers are given."""
        way = way_of(self.options, self._sets(samples))
        return frozenset(() if way == "given" else {MODEL})

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        del columns
        sets = self._sets(samples)
        way = way_of(self.options, sets)
        for each in sets:
            each.rule(self.options.parser).check(each.samples)
            each.check(way)

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`."""
        del columns
        way = way_of(self.options, self._sets(samples))
        if way == "write" and skeleton.choice_scores(()) is not None:
            raise CompositionError(
                "The model compares choices and writes nothing, so it cannot write answers.",
                subject="answers",
                hint="Closed questions can be chosen: --set analysis.benchmark.answers=choose.",
            )

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        sets = self._sets(context.samples)
        found = [
            self._scored(each, context.seed, alone=len(sets) == 1)
            for each in answers(context, self.options, sets)
        ]
        if context.folder is not None:
            write_answers(context.folder, found)
        told = [
            *self._left_out(context, sets),
            *(text for each in found for text in warnings(each)),
        ]
        for message in told:
            context.warn(message)
        return Result(
            analysis="benchmark",
            title=f"Scores of {', '.join(each.card.title for each in found)}",
            findings=[finding for each in found for finding in report.findings(each)],
            tables=tables(found, self.options.examples),
            figures=[figure for each in found for figure in report.figures(each)],
            options=self.options.model_dump(mode="json"),
            notes=[note for each in found for note in report.notes(each, self.options.draws)],
            warnings=told,
            overview=[glance for each in found for glance in report.overview(each)],
        )

    def _sets(self, samples: Sequence[Sample]) -> list[QuestionSet]:
        return question_sets(samples, self.options.card)

    def _scored(self, answered: Answered, seed: int, *, alone: bool) -> Scored:
        chosen = self.options
        rule = answered.asked.rule(chosen.parser)
        found = scores(answered, rule, draws=chosen.draws, seed=seed)
        read, left_out = readings(answered, chosen.parser)
        return Scored(answered, chosen.parser, found, read, left_out, alone)

    @staticmethod
    def _left_out(context: AnalysisContext, sets: Sequence[QuestionSet]) -> list[str]:
        rest = len(context.samples) - sum(len(each.samples) for each in sets)
        if not rest:
            return []
        return [f"{rest} of {len(context.samples)} samples are of no benchmark and not scored."]
