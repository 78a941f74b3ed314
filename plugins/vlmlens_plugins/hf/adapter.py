"""Any image-text-to-text checkpoint that transformers loads, without knowledge of its family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from vlmlens.abc.adapter import Answer
from vlmlens.errors import CheckpointError
from vlmlens.hf.layouts import PlacedImage
from vlmlens.passes.batch import Batch, ForwardOutput, Logits
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import AxisLayout, PatchGrid, TokenKind
from vlmlens_plugins.hf._found import FoundSites
from vlmlens_plugins.hf._rows import (
    Entry,
    LazyLayouts,
    entry_of,
    projector_layout,
    uncertain,
    vision_layout,
)
from vlmlens_plugins.hf._videos import PROCESSORS, video_patches

NOTE = (
    "generic adapter: sites were found by looking at the module tree; image tokens have no place "
    "in the image"
)


class GenericAdapter(FoundSites):
    """Idefics 2, Gemma 3, GLM-4V, ... : what `get_encoder` and `get_decoder` find.

    Image positions of the language model are those that hold the image token's id. Which rows of
    the vision tower and of the connector belong to which sample is found out by experiment when
    such a site is used; where it is not certain, using it is an error.
    """

    image_tokens_placed: ClassVar[bool] = False
    video_processors: ClassVar[Mapping[str, str]] = PROCESSORS

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Refuse models without images, and encoder-decoders: they have two sequences.

        Raises:
            CheckpointError: The checkpoint is one.
        """
        own = getattr(config, "auto_map", None) or {}
        text = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
        if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and cls.auto_class not in own:
            raise CheckpointError(
                f"transformers knows no model of type {config.model_type!r} that reads images and "
                "text, so the generic adapter cannot load it.",
                subject=config.model_type,
                hint="It reads text only: use --adapter lm."
                if text
                else "`vlmlens plugins list` shows the adapters of families.",
            )
        if config.is_encoder_decoder or config.get_text_config().is_encoder_decoder:
            raise CheckpointError(
                f"{type(config).__name__} is an encoder-decoder, which the generic adapter does "
                "not support.",
                subject=config.model_type,
                hint="Use the family's own adapter.",
            )

    def encode(
        self, samples: Sequence[Sample], *, answers: Sequence[Answer] | None = None
    ) -> Batch:
        """See `ModelAdapter.encode`; vision layouts are found out when they are asked for."""
        batch = super().encode(samples, answers=answers)
        makers = {
            Axis.VISION: partial(self._vision_layout, batch),
            Axis.PROJECTOR: partial(self._projector_layout, batch),
        }
        return replace(batch, layouts=LazyLayouts(batch.layouts, makers))

    @property
    def stacked_frames(self) -> tuple[str, int] | None:
        """See `SampleEncoding.stacked_frames`."""
        packed = hasattr(self.processor.video_processor, "merge_size")
        return None if packed else ("pixel_values_videos", 1)

    def patch_grid(self, image: PlacedImage) -> PatchGrid | None:
        """None: where image tokens lie in the image is not known; in frames of videos it is."""
        if not image.frames:
            return None
        return video_patches(image, self.config, self.processor.video_processor)

    def knows_places(self, grids: Sequence[PatchGrid | None]) -> bool:
        """See `SampleEncoding.knows_places`: those in videos."""
        return any(grid is not None for grid in grids)

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """None yet; see `encode`."""
        del images, grids
        return {}

    def forward(self, batch: Batch, *, logits: Logits = "none") -> ForwardOutput:
        """See `ModelAdapter.forward`."""
        if logits == "none" and not hasattr(self._module, "model"):
            super().forward(batch, logits="last")
            return ForwardOutput(None)
        return super().forward(batch, logits=logits)

    def describe(self) -> dict[str, Any]:
        """See `ModelAdapter.describe`."""
        return {**super().describe(), "note": NOTE}

    # ------------------------------------------------------------------ rows of the vision side

    def _vision_layout(self, batch: Batch) -> AxisLayout:
        self._demand_weights()
        batch = self.place(batch)

        def encode(sample: Sample) -> Mapping[str, Any]:
            return super(GenericAdapter, self).encode([sample]).inputs

        return vision_layout(batch.samples, batch.inputs, encode, self._enter)

    def _enter(self, inputs: Mapping[str, Any]) -> Entry:
        block = self.sites.canonical["vision.block.0"].path
        return entry_of(self.module, block, partial(self._run, inputs))

    def _projector_layout(self, batch: Batch) -> AxisLayout:
        self._demand_weights()
        batch = self.place(batch)
        decoder = next(n for n, m in self.module.named_modules() if m is self._module.get_decoder())
        samples = batch.layouts[Axis.LLM].samples
        found = projector_layout(
            self.module,
            self.sites.canonical["projector"],
            decoder,
            partial(self._run, batch.inputs),
            [len(layout.positions(TokenKind.IMAGE)) for layout in samples],
            self.image_positions(batch.inputs),
        )
        rows = zip(found.samples, samples, strict=True)
        return AxisLayout(found.total, [replace(one, patches=own.patches) for one, own in rows])

    def _run(self, inputs: Mapping[str, Any]) -> None:
        with torch.inference_mode():
            self._module(**inputs, use_cache=False)

    def _demand_weights(self) -> None:
        if self._module.device.type == "meta":
            raise uncertain("it needs the weights, and none are loaded.")
