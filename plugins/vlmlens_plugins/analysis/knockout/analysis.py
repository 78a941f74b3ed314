"""Knockout: attention from some rows to others is cut, layer by layer, and the answer followed.

M. Geva et al., "Dissecting Recall of Factual Associations in Auto-Regressive Language Models"
(2023, arXiv 2304.14767).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options
from vlmlens.errors import CompositionError, MissingAnnotation, SiteNotFound
from vlmlens.passes.edges import check_cut
from vlmlens.passes.edits import EdgeCut
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Site
from vlmlens.tokens import Selector, TokenLayout
from vlmlens_plugins.analysis._sweeps import Cell, Item, check_cost, sweep
from vlmlens_plugins.analysis._sweeps.followed import (
    candidates,
    check_labels,
    followed,
)
from vlmlens_plugins.analysis._sweeps.rows import Drawn
from vlmlens_plugins.analysis._sweeps.sweeping import Onward, check_writes
from vlmlens_plugins.analysis.knockout.options import KnockoutOptions
from vlmlens_plugins.analysis.knockout.report import report
from vlmlens_plugins.analysis.knockout.routes import (
    Route,
    cells_of,
    control_of,
    default_routes,
    width_of,
)

_EVERYWHERE = "llm.block.*.attn"
_LAST = Selector.parse("last")


class Knockout(Analysis):
    """Which rows must read which, and in which layers, for the answer."""

    Options: ClassVar[type[Options]] = KnockoutOptions
    options: KnockoutOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        del columns
        check_labels(samples, "The knockout")
        if self._shows and not self._seeing(candidates(samples, 1)[0]):
            raise MissingAnnotation(
                "The knockout cuts what is read of the image, and no sample with a label has one.",
                subject="images",
                hint="Give the data images, or name routes without the image.",
            )

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`: whether its attention can be cut between these rows."""
        del columns
        sites = attentions(skeleton)
        first = self._seeing(candidates(samples, 1)[0])[:1]
        routes = [(route, None) for route in self._routes(_layouts(skeleton, first, 1))]
        check_cost(len(self._cells(routes, sites, 0)), 1, self.options)

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        self.check(context.samples, ())
        context = replace(context, progress=Onward(context.progress))
        vlm = context.model()
        sites = attentions(vlm)
        asked, warnings = candidates(context.samples, self.options.samples)
        seeing = self._seeing(asked)
        if len(seeing) < len(asked):
            warnings.append(f"{len(asked) - len(seeing)} samples are left out: they have no image.")
        self._routes(_layouts(vlm, seeing[:1], 1))
        chosen = followed(context, self.options, seeing)
        layouts = _layouts(vlm, chosen.items, context.batch_size)
        routes = [(route, control_of(route, layouts)) for route in self._routes(layouts)]
        warnings = [*warnings, *chosen.warnings, *_passed_through(vlm, sites)]
        for message in warnings:
            context.warn(message)
        cells = self._cells(routes, sites, context.seed)
        swept = sweep(context, chosen.items, cells, self.options)
        width = width_of(self.options.window, len(sites))
        result = report(swept, chosen, self.options, width, context.seed, warnings)
        for message in result.warnings[len(warnings) :]:
            context.warn(message)
        return result

    @property
    def _shows(self) -> bool:
        """Whether a route begins or ends at the image."""
        given = self.options.routes
        routes = [Route.parse(text) for text in given or ()]
        named = [name for route in routes for name in (route.source, route.target)]
        return given is None or any(name.startswith("image") for name in named)

    def _seeing(self, items: Sequence[Item]) -> list[Item]:
        """Those that have an image, where a route needs it."""
        return [item for item in items if item.target.images or not self._shows]

    def _routes(self, layouts: Sequence[TokenLayout]) -> list[Route]:
        """The routes; all samples have their rows.

        Raises:
            CompositionError: A sample does not.
        """
        given = self.options.routes
        routes = (
            default_routes(layouts)
            if given is None
            else [Route.parse(text) for text in dict.fromkeys(given)]
        )
        for route in routes:
            fault = next(filter(None, map(route.fault, layouts)), "")
            if fault:
                raise CompositionError(
                    f"The route {str(route)!r} cannot be cut in every sample. {fault}",
                    subject=str(route),
                    hint="Name other rows: --set analysis.knockout.routes='image -> last'.",
                )
        return routes

    def _cells(
        self, routes: Sequence[tuple[Route, Drawn | None]], sites: Sequence[Site], seed: int
    ) -> list[Cell]:
        return cells_of(
            routes,
            sites,
            width_of(self.options.window, len(sites)),
            controls=self.options.controls,
            seed=seed,
            renormalise=self.options.renormalise,
        )


def attentions(vlm: ModelAdapter) -> list[Site]:
    """The attention modules of the language model whose edges can be cut.

    Raises:
        CompositionError: There is no language model with such modules.
        EditError: The attention implementation takes no table of queries and keys.
    """
    check_writes(vlm, "knockout")
    try:
        return check_cut(EdgeCut(_EVERYWHERE, _LAST, _LAST, _EVERYWHERE), vlm)
    except SiteNotFound as error:
        raise CompositionError(
            "The knockout cuts attention in the blocks of a language model, and there is none.",
            subject="knockout",
            hint="Leave the analysis out, or choose another model.",
        ) from error


def _layouts(vlm: ModelAdapter, items: Sequence[Item], size: int) -> list[TokenLayout]:
    found: list[TokenLayout] = []
    for start in range(0, len(items), size):
        batch = vlm.encode([item.target for item in items[start : start + size]])
        found += batch.layouts[Axis.LLM].samples
    return found


def _passed_through(vlm: ModelAdapter, sites: Sequence[Site]) -> list[str]:
    """A warning of blocks that have no attention to cut."""
    blocks = [name for name in vlm.sites.canonical if name.startswith("llm.block.")]
    cut = {site.name.removesuffix(".attn") for site in sites}
    others = [name for name in blocks if name not in cut]
    if not others:
        return []
    return [
        f"{len(others)} of {len(blocks)} blocks (for example {others[0]}) have no attention that "
        "can be cut. What they carry is not cut."
    ]
