"""The attention extractor: how much query positions attend to image and text, per head."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator

from vlmlens.abc import Batch, Options, Values
from vlmlens.abc.pending import Selected, columns_on_host
from vlmlens.errors import (
    CompositionError,
    SiteNotFound,
    SiteShapeError,
    SiteSilent,
)
from vlmlens.images import UNREADABLE, open_image
from vlmlens.passes.activation import check_axis
from vlmlens.passes.tracing import hooked
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Site
from vlmlens.tokens import AxisLayout, Column, TokenKind
from vlmlens_plugins.extract._weights import Reading, check_heads, weights_of
from vlmlens_plugins.extract.activations import ActivationExtractor

DEFAULT_SITES = ("llm.encoder.block.*.attn", "llm.block.*.attn", "text.block.*.attn")
_PATCHES = "patches"
_TENSOR_ALONE = (torch.Tensor, "torch.Tensor", "Tensor")
_IMAGE_AXES = (Axis.VISION, Axis.PROJECTOR)
_ORIENTATION = 0x0112

Region = Literal["image", "text", "special", "answer", "virtual", "patches"]


class AttentionOptions(Options):
    """Which heads, and how their weights become features."""

    heads: tuple[int, ...] | None = Field(
        None,
        description="Head numbers, in the order of the features. Default: all.",
    )
    regions: tuple[Region, ...] = Field(
        ("image", "text", "special"),
        description="Kinds of tokens whose weights are summed, in the order of the features; or "
        "'patches' alone: the weight of every image token, a row each.",
    )

    @field_validator("regions", mode="before", json_schema_input_type=Region | tuple[Region, ...])
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("heads", "regions")
    @classmethod
    def _each_once(cls, value: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if value is not None and (not value or len(set(value)) < len(value)):
            raise ValueError("name at least one, and each once")
        return value

    @field_validator("heads")
    @classmethod
    def _from_zero(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and min(value) < 0:
            raise ValueError("heads are numbered from 0")
        return value

    @field_validator("regions")
    @classmethod
    def _patches_alone(cls, value: tuple[Region, ...]) -> tuple[Region, ...]:
        if _PATCHES in value and len(value) > 1:
            raise ValueError("patches cannot be mixed with sums over regions")
        return value

    @property
    def per_patch(self) -> bool:
        """Whether each image token is a feature of its own."""
        return _PATCHES in self.regions

    @property
    def reading(self) -> Reading:
        """A new reader of one batch's weights."""
        if self.per_patch:
            return Reading(self.heads, None)
        return Reading(self.heads, tuple(TokenKind[name.upper()] for name in self.regions))


