"""The analysis: can internal signals tell that an answer is wrong, or that an object is absent?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options
from vlmlens.errors import MissingAnnotation, did_you_mean
from vlmlens.regions import ATTRIBUTE
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._finite import finite_cases
from vlmlens_plugins.analysis._key_regions import check_regions, key_regions
from vlmlens_plugins.analysis._sweeps.sweeping import check_writes, heard
from vlmlens_plugins.analysis._tasks import rows_by_task
from vlmlens_plugins.analysis.hallucination.asked import Case, asked, says_absent, usable
from vlmlens_plugins.analysis.hallucination.measured import Measured, measured
from vlmlens_plugins.analysis.hallucination.options import ABSENT, HallucinationOptions
from vlmlens_plugins.analysis.hallucination.places import placed
from vlmlens_plugins.analysis.hallucination.report import report

_DEFAULTS = HallucinationOptions.model_fields


class Hallucination(Analysis):
    """Which signals tell wrong answers, and what they add to the answer's own probability."""

    Options: ClassVar[type[Options]] = HallucinationOptions
    options: HallucinationOptions

    def needs(self) -> frozenset[str]:
        """See `Analysis.needs`."""
        return frozenset({"text-only"} if self.options.blank == "none" else ())

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`: there are labels, and attributes that are named exist."""
        del columns
        known, _ = usable(samples, self.options)
        if not known:
            raise MissingAnnotation(
                "hallucination needs samples with an image and a label, one of the choices where "
                "there are some, and there are none.",
                subject="labels",
                hint="Give the data labels, or leave the analysis out.",
            )
        attributes = sorted({name for sample in known for name in sample.attributes})
        name = self.options.object
        if name != _DEFAULTS["object"].default and name not in attributes:
            raise MissingAnnotation(
                f"No sample has an attribute {name!r} that names its object.",
                subject=name,
                hint=did_you_mean(name, attributes) or f"Known: {', '.join(attributes) or 'none'}.",
            )
        if self.options.target == ABSENT:
            self._check_absent(known)
        for sample, own in zip(known, key_regions(known, self.options.region), strict=True):
            check_regions(sample, own)

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`: the model writes."""
        del samples, columns
        check_writes(skeleton, "hallucination")

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        context, warnings = heard(context)
        check_writes(context.model(), "hallucination")
        samples, left_out = usable(context.samples, self.options)
        for message in left_out:
            context.warn(message)
        if self.options.target == ABSENT:
            samples = self._with_absent(samples, context)
        cases = finite_cases(asked(context, samples, self.options), context, "hallucination")
        found, places = [], []
        for task, rows in rows_by_task([case.sample for case in cases]).items():
            own = [cases[i] for i in rows]
            one = measured(task, own, self.options, context.seed)
            self._warn_of(one, context)
            found.append(one)
            places += placed(task, own, context.seed, self.options.draws)
        self._warn_of_model(cases, context)
        return report(found, places, self.options, warnings)

    def _check_absent(self, samples: Sequence[Sample]) -> None:
        if any(says_absent(str(sample.label), self.options) for sample in samples):
            return
        listed = ", ".join(self.options.absent)
        raise MissingAnnotation(
            f"target=absent needs labels that say that an object is absent ({listed}), and no "
            "label does.",
            subject="absent",
            hint="Set analysis.hallucination.absent to the labels that say so.",
        )

    def _with_absent(self, samples: Sequence[Sample], context: AnalysisContext) -> list[Sample]:
        """The samples of tasks in which some object is absent."""
        kept = []
        for task, rows in rows_by_task(samples).items():
            own = [samples[i] for i in rows]
            if any(says_absent(str(sample.label), self.options) for sample in own):
                kept += own
            else:
                context.warn(f"{task} is left out: no label says that an object is absent.")
        return kept

    def _warn_of(self, one: Measured, context: AnalysisContext) -> None:
        if self.options.hold_out == "nothing":
            context.warn(
                "hold_out=nothing: images and objects are on both sides of the split, so scores "
                "may only show that they are recognized."
            )
        if self.options.hold_out == "object" and one.objects == 1:
            context.warn(
                f"{one.task}: all samples have one object (or one question), so only groups are "
                "held out."
            )
        if one.lost:
            context.warn(
                f"{one.task}: {one.lost} samples are never tested, since what is left without "
                "their group and object has one class only."
            )

    @staticmethod
    def _warn_of_model(cases: Sequence[Case], context: AnalysisContext) -> None:
        """Say which signals this model, or the data, does not have."""
        lacks = {
            "attention to the image (its rows are not read by the language model's own attention, "
            "or its attention cannot be read)": all(c.inside["looks"] is None for c in cases),
            "internal confidence (no image rows in the language model, or no unembedding)": all(
                c.inside["answer"] is None for c in cases
            ),
            "a probe on image rows": not any(c.inside["image"] for c in cases),
        }
        if any(case.sample.attributes.get(ATTRIBUTE) for case in cases):
            place = "the place of the highest confidence (no sample has a key region, "
            place += "or image rows have no place in the image)"
            lacks[place] = all(case.inside["chance"] is None for case in cases)
        for what, lacking in lacks.items():
            if lacking:
                context.warn(f"Not measured: {what}.")
