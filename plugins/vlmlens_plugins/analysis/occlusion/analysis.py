"""The analysis: occlusion maps and others, and how faithful each is to the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options
from vlmlens.errors import CompositionError, MissingAnnotation, SpecError, did_you_mean
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._maps import METHODS
from vlmlens_plugins.analysis._maps.aims import aims_of, check_followable, compares
from vlmlens_plugins.analysis._sweeps.sweeping import heard
from vlmlens_plugins.analysis.occlusion import report
from vlmlens_plugins.analysis.occlusion.cost import check_cost
from vlmlens_plugins.analysis.occlusion.measured import (
    OCCLUSION,
    ROWS,
    Measured,
    chosen,
    made_curves,
    made_maps,
    methods_of,
    sites_of,
)
from vlmlens_plugins.analysis.occlusion.options import OcclusionOptions
from vlmlens_plugins.analysis.occlusion.regions import regions_for


class Occlusion(Analysis):
    """Maps of what the answer rests on, by hiding parts of the image, held against other maps."""

    Options: ClassVar[type[Options]] = OcclusionOptions
    options: OcclusionOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`: methods exist, regions can be used, and the cost is bounded."""
        del columns
        known = (OCCLUSION, ROWS, *METHODS)
        for name in methods_of(self.options):
            if name not in known:
                raise SpecError(
                    f"There is no method {name!r}.",
                    subject=name,
                    hint=did_you_mean(name, known) or f"Methods are {', '.join(known)}.",
                )
        if self.options.sites is not None and ROWS not in methods_of(self.options):
            raise SpecError(
                "sites says where rows are replaced, and methods does not name rows.",
                subject="sites",
                hint="Add rows to methods, or leave sites out.",
            )
        asked = chosen(samples, self.options.samples)
        if not asked:
            raise MissingAnnotation(
                "The analysis occlusion hides parts of images, and no sample has one.",
                subject="images",
                hint="Give samples with images, or leave the analysis out.",
            )
        regions_for(asked, self.options.region)
        check_cost(samples, self.options)

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`: there are answers to follow, and the sites exist."""
        del columns
        check_followable(skeleton, chosen(samples, self.options.samples), OCCLUSION)
        methods = methods_of(self.options, skeleton)
        if compares(skeleton) and set(methods) != {OCCLUSION}:
            raise CompositionError(
                f"The method {next(m for m in methods if m != OCCLUSION)} needs a model that "
                "writes; this one only compares choices.",
                subject="methods",
                hint="Use methods=[occlusion].",
            )
        if self.options.sites is not None:
            check_cost(samples, self.options, len(sites_of(skeleton, self.options)))

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        told, warnings = heard(context)
        asked = chosen(context.samples, self.options.samples)
        followed = aims_of(
            told,
            asked,
            difference=self.options.score == "difference",
            only_right=self.options.only_right,
        )
        for message in followed.warnings:
            told.warn(message)
        aims = followed.aims
        maps, layers = made_maps(told, aims, self.options)
        curves = made_curves(told, aims, maps, self.options)
        places = regions_for([aim.sample for aim in aims], self.options.region)
        measured = Measured(aims, maps, layers, curves, places)
        return report.report(
            measured, self.options, context.seed, [*followed.notes], told.warn, warnings
        )
