"""GLaMM: a CLIP tower, a projector, a Llama; SAM for masks, a region encoder for boxes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from pydantic import Field

from vlmlens.abc.adapter import Answer, Generation, LoadRequest
from vlmlens.abc.editable import Edits
from vlmlens.abc.options import Options
from vlmlens.errors import DataError
from vlmlens.hf import (
    CropGeometry,
    PlacedImage,
    RasterAdapter,
    grid_patches,
    joined,
    tower_layout,
)
from vlmlens.hf.checkpoints import checkpoint_identity, explained
from vlmlens.hf.own_class import OwnClass
from vlmlens.hf.weights import StoredTensor, stored_weights
from vlmlens.passes.batch import Batch
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Rename, Site, SiteMap, SiteTemplate, read_anatomy
from vlmlens.tokens import AxisLayout, PatchGrid, TokenKind, TokenLayout
from vlmlens_adapter_glamm.boxes import check_count, fractions
from vlmlens_adapter_glamm.config import check_kind, glamm_config
from vlmlens_adapter_glamm.keys import glamm_weights, tower_weights
from vlmlens_adapter_glamm.manifest import MANIFEST
from vlmlens_adapter_glamm.model import GlammForConditionalGeneration
from vlmlens_adapter_glamm.paths import (
    GROUNDING_BLOCK,
    GROUNDING_PROJECTOR,
    HIDDEN,
    RENAMES,
    TEMPLATES,
    WITHOUT_AXIS,
)
from vlmlens_adapter_glamm.prompts import GlammProcessor, Template
from vlmlens_adapter_glamm.tokenizer import BBOX, SEG, load_tokenizer
from vlmlens_adapter_glamm.tower import stored_tower, tower_config, tower_of

_GROUNDING = ("grounding_pixel_values", "original_sizes", "resized_sizes")


class GlammOptions(Options):
    """How prompts are made, and where the vision tower lies."""

    template: Template = Field(
        default="llava_v1",
        description="llava_v1: the conversation of upstream's app, for which the model was "
        "trained; plain: the question after its sentence about the image, as VLM-Lens asked it.",
    )
    vision_tower: str | None = Field(
        default=None,
        description="Hub id or folder of the CLIP tower; else what the checkpoint's config names.",
    )


class GlammAdapter(OwnClass, RasterAdapter):
    """`GLaMMForCausalLM`, without its code."""

    Options: ClassVar[type[Options]] = GlammOptions
    module_class: ClassVar[type[Any]] = GlammForConditionalGeneration
    image_placeholders: ClassVar[Sequence[str]] = MANIFEST.placeholders
    images_between: ClassVar[bool] = False
    images_per_sample: ClassVar[int | None] = 1
    images_optional: ClassVar[bool] = True
    reads_feature_layer: ClassVar[bool] = True
    templates: ClassVar[Sequence[SiteTemplate]] = TEMPLATES
    renames: ClassVar[Sequence[Rename]] = RENAMES

    # ------------------------------------------------------------------ load

    @classmethod
    def arguments(cls, request: LoadRequest) -> dict[str, Any]:
        """See `LoadedModel.arguments`: the vision tower may be named by an option."""
        return {**super().arguments(request), "vision_tower": _options(request).vision_tower}

    @classmethod
    def native_config(
        cls, said: Mapping[str, Any], model: str, arguments: Mapping[str, Any]
    ) -> Any:
        """See `OwnClass.native_config`."""
        check_kind(said, model)
        tower = tower_of(said, model, arguments.get("vision_tower"))
        return glamm_config(said, tower, tower_config(tower, model), model)

    @classmethod
    def read_module(cls, model: str, config: Any, arguments: Mapping[str, Any]) -> Any:
        """See `LoadedModel.read_module`."""
        tokenizer = cls._tokenizer(model, config, arguments)
        config.seg_token_id = tokenizer.convert_tokens_to_ids(SEG)
        config.bbox_token_id = tokenizer.convert_tokens_to_ids(BBOX)
        settings = {name: value for name, value in arguments.items() if name != "vision_tower"}
        return super().read_module(model, config, settings)

    @classmethod
    def native_weights(
        cls, model: str, config: Any, arguments: Mapping[str, Any]
    ) -> Mapping[str, StoredTensor]:
        """See `OwnClass.native_weights`."""
        depth = config.grounding_config.mask_decoder_config.iou_head_depth
        weights = glamm_weights(stored_weights(model, arguments), depth)
        return weights | tower_weights(stored_tower(config.vision_tower, model))

    @classmethod
    def special_token_ids(
        cls, model: str, config: Any, arguments: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """See `OwnClass.special_token_ids`."""
        text, tokenizer = config.text_config, cls._tokenizer(model, config, arguments)
        return {
            "bos_token_id": text.bos_token_id,
            "eos_token_id": text.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }

    @classmethod
    def _tokenizer(cls, model: str, config: Any, arguments: Mapping[str, Any]) -> Any:
        return load_tokenizer(model, arguments, config.text_config.vocab_size)

    def read_processor(self, model: str, arguments: Mapping[str, Any]) -> Any:
        """See `LoadedModel.read_processor`; images are processed as the tower's files say."""
        tower = self.config.vision_tower
        tokenizer = self._tokenizer(model, self.config, arguments)
        with explained(tower):
            images = transformers.CLIPImageProcessorPil.from_pretrained(tower)
        return GlammProcessor(tokenizer, images, self.config, _options(self.request).template)

    def describe(self) -> dict[str, Any]:
        """See `ModelAdapter.describe`; the vision tower has an identity of its own."""
        tower = checkpoint_identity(self.config.vision_tower, self.config.vision_config)
        template = _options(self.request).template
        return {**super().describe(), "vision_tower": tower, "template": template}

    # ------------------------------------------------------------------ sites

    @cached_property
    def sites(self) -> SiteMap:
        """See `ModelAdapter.sites`."""
        hidden = re.compile(HIDDEN)
        paths = [name for name, _ in self.module.named_modules() if not hidden.search(name)]
        return _Sites(self.templates, paths, self.renames, read_anatomy(self.module))

    def block_widths(self) -> Mapping[str, int]:
        """See `LoadedModel.block_widths`; SAM has a width of its own, and so has its prompt."""
        image = int(self.config.grounding_config.vision_config.hidden_size)
        widths = dict(super().block_widths())
        for site in self.sites.canonical.values():
            if site.name.startswith(GROUNDING_BLOCK):
                widths[site.path] = image
            elif site.name == GROUNDING_PROJECTOR:
                widths[site.path] = int(self.config.out_dim)
        return widths

    # ------------------------------------------------------------------ encode

    def encode(
        self, samples: Sequence[Sample], *, answers: Sequence[Answer] | None = None
    ) -> Batch:
        """See `ModelAdapter.encode`.

        A sample's regions are its attribute `boxes`; each stands at a `<bbox>` of its prompt.

        Raises:
            DataError: A sample has two images, or boxes that do not fit its image or its prompt.
        """
        batch = super().encode(samples, answers=answers)
        sizes = iter(batch.inputs.get("original_sizes", torch.zeros(0, 2)).tolist())
        boxes = [fractions(sample, next(sizes) if sample.images else None) for sample in samples]
        token = self.tokenizer.convert_tokens_to_ids(BBOX)
        for i, sample in enumerate(samples):
            layout = batch.layout(i)
            asked = (layout.token_ids == token) & (layout.kinds != TokenKind.ANSWER)
            check_count(sample, len(boxes[i]), int(asked.sum()))
        counts = torch.tensor([len(one) for one in boxes])
        if not counts.any():
            return batch
        self._check_regions(samples)
        regions = {"boxes": torch.cat(boxes), "box_counts": counts}
        return replace(batch, inputs={**batch.inputs, **self.placed(regions)})

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`; SAM's grid is a second vision layout."""
        layouts = super().image_layouts(images, grids)
        tower = layouts[Axis.VISION]
        fine = AxisLayout(tower.total, tower.samples, others=(self._grounding_layout(images),))
        return {**layouts, Axis.VISION: fine}

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `ModelAdapter.decode`; image positions hold no token of the vocabulary."""
        return super().decode([number for number in token_ids if number != self.image_token_id])

    def _grounding_layout(self, images: Sequence[Sequence[PlacedImage]]) -> AxisLayout:
        """SAM's patches `[images, rows, columns, width]`; those of the padding are special."""
        vision = self.config.grounding_config.vision_config
        patch, side = int(vision.patch_size), int(vision.image_size) // int(vision.patch_size)
        grids = [[self._grounding_grid(image, side, patch) for image in group] for group in images]
        plain = tower_layout([len(group) for group in images], side**2, [None] * len(images))
        samples = []
        for layout, group in zip(plain.samples, grids, strict=True):
            whole = joined(group)
            if whole is None:
                samples.append(layout)
                continue
            inside = (whole.box[:, :2] < 1).all(1)
            kinds = np.where(inside, TokenKind.IMAGE, TokenKind.SPECIAL).astype(np.uint8)
            patches = whole.take(np.flatnonzero(inside))
            samples.append(TokenLayout(layout.rows, kinds, patches=patches))
        return AxisLayout(plain.total, samples)

    def _grounding_grid(self, image: PlacedImage, side: int, patch: int) -> PatchGrid:
        height, width = image.inputs["resized_sizes"][image.index].tolist()
        geometry = CropGeometry(width, height)
        return grid_patches(image.image, side, side, (patch, patch), geometry, "grounding")

    def _check_regions(self, samples: Sequence[Sample]) -> None:
        if not self.config.with_region:
            raise DataError(
                f"The samples have boxes; {self.model_name(self.request)!r} has no region encoder.",
                subject=samples[0].id,
                hint="Leave the attribute out, or choose another checkpoint.",
            )

    # ------------------------------------------------------------------ masks

    def generate(self, batch: Batch, *, max_new_tokens: int, edits: Edits = ()) -> list[Generation]:
        """See `ModelAdapter.generate`: with a mask for every `[SEG]` of prompt and answer."""
        inputs = {name: value for name, value in batch.inputs.items() if name not in _GROUNDING}
        ids = self.generated_ids(inputs, max_new_tokens)
        prompt = inputs["input_ids"].shape[1]
        written = self.written(ids[:, prompt:])
        mask = torch.zeros_like(ids)
        mask[:, :prompt] = inputs["attention_mask"]
        for i, one in enumerate(written):
            mask[i, prompt : prompt + len(one.token_ids)] = 1
        whole = replace(batch, inputs={**batch.inputs, "input_ids": ids, "attention_mask": mask})
        return [
            replace(one, masks=None if logits is None else (logits > 0).cpu().numpy())
            for one, logits in zip(written, self.mask_logits(whole), strict=True)
        ]

    def mask_logits(self, batch: Batch) -> list[torch.Tensor | None]:
        """A mask for every `[SEG]` in a batch's own tokens, of prompts and of appended answers.

        Args:
            batch: From `encode`.

        Returns:
            Per sample, float32 `[objects, height, width]` in pixels of its image and in the order
            of the tokens, above 0 where the object is; None where the sample has no image.
        """
        reads = bool((batch.inputs["input_ids"] == self.config.seg_token_id).any())
        with torch.inference_mode(), self.edits_applied(batch) if reads else nullcontext():
            logits: list[torch.Tensor | None] = self._module.mask_logits(**batch.inputs)
        return logits


class _Sites(SiteMap):
    """GLaMM's sites. Modules with one row per object or box are on no axis of a batch."""

    def matching(self, pattern: str) -> list[Site]:
        """See `SiteMap.matching`."""
        return [
            replace(site, axis=Axis.SAMPLE) if _inside(site.path, WITHOUT_AXIS) else site
            for site in super().matching(pattern)
        ]


def _inside(path: str, heads: Iterable[str]) -> bool:
    return any(path == head or path.startswith(f"{head}.") for head in heads)


def _options(request: LoadRequest) -> GlammOptions:
    return request.options if isinstance(request.options, GlammOptions) else GlammOptions()
