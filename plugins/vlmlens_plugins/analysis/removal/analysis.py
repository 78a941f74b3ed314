"""Removal: objects are taken out of image rows; hallucinated ones should go, true ones stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options
from vlmlens.errors import CompositionError, DataError, MissingAnnotation, SpecError
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._sweeps import CellOptions, Item, sweep
from vlmlens_plugins.analysis._sweeps.sweeping import check_cost, check_writes, heard
from vlmlens_plugins.analysis.captions.said import true_objects
from vlmlens_plugins.analysis.removal import caption_report, report
from vlmlens_plugins.analysis.removal.asked import OBJECT, Halves, halves, has, is_there, object_of
from vlmlens_plugins.analysis.removal.captions import cleaned
from vlmlens_plugins.analysis.removal.directions import (
    Directions,
    Pictures,
    directions,
    own,
    word_sample,
)
from vlmlens_plugins.analysis.removal.measured import KINDS, Measured, Place, chosen
from vlmlens_plugins.analysis.removal.options import RemovalOptions
from vlmlens_plugins.object_names import names_in

_MOST_SITES = 4
_MOST_TEXT_SITES = 3
_READ = (Axis.ENCODER, Axis.LLM)


class Removal(Analysis):
    """Chooses where and how strongly on half of the groups, and reports on the other half."""

    Options: ClassVar[type[Options]] = RemovalOptions
    options: RemovalOptions

    def needs(self) -> frozenset[str]:
        """See `Analysis.needs`: words are read without a picture."""
        return frozenset({"text-only"} if self.options.method == "project-out" else ())

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        del columns
        if Selector.parse(self.options.rows).pool is not None:
            raise SpecError(
                f"rows={self.options.rows!r} pools rows, but a direction is removed from each.",
                subject="rows",
                hint="Leave the pooling out.",
            )
        if self.options.method == "steer" and self.options.text_sites is not None:
            raise SpecError(
                "text_sites are where words are read, and method=steer reads none.",
                subject="text_sites",
                hint="Leave text_sites out, or use method=project-out.",
            )
        for name in ("objects", "max_new_tokens"):
            given = getattr(self.options, name) != RemovalOptions.model_fields[name].default
            if given and self.options.measure == "answers":
                raise SpecError(
                    f"{name} is about captions, and measure=answers writes none.",
                    subject=name,
                    hint="Set measure=captions, or leave it out.",
                )
        if self.options.measure == "captions":
            true_objects(samples, names_in(self.options.objects))
        else:
            halves(samples, self.options.samples, 0)

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`: whether there are such sites, of equal width."""
        del columns
        check_writes(skeleton, "removal")
        if self.options.method == "project-out":
            _check_words(skeleton, next(filter(None, map(object_of, samples)), "thing"))
        check_cost(len(places(skeleton, self.options)), 1, self.options)

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        context, warnings = heard(context)
        if self.options.measure == "captions":
            return self._captions(context, warnings)
        parts = halves(context.samples, self.options.samples, context.seed)
        tried = places(context.model(), self.options)
        sites = list(dict.fromkeys(each.site for each in tried))
        sources = list(dict.fromkeys(each.source for each in tried))
        learnt = {s.id: s for s in (*parts.shown, *(item.target for item in parts.choose))}
        pictures = Pictures(parts.objects, list(learnt.values()), has)
        found = directions(context, pictures, self.options, sites, sources)
        measured = self._measured(context, parts, found, tried)
        if measured.too_few:
            context.warn(measured.too_few)
        return Result(
            analysis="removal",
            title="Taking objects out of the picture's rows",
            findings=report.findings(measured),
            tables=report.tables(measured),
            figures=report.figures(measured),
            options=self.options.model_dump(mode="json"),
            notes=report.notes(measured),
            warnings=warnings,
            overview=report.overview(measured),
        )

    def _captions(self, context: AnalysisContext, warnings: list[str]) -> Result:
        names = names_in(self.options.objects)
        there, told = true_objects(context.samples, names)
        for message in told:
            context.warn(message)
        samples = [sample for sample in context.samples if sample.id in there]
        tried = places(context.model(), self.options)
        found = cleaned(context, samples, there, names, self.options, tried)
        return Result(
            analysis="removal",
            title="Taking objects out of the picture's rows",
            findings=caption_report.findings(found),
            tables=caption_report.tables(found),
            options=self.options.model_dump(mode="json"),
            notes=caption_report.notes(found),
            warnings=warnings,
            overview=caption_report.overview(found),
        )

    def _measured(
        self, context: AnalysisContext, parts: Halves, found: Directions, tried: Sequence[Place]
    ) -> Measured:
        options, seed = self.options, context.seed
        if found.left_out:
            context.warn(
                f"{len(found.left_out)} objects are left out, for example {found.left_out[0]!r}: "
                "there are fewer than two pictures with them, or without them, to learn from."
            )
        kinds = KINDS if len(found.objects) > 1 else KINDS[:1]
        if len(kinds) < len(KINDS):
            context.warn("There is only one object, so that none can be exchanged for another.")
        named = CellOptions(directions={name: list(one) for name, one in found.vectors.items()})

        def asked(pairs: Sequence[tuple[Item, str]]) -> list[Item]:
            return [
                found.named(item, name, options.controls, seed)
                for item, name in pairs
                if name in found.objects
            ]

        first = asked([(item, object_of(item.target)) for item in parts.choose])
        second = asked([(item, object_of(item.target)) for item in parts.report])
        for half in (first, second):
            if len({is_there(item.target) for item in half}) < len({True, False}):
                raise MissingAnnotation(
                    "In one half of the groups no question is left with yes, or with no, as the "
                    "right answer: their objects have no direction.",
                    subject=OBJECT,
                    hint="Give more samples, or use method=project-out.",
                )
        cells = [each.cell(options, own(each.source)) for each in tried]
        swept = sweep(context, first, cells, options, named)
        best = tried[chosen(tried, swept, seed=seed, draws=options.draws)]
        mine = best.cell(options, own(best.source))
        reported = sweep(
            context, second, [mine, *best.control_cells(options, kinds)], options, named
        )
        untouched = None
        if others := asked(parts.untouched):
            cells = [mine, *best.control_cells(options, ["random"])]
            untouched = sweep(context, others, cells, options, named)
        return Measured(options, tried, swept, best, reported, untouched, found.left_out, seed)


