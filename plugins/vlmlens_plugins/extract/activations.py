"""The activations extractor: module outputs of one forward pass, selected and pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch

from vlmlens.abc import Batch, Extractor, Values
from vlmlens.abc.pending import Selected, columns_on_host
from vlmlens.errors import MissingAnnotation, SiteNotFound
from vlmlens.passes.activation import check_axis
from vlmlens.passes.selection import select_in_passes
from vlmlens.passes.skipping import needless
from vlmlens.passes.tracing import hooked
from vlmlens.rows.uploads import KeptRows
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Site
from vlmlens.tokens import AxisLayout, Column, Selector, TokenKind, select

DEFAULT_SITES = (
    "vision.block.*",
    "projector",
    "llm.encoder.block.*",
    "llm.block.*",
    "text.block.*",
)
_IMAGE_AXES = (Axis.VISION, Axis.PROJECTOR)
DEFAULT_SELECTORS = {
    Axis.VISION: "image.mean",
    Axis.PROJECTOR: "image.mean",
    Axis.LLM: "last",
    Axis.ENCODER: "last",
    Axis.SAMPLE: "last",
}


class ActivationExtractor(Extractor):
    """Columns of module outputs.

    A pattern without a selector takes the default of its side: `image.mean` before the language
    model, `last` inside it. Values keep the dtype in which the model computes.

    The first pass runs to its end, so that a module that runs more often than its site says is
    found out; later ones stop after the last wanted site, and leave out those blocks of
    `ModelAdapter.unread` that no wanted site needs.
    """

    _seen_whole = False

    takes_passes = True
    text_columns = "--sites 'llm.block.*/last'"

    def columns(self) -> list[str]:
        """See `Extractor.columns`."""
        return list(self._columns)

    def check(self, samples: Sequence[Sample]) -> None:
        """See `Extractor.check`: columns of the image's tokens need samples with images."""
        of_images = [name for name, read in self._columns.items() if self._of_image(*read)]
        without = [sample.id for sample in samples if not sample.images]
        if of_images and without:
            raise MissingAnnotation(
                f"The column {of_images[0]!r} needs images, and {len(without)} of {len(samples)} "
                f"samples have none, for example {without[0]!r}.",
                subject=of_images[0],
                hint=f"Leave them out, or choose language-side columns: {self.text_columns}.",
            )

    def _of_image(self, site: Site, column: Column) -> bool:
        return site.axis in _IMAGE_AXES or column.selector.kind == TokenKind.IMAGE

    def extract(self, batch: Batch) -> Mapping[str, Values]:
        """See `Extractor.extract`."""
        layouts: dict[Axis, AxisLayout] = {}  # asked for now: some take a pass of their own
        for site, _ in self._columns.values():
            check_axis(site, batch.layouts)
            layouts.setdefault(site.axis, batch.layouts[site.axis])
        if batch.passes:
            chosen = {name: (site, c.selector) for name, (site, c) in self._columns.items()}
            found = select_in_passes(
                self.vlm, batch, chosen, layouts, stop=self._stop, skip=self._skip
            )
        else:
            found = self._at_once(batch, layouts)
        self._seen_whole = True
        return columns_on_host({name: found[name] for name in self._columns})

    def _at_once(self, batch: Batch, layouts: Mapping[Axis, AxisLayout]) -> dict[str, Selected]:
        found: dict[str, Selected] = {}
        kept = KeptRows()

        def visit(site: Site, activation: torch.Tensor) -> None:
            layout = layouts[site.axis]
            for name in self._of_site[site.name]:
                selector = self._columns[name][1].selector
                found[name] = select(activation, selector, layout, site, kept)

        reads = hooked(self.vlm.module, self._sites, visit, stop=self._stop, skip=self._skip)
        with torch.inference_mode(), reads:
            self.vlm.forward(batch, logits="all" if self._wants_head else "none")
        return found

    @property
    def _stop(self) -> bool:
        return self._seen_whole and not self._wants_head

    @property
    def _skip(self) -> tuple[str, ...]:
        return self._needless if self._seen_whole else ()

    @cached_property
    def _needless(self) -> tuple[str, ...]:
        return needless(self.vlm, self._sites)

    @cached_property
    def _sites(self) -> list[Site]:
        return list({site.name: site for site, _ in self._columns.values()}.values())

    @cached_property
    def _of_site(self) -> Mapping[str, list[str]]:
        """The columns of each site."""
        columns: dict[str, list[str]] = {}
        for name, (site, _) in self._columns.items():
            columns.setdefault(site.name, []).append(name)
        return columns

    @cached_property
    def _columns(self) -> dict[str, tuple[Site, Column]]:
        columns: dict[str, tuple[Site, Column]] = {}
        for pattern in self.requested or self._default_patterns():
            for site, column in self._expanded(pattern):
                columns.setdefault(str(column), (site, column))
        return columns

    def _expanded(self, pattern: str) -> list[tuple[Site, Column]]:
        path, slash, selector = pattern.partition("/")
        sites = self.vlm.sites.resolve(path)
        return [
            (site, Column(site.name, Selector.parse(selector if slash else _default(site))))
            for site in sites
        ]

    def _default_patterns(self) -> Sequence[str]:
        canonical = self.vlm.sites.canonical
        patterns = [p for p in DEFAULT_SITES if any(n.startswith(p.rstrip("*")) for n in canonical)]
        if not patterns:
            raise SiteNotFound(
                "The model has none of the default sites.",
                subject=", ".join(DEFAULT_SITES),
                hint="Name sites with --sites; `vlmlens sites` lists them.",
            )
        return patterns

    @property
    def _wants_head(self) -> bool:
        return any(site.name.startswith("llm.head") for site, _ in self._columns.values())


def _default(site: Site) -> str:
    return DEFAULT_SELECTORS[site.axis]
