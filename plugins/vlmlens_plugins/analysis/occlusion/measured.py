"""Making the maps and their curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vlmlens.abc import AnalysisContext, ModelAdapter
from vlmlens.errors import CompositionError, SelectorError, SiteError
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._attribution.patches import patch_site
from vlmlens_plugins.analysis._blank_images import image_sizes
from vlmlens_plugins.analysis._maps import PatchMap
from vlmlens_plugins.analysis._maps.aims import Aim, compares
from vlmlens_plugins.analysis._maps.cells import Cells
from vlmlens_plugins.analysis._maps.curves import CurveFills, Curves, curves
from vlmlens_plugins.analysis._maps.map_work import maps_by
from vlmlens_plugins.analysis._maps.occluding import occlusion_maps
from vlmlens_plugins.analysis._maps.pointing import Region
from vlmlens_plugins.analysis._maps.replacing import row_maps
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.occlusion.options import OcclusionOptions

OCCLUSION: Final = "occlusion"
ROWS: Final = "rows"
RANDOM: Final = "random order"
CENTRE: Final = "centre first"
_DEFAULT = (OCCLUSION, "gradients", "attention", "relevance", "value-weighted")

Maps = Mapping[str, Sequence[PatchMap]]


@dataclass(frozen=True, slots=True)
class Measured:
    """The maps of the samples that are followed, and what they are worth.

    Args:
        aims: The samples.
        maps: By method, one for each sample.
        layers: By site, those of rows; the first one is that of `maps`.
        curves: By method, and of the two controls: the mean over draws, one for each sample.
        regions: Per sample, where the peak should lie; None: it is not known.
    """

    aims: Sequence[Aim]
    maps: Maps
    layers: Maps
    curves: Mapping[str, Sequence[Curves]]
    regions: Sequence[Region | None]

    def by_task(self) -> dict[str, list[int]]:
        """The numbers of each task's samples."""
        found: dict[str, list[int]] = {}
        for i, aim in enumerate(self.aims):
            found.setdefault(aim.task, []).append(i)
        return found


def methods_of(options: OcclusionOptions, vlm: ModelAdapter | None = None) -> tuple[str, ...]:
    """The methods that are tried; without a model, as if it offered all."""
    if options.methods is not None:
        return tuple(dict.fromkeys(options.methods))
    if vlm is not None and compares(vlm):
        return _DEFAULT[:1]
    return _DEFAULT if options.sites is None else (*_DEFAULT, ROWS)


def sites_of(vlm: ModelAdapter, options: OcclusionOptions) -> list[str]:
    """Where rows are replaced.

    Raises:
        SiteError: A pattern matches nothing.
        CompositionError: The model has no place where image rows could be replaced.
    """
    if options.sites is None:
        return [patch_site(vlm).name]
    return [site.name for site in vlm.sites.resolve_all(options.sites)]


def made_maps(
    context: AnalysisContext, aims: Sequence[Aim], options: OcclusionOptions
) -> tuple[dict[str, Sequence[PatchMap]], dict[str, list[PatchMap]]]:
    """The maps by method, and those of rows by site.

    A method that the model does not offer is left out, with a warning.

    Raises:
        CompositionError: The options name such a method.
    """
    vlm = context.model()
    cells = _cells(aims, options.grid)
    found: dict[str, Sequence[PatchMap]] = {}
    layers: dict[str, list[PatchMap]] = {}
    for method in methods_of(options, vlm):
        try:
            if method == OCCLUSION:
                found[method] = occlusion_maps(
                    context, cells, window=options.window, fill=options.fill
                )
            elif method == ROWS:
                layers = {
                    site: row_maps(context, cells, site, window=options.window)
                    for site in sites_of(vlm, options)
                }
                found[method] = next(iter(layers.values()))
            else:
                found[method] = maps_by(context, method, aims)
        except (CompositionError, SiteError, SelectorError) as error:
            if options.methods is not None:
                raise
            context.warn(f"The maps of {method} are left out: {error.message}")
    return found, layers


def made_curves(
    context: AnalysisContext, aims: Sequence[Aim], maps: Maps, options: OcclusionOptions
) -> dict[str, list[Curves]]:
    """The curves of each method, and of the controls."""
    fills = CurveFills(options.fill, options.insertion, options.blur)
    asked = []
    for i, (aim, cells) in enumerate(_cells(aims, options.cells)):
        rng = generator(context.seed, "occlusion", aim.sample.id)
        orders = [cells.order(cells.values(own[i]), rng) for own in maps.values()]
        orders.append(cells.order(cells.centrality(), rng))
        orders += [rng.permutation(len(cells)) for _ in range(options.controls)]
        asked.append((aim, cells, orders))
    found = curves(context, asked, options.steps, fills)
    names = [*maps, CENTRE]
    told = {name: [own[k] for own in found] for k, name in enumerate(names)}
    told[RANDOM] = [Curves.mean(own[len(names) :]) for own in found]
    return told


def _cells(aims: Sequence[Aim], side: int) -> list[tuple[Aim, Cells]]:
    return [(aim, Cells(image_sizes(aim.sample), side)) for aim in aims]


def chosen(samples: Sequence[Sample], most: int) -> list[Sample]:
    """The first samples of each task that have an image."""
    taken: dict[str | None, int] = {}
    kept = []
    for sample in samples:
        if sample.images and taken.setdefault(sample.task, 0) < most:
            taken[sample.task] += 1
            kept.append(sample)
    return kept