def places(vlm: ModelAdapter, options: RemovalOptions) -> list[Place]:
    """Everything that is tried, in order of depth.

    Args:
        vlm: The model, or its skeleton.
        options: The options.

    Raises:
        CompositionError: The model has no language blocks, or sites differ in width.
        SiteError: A pattern is malformed, or matches nothing.
    """
    encoder = _blocks(vlm, "llm.encoder")
    blocks = encoder or _blocks(vlm, "llm")
    if not blocks and (options.sites is None or options.text_sites is None):
        raise CompositionError(
            "The model has no language blocks to edit.",
            subject="sites",
            hint="Name sites: --set analysis.removal.sites=[...].",
        )
    inner = encoder or blocks[:-1] or blocks
    spread = np.linspace(0, len(inner) - 1, min(len(inner), _MOST_SITES)).round().astype(int)
    sites = _named(vlm, options.sites, [inner[i] for i in dict.fromkeys(spread.tolist())])
    text_sites = _named(vlm, options.text_sites, blocks[:_MOST_TEXT_SITES])
    if options.method == "steer":
        return [Place(site, site, each) for site in sites for each in options.strengths]
    _check_space(vlm, sites, text_sites)
    return [
        Place(site, source, each)
        for site in sites
        for source in text_sites
        for each in options.strengths
    ]


def _check_words(vlm: ModelAdapter, word: str) -> None:
    try:
        vlm.encode([word_sample(word)])
    except DataError as error:
        raise CompositionError(
            f"The words of objects are read without a picture: {error.message}",
            subject="method",
            hint="This checkpoint does not run on text alone: use method=steer.",
        ) from error


def _blocks(vlm: ModelAdapter, part: str) -> list[str]:
    sites = vlm.sites.canonical.items()
    return [name for name, site in sites if name == f"{part}.block.{site.index}"]


def _check_space(vlm: ModelAdapter, sites: Sequence[str], text_sites: Sequence[str]) -> None:
    """Raise an error if words are not read in the space of the edited rows."""
    for names, axes in ((sites, (Axis.PROJECTOR, *_READ)), (text_sites, _READ)):
        for name in names:
            (site, *_) = vlm.sites.resolve(name)
            if site.axis not in axes:
                raise CompositionError(
                    f"A word's state says nothing about rows at {name!r}, which are not those of "
                    "the language model.",
                    subject=name,
                    hint="Name language blocks, or use method=steer.",
                )
    known = {vlm.sites.width(vlm.sites.resolve(one)[0], vlm.widths()) for one in sites}
    read = {vlm.sites.width(vlm.sites.resolve(one)[0], vlm.widths()) for one in text_sites}
    widths = (known | read) - {None}
    if len(widths) > 1:
        raise CompositionError(
            f"The rows at these sites have different widths: {sorted(filter(None, widths))}.",
            subject="sites",
            hint="Name language blocks as sites and text_sites, or use method=steer.",
        )


def _named(vlm: ModelAdapter, patterns: Sequence[str] | None, default: Sequence[str]) -> list[str]:
    if patterns is None:
        return list(default)
    found = [site.name for pattern in patterns for site in vlm.sites.resolve(pattern)]
    return list(dict.fromkeys(found))