class AttentionExtractor(ActivationExtractor):
    """Columns of attention weights: a row per query position that the selector keeps.

    A row holds `heads x regions` features, all regions of the first head first: the sum of what
    the query pays to the tokens of each region of its own sample. Over all kinds of tokens that
    sums to 1.

    With `patches` a column has a row per image token, in reading order, with the weights that all
    heads pay to it; images may differ in size. A selector that keeps several queries gives a row
    per query instead, with `heads x image tokens` features, for which images must be of one size.

    The weights are those that the model computes with eager attention; masks, windows and grouped
    keys are in them already.
    """

    Options: ClassVar[type[Options]] = AttentionOptions
    takes_passes: ClassVar[bool] = False
    text_columns = "--sites 'llm.block.*.attn/last', with regions"
    options: AttentionOptions

    def check(self, samples: Sequence[Sample]) -> None:
        """See `Extractor.check`.

        Raises:
            CompositionError: The model does not run with eager attention.
            SiteSilent: A site's module never gives weights.
            SpecError: A site has no such head.
            MissingAnnotation: Columns of image tokens, and samples without images.
            SiteShapeError: Patches of several queries are wanted, and samples differ in their
                number.
        """
        for site in self._sites:
            _check_module(self.vlm.module.get_submodule(site.path), site, self.options)
        super().check(samples)
        several = [
            site
            for site, column in self._columns.values()
            if self.options.per_patch and column.selector.ragged
        ]
        if several:
            self._check_patches(samples, {site.axis: site for site in several})

    def extract(self, batch: Batch) -> Mapping[str, Values]:
        """See `Extractor.extract`.

        Raises:
            SiteSilent: A module gave no weights.
            SiteShapeError: Weights are no self-attention over the site's axis, or no
                probabilities over the query's own sample.
        """
        layouts: dict[Axis, AxisLayout] = {}  # asked for now: some take a pass of their own
        for site in self._sites:
            check_axis(site, batch.layouts)
            layouts.setdefault(site.axis, batch.layouts[site.axis])
        found: dict[str, Selected] = {}
        reading = self._reading()

        def visit(site: Site, weights: torch.Tensor) -> None:
            for name in self._of_site[site.name]:
                selector = self._columns[name][1].selector
                found[name] = reading(weights, selector, layouts[site.axis], site)

        reads = hooked(
            self.vlm.module,
            self._sites,
            visit,
            stop=self._seen_whole,
            part=weights_of,
            skip=self._skip,
        )
        with torch.inference_mode(), reads:
            self.vlm.forward(batch)
        self._seen_whole = True
        in_order = {name: found[name] for name in self._columns}
        return columns_on_host(in_order, reading.facts(), reading.check)

    def _reading(self) -> Reading:
        return self.options.reading

    def _default_patterns(self) -> Sequence[str]:
        canonical = self.vlm.sites.canonical
        found = [p for p in DEFAULT_SITES if any(n.startswith(p.split("*")[0]) for n in canonical)]
        if not found:
            raise SiteNotFound(
                "The model has none of the default sites of the attention extractor.",
                subject=", ".join(DEFAULT_SITES),
                hint="Name attention modules with --sites; `vlmlens sites --all` lists modules.",
            )
        return found

    def _of_image(self, site: Site, column: Column) -> bool:
        return self.options.per_patch or super()._of_image(site, column)

    def _check_patches(self, samples: Sequence[Sample], sites: Mapping[Axis, Site]) -> None:
        """Every sample must have as many image tokens: they depend on the sizes of its images."""
        first: dict[Axis, tuple[str, int]] = {}
        for sample in _one_per_shape(samples):
            for axis, count in self._image_tokens(sample, sites):
                name, expected = first.setdefault(axis, (sample.id, count))
                if count != expected:
                    raise SiteShapeError(
                        f"The attention extractor cannot keep patches: sample {name!r} has "
                        f"{expected} image tokens at {sites[axis].name!r}, {sample.id!r} {count}.",
                        subject=sites[axis].name,
                        hint="Keep one query (last, text.mean), use regions "
                        "(--set options.extractor.regions=[image,text,special]), or images of one "
                        "size.",
                    )

    def _image_tokens(self, sample: Sample, axes: Iterable[Axis]) -> Iterator[tuple[Axis, int]]:
        """Image tokens of a sample on each wanted axis; none where it takes weights to tell."""
        layouts = self.vlm.encode([sample]).layouts
        for axis in axes:
            try:
                layout = layouts[axis].samples[0]
            except SiteShapeError:
                continue
            yield axis, len(layout.positions(TokenKind.IMAGE))


def _check_module(module: torch.nn.Module, site: Site, options: AttentionOptions) -> None:
    """Raise where a module can be told to give no weights, or to lack a head."""
    alone = inspect.signature(type(module).forward).return_annotation in _TENSOR_ALONE
    if alone:
        raise SiteSilent(
            f"The attention extractor cannot read {site.name!r}: its module "
            f"({type(module).__name__}) gives one tensor and no attention weights.",
            subject=site.name,
            hint="Name attention modules, as llm.block.*.attn, or one inside it; towers that pack "
            "images into one sequence often give no weights.",
        )
    config = getattr(module, "config", None)
    used = getattr(config, "_attn_implementation", None)
    if used not in (None, "eager"):
        raise CompositionError(
            f"The attention extractor needs attention weights, and the model runs with {used!r} "
            f"attention, which does not give any ({site.name}).",
            subject=site.name,
            hint="Use --attention eager (attention: eager in a run file).",
        )
    count = getattr(module, "num_heads", None)
    if count is None and site.axis not in _IMAGE_AXES:  # a tower may carry the model's config
        count = getattr(config, "num_attention_heads", None)
    if isinstance(count, int) and options.heads is not None:
        check_heads(options.heads, count, site)


def _one_per_shape(samples: Sequence[Sample]) -> list[Sample]:
    """The first sample of each combination of image sizes."""
    found: dict[Any, Sample] = {}
    for sample in samples:
        found.setdefault(tuple(_shape(image) for image in sample.images), sample)
    return list(found.values())


def _shape(image: Any) -> Any:
    """(width, height, orientation); of a file that cannot be read, its path: encoding tells."""
    return _file_shape(image) if isinstance(image, str) else _oriented(image)


@lru_cache(maxsize=100_000)
def _file_shape(path: str) -> Any:
    from PIL import Image

    try:
        with open_image(path) as opened:
            return _oriented(opened)
    except (*UNREADABLE, Image.DecompressionBombError):
        return path


def _oriented(image: Any) -> tuple[Any, ...]:
    return (*image.size, image.getexif().get(_ORIENTATION))
