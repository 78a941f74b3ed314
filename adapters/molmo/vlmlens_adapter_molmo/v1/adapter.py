"""Molmo: a small view and overlapping crops, pooled by attention, added to token embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from vlmlens.hf import (
    LLAVA_SITES,
    PlacedImage,
    TransformersAdapter,
    crop_patches,
    grid_patches,
    joined,
)
from vlmlens.hf.own_class import OwnClass
from vlmlens.hf.weights import StoredTensor, stored_weights
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Rename, SiteMap, SiteTemplate, read_anatomy
from vlmlens.tokens import AxisLayout, PatchGrid, TokenKind, TokenLayout
from vlmlens_adapter_molmo.generations import check_generation
from vlmlens_adapter_molmo.v1.chat import IMAGE, MolmoProcessor, load_processor, load_tokenizer
from vlmlens_adapter_molmo.v1.config import POOLED, molmo_config
from vlmlens_adapter_molmo.v1.keys import native_weights
from vlmlens_adapter_molmo.v1.model import MolmoForConditionalGeneration
from vlmlens_adapter_molmo.v1.paths import renames
from vlmlens_adapter_molmo.v1.sequence import raster_size


class MolmoAdapter(OwnClass, TransformersAdapter):
    """`MolmoForConditionalGeneration`, our own class over parts of transformers."""

    module_class: ClassVar[type[Any]] = MolmoForConditionalGeneration
    templates: ClassVar[Sequence[SiteTemplate]] = (
        SiteTemplate("vision.block.{i}", ("model.vision_tower.layers.{i}",), Axis.VISION),
        *LLAVA_SITES[1:],
    )
    renames: ClassVar[Sequence[Rename]] = renames(norm_after=False)
    images_between: ClassVar[bool] = False
    images_per_sample: ClassVar[int | None] = 1
    shares_prefix: ClassVar[bool] = True

    @property
    def tower_states(self) -> Sequence[int]:
        """See `TransformersAdapter.tower_states`; the config numbers blocks, not states."""
        numbers = self.config.vit_layers
        return [number + 1 if number >= 0 else number for number in numbers]

    @classmethod
    def native_config(
        cls, said: Mapping[str, Any], model: str, arguments: Mapping[str, Any]
    ) -> Any:
        """See `OwnClass.native_config`."""
        del arguments
        check_generation(said, "molmo", model)
        return molmo_config(said, model)

    @classmethod
    def native_weights(
        cls, model: str, config: Any, arguments: Mapping[str, Any]
    ) -> Mapping[str, StoredTensor]:
        """See `OwnClass.native_weights`."""
        dtype = arguments["dtype"]
        kept = dtype if isinstance(dtype, torch.dtype) else None
        return native_weights(stored_weights(model, arguments), config, kept)

    @classmethod
    def special_token_ids(
        cls, model: str, config: Any, arguments: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """See `OwnClass.special_token_ids`."""
        del config
        return {"eos_token_id": load_tokenizer(model, arguments).eos_token_id}

    @cached_property
    def sites(self) -> SiteMap:
        """See `ModelAdapter.sites`; upstream's names of a block's norms depend on the model."""
        paths = [name for name, _ in self.module.named_modules()]
        after = self.config.text_config.model_type == "olmo2"
        return SiteMap(self.templates, paths, renames(after), read_anatomy(self.module))

    def read_processor(self, model: str, arguments: Mapping[str, Any]) -> MolmoProcessor:
        """See `LoadedModel.read_processor`."""
        return load_processor(model, arguments)

    @property
    def image_token_id(self) -> int:
        """See `TransformersAdapter.image_token_id`."""
        return int(self.processor.image_tokens.patch)

    @property
    def image_mark(self) -> str:
        """See `TransformersAdapter.image_mark`; upstream's prompts do not name the image."""
        return IMAGE

    def prompt_text(self, sample: Sample) -> str:
        """See `TransformersAdapter.prompt_text`: the image stands before everything."""
        return IMAGE + super().prompt_text(sample)

    def patch_grid(self, image: PlacedImage) -> PatchGrid | None:
        """See `TransformersAdapter.patch_grid`: the small view, then all crops as one grid."""
        settings = self.processor.image_processor
        canvas = settings.canvas(image.height, image.width)
        return joined(
            [
                self._raster(image, (settings.cells, settings.cells), "global"),
                self._raster(image, raster_size(canvas), "crops"),
            ]
        )

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`.

        All samples have as many crops as the one with most; the others' last ones are blank and
        belong to none. The projector gives every cell of every crop: only those belong to a sample
        that the language model sees, in the order in which it sees them.
        """
        first = images[0][0].inputs
        return {
            Axis.VISION: self._tower_layout(images, first["images"].shape[1]),
            Axis.PROJECTOR: _cell_layout(first["image_input_idx"].cpu().numpy(), grids),
        }

    def _raster(self, image: PlacedImage, cells: tuple[int, int], view: str) -> PatchGrid:
        """A raster of cells over a canvas that holds the whole image."""
        settings = self.processor.image_processor
        size = POOLED * settings.patch_size
        canvas = (cells[0] * size, cells[1] * size)
        placed = settings.placed(image.height, image.width, canvas)
        return grid_patches(image.image, *cells, (size, size), placed, view)

    def _tower_layout(self, images: Sequence[Sequence[PlacedImage]], crops: int) -> AxisLayout:
        """A class token and the patches of each crop."""
        settings = self.processor.image_processor
        length = (settings.side // settings.patch_size) ** 2 + 1
        layouts = []
        for sample, (image,) in enumerate(images):
            patches = self._views(image)
            count = len(patches) // (length - 1)
            rows = np.arange(count * length, dtype=np.int64) + sample * crops * length
            kinds = np.full(length, TokenKind.IMAGE, np.uint8)
            kinds[0] = TokenKind.SPECIAL
            layouts.append(TokenLayout(rows, np.tile(kinds, count), patches=patches))
        return AxisLayout(len(images) * crops * length, layouts)

    def _views(self, image: PlacedImage) -> PatchGrid:
        """The patches of the vision tower: the small view's, then crop by crop."""
        settings = self.processor.image_processor
        canvas = settings.canvas(image.height, image.width)
        size, step = settings.patch_size, canvas.step * settings.patch_size
        small = settings.placed(image.height, image.width, (settings.side, settings.side))
        large = (canvas.height * size, canvas.width * size)
        placed = settings.placed(image.height, image.width, large)
        side = canvas.side
        whole = grid_patches(image.image, side, side, (size, size), small, "global")
        crops = crop_patches(
            image.image, (side, side), placed, (canvas.rows, canvas.cols), name="crop {}",
            step=step, patch=size,
        )  # fmt: skip
        return joined([whole, *crops]) or whole


def _cell_layout(
    index: np.ndarray[Any, np.dtype[np.int64]], grids: Sequence[PatchGrid | None]
) -> AxisLayout:
    """The layout of the projector's cells.

    Args:
        index: int64 `[samples, crops, cells]`, `image_input_idx`.
        grids: The patch grid of each sample, in the order of the sequence.
    """
    layouts = []
    flat = index.reshape(len(index), -1)
    for sample, (places, grid) in enumerate(zip(flat, grids, strict=True)):
        kept = np.flatnonzero(places >= 0)
        rows = kept[np.argsort(places[kept], kind="stable")] + sample * flat.shape[1]
        kinds = np.full(len(rows), TokenKind.IMAGE, np.uint8)
        layouts.append(TokenLayout(rows, kinds, patches=grid))
    return AxisLayout(index.size, layouts)
