"""The analysis: a few questions, each looked at from all sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options
from vlmlens.errors import MissingAnnotation, SpecError
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._sweeps.sweeping import heard
from vlmlens_plugins.analysis.look import report
from vlmlens_plugins.analysis.look.against import check_rows, traced
from vlmlens_plugins.analysis.look.answers import answers
from vlmlens_plugins.analysis.look.components import components
from vlmlens_plugins.analysis.look.evidence import evidence
from vlmlens_plugins.analysis.look.layers import layers
from vlmlens_plugins.analysis.look.looked import Looked, asked
from vlmlens_plugins.analysis.look.options import LookOptions, passes


class Look(Analysis):
    """The answer, its alternatives, where it forms, and what it rests on."""

    Options: ClassVar[type[Options]] = LookOptions
    options: LookOptions

    def needs(self) -> frozenset[str]:
        """See `Analysis.needs`."""
        return frozenset({"answers"})

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`: there are pictures."""
        del columns
        if not asked(samples):
            raise MissingAnnotation(
                "look covers parts of the picture, and no sample has one.",
                subject="images",
                hint="Give a picture: vlmlens look photo.jpg 'What is it?'.",
            )

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`: it can answer, and rows can be exchanged; the cost."""
        del columns
        compares = skeleton.choice_scores(()) is not None
        for own, other in self._asked(samples):
            if compares and not own.choices:
                raise MissingAnnotation(
                    "This model writes nothing: it only compares choices with the picture, and "
                    f"the question {own.prompt!r} has none.",
                    subject=own.id,
                    hint="Give two or more: --choices red,green,blue.",
                )
            if other is not None and not compares:
                check_rows(skeleton, own, other)
        total = self._passes(skeleton, samples)
        if total > self.options.max_passes:
            raise SpecError(
                f"The look takes about {total:,} passes of the model, and max_passes is "
                f"{self.options.max_passes:,}.",
                subject="max_passes",
                hint="Ask fewer questions, or set analysis.look.max_passes higher.",
            )

    def cost(self, skeleton: ModelAdapter, samples: Sequence[Sample]) -> str:
        """See `Analysis.cost`."""
        return f"about {self._passes(skeleton, samples):,} passes of the model"

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        told, warnings = heard(context)
        left = len(asked(context.samples)) - len(self._asked(context.samples))
        if left:
            told.warn(f"{left} more questions are not looked at (analysis.look.samples).")
        for part in report.covered([own for own, _ in self._asked(context.samples)]):
            told.warn(f"A part of the picture is covered ({part}): all lines are about the rest.")
        found = self._looked(told)
        return Result(
            analysis="look",
            title="One look",
            findings=report.findings(found),
            tables=report.tables(found),
            figures=report.figures(found),
            options=self.options.model_dump(mode="json"),
            notes=report.notes(found),
            warnings=warnings,
        )

    def _looked(self, context: AnalysisContext) -> list[Looked]:
        pairs = self._asked(context.samples)
        samples = [own for own, _ in pairs]
        others = [other for _, other in pairs if other is not None]
        said = answers(context, [*samples, *others], self.options.max_new_tokens)
        own, rest = said[: len(samples)], iter(said[len(samples) :])
        rests_on = evidence(context, samples, own, self.options)
        forms = layers(context, samples, own)
        carried = components(context, samples, own, rests_on, self.options)
        found = []
        for number, (sample, other) in enumerate(pairs):
            difference = None
            if other is not None:
                mine = (sample, own[number], rests_on[number])
                difference = traced(context, mine, (other, next(rest)), self.options)
            found.append(
                Looked(
                    sample, own[number], rests_on[number], forms[number], carried[number],
                    other, difference,
                )
            )  # fmt: skip
        return found

    def _asked(self, samples: Sequence[Sample]) -> list[tuple[Sample, Sample | None]]:
        return asked(samples)[: self.options.samples]

    def _passes(self, vlm: ModelAdapter, samples: Sequence[Sample]) -> int:
        return sum(
            passes(vlm, self.options, own, comparison=other is not None)
            for own, other in self._asked(samples)
        )
