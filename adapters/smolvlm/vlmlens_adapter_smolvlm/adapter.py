"""SmolVLM, SmolVLM2 and Idefics3: a SigLIP tower over tiles, a pixel shuffle, a Llama decoder.

An image becomes square tiles, row by row, and then the whole image as one more tile. The connector
puts `scale_factor` x `scale_factor` neighbouring patches into one token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field

from vlmlens.abc.options import Options
from vlmlens.errors import CheckpointError
from vlmlens.hf import PlacedImage, TransformersAdapter, frame_patches, joined, tower_layout
from vlmlens.hf.chat_template import render
from vlmlens.hf.frames import Frames, parts
from vlmlens.hf.token_ids import one_batch
from vlmlens.sites import Axis, Rename, SiteTemplate
from vlmlens.tokens import AxisLayout, PatchGrid
from vlmlens.videos import FrameRule
from vlmlens_adapter_smolvlm.manifest import MANIFEST
from vlmlens_adapter_smolvlm.marks import without_marks
from vlmlens_adapter_smolvlm.number_words import number_words_lent
from vlmlens_adapter_smolvlm.tiles import canvas, patches, tile_side
from vlmlens_adapter_smolvlm.videos import SmolVLMFrames, video_template

_SETTINGS = ("num_frames", "fps")
"""What SmolVLM's processor reads of its video processor, with images too."""


class SmolVLMOptions(Options):
    """Into how many tiles images are cut: the model's time and memory grow with them."""

    tiles: bool | None = Field(
        default=None,
        description="Whether images are cut into tiles; false: the model sees the whole image, "
        "scaled to one tile. Else as checkpoint.",
    )
    longest_edge: int | None = Field(
        default=None,
        ge=1,
        description="Pixels of the longer side before tiles are cut: of a tile's 512 pixels, 1024 "
        "makes at most 2 x 2 tiles. Else as checkpoint.",
    )


class SmolVLMAdapter(TransformersAdapter):
    """`Idefics3ForConditionalGeneration` and `SmolVLMForConditionalGeneration`."""

    Options: ClassVar[type[Options]] = SmolVLMOptions
    image_placeholders: ClassVar[Sequence[str]] = MANIFEST.placeholders
    video_processors: ClassVar[Mapping[str, str]] = {"smolvlm": "SmolVLMVideoProcessor"}
    shares_prefix: ClassVar[bool] = True
    templates: ClassVar[Sequence[SiteTemplate]] = (
        SiteTemplate("vision.block.{i}", ("model.vision_model.encoder.layers.{i}",), Axis.VISION),
        SiteTemplate("vision.norm", ("model.vision_model.post_layernorm",), Axis.VISION),
        SiteTemplate("projector", ("model.connector",), Axis.PROJECTOR),
        SiteTemplate("llm.embed", ("model.text_model.embed_tokens",), Axis.LLM),
        SiteTemplate("llm.block.{i}", ("model.text_model.layers.{i}",), Axis.LLM),
        SiteTemplate("llm.norm", ("model.text_model.norm",), Axis.LLM),
        SiteTemplate("llm.head", ("lm_head",), Axis.LLM),
    )
    renames: ClassVar[Sequence[Rename]] = (
        Rename(r"^(vision_model|connector|text_model)(?=\.|$)", r"model.\1"),
    )

    def read_processor(self, model: str, arguments: Mapping[str, Any]) -> Any:
        """See `LoadedModel.read_processor`; with the tiles that the options ask for.

        Raises:
            CheckpointError: It writes another number of image tokens than the model makes.
        """
        with number_words_lent():
            processor = super().read_processor(model, arguments)
        videos = getattr(processor, "video_processor", None)
        for name in _SETTINGS:
            if videos is not None and not hasattr(videos, name):
                setattr(videos, name, None)
        self._choose_tiles(processor.image_processor)
        self._check_tokens(processor, processor.image_processor, "tile")
        return processor

    def _choose_tiles(self, image_processor: Any) -> None:
        chosen = self.request.options
        if not isinstance(chosen, SmolVLMOptions):
            return
        if chosen.tiles is not None:
            image_processor.do_image_splitting = chosen.tiles
        if chosen.longest_edge is not None:
            size = type(image_processor.size)(longest_edge=chosen.longest_edge)
            image_processor.size = size

    def _check_tokens(self, processor: Any, part: Any, what: str) -> None:
        written, pixels = processor.image_seq_len, tile_side(part)
        made = (pixels // self.patch // self.merged) ** 2
        if made != written:
            raise CheckpointError(
                f"The processor of {self.model_name(self.request)!r} writes {written} image tokens "
                f"for a {what}; the model makes {made} of {pixels} pixels.",
                subject="image_seq_len",
                hint="image_seq_len must fit max_image_size, patch_size and scale_factor.",
            )

    @property
    def frame_rule(self) -> FrameRule:
        """See `ModelAdapter.frame_rule`: that of transformers' video processor."""
        if not self.takes_video:
            return super().frame_rule
        return SmolVLMFrames.of(self.processor.video_processor)

    def templated(self, prompt: str, images: Sequence[Any]) -> str:
        """See `PromptWriting.templated`; transformers has a template of its own for videos."""
        if not isinstance(images, Frames):
            return super().templated(prompt, images)
        shown = [] if self.video_mark in prompt else parts(images)
        content = [*shown, {"type": "text", "text": prompt}]
        return render(video_template(), content, self.tokenizer, self.model_name(self.request))

    def process(self, prompts: Sequence[str], images: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """See `SampleEncoding.process`; videos of several lengths are padded by empty frames.

        transformers would announce the longest video's number of frames to all of them.

        Raises:
            CheckpointError: The processor writes another number of tokens for a frame than the
                model makes.
        """
        lengths = {len(group) for group in images if isinstance(group, Frames)}
        if lengths:
            self._check_tokens(self.processor, self.processor.video_processor, "frame")
        if len(lengths) < 2:
            return self.processed(prompts, images)
        each = [self.processed([p], [g]) for p, g in zip(prompts, images, strict=True)]
        return one_batch(each, "", 0, self.pad_token_id, side=self.padding_side)

    def processed(self, prompts: Sequence[str], images: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """See `SampleEncoding.processed`."""
        with number_words_lent():
            return super().processed(prompts, images)

    @property
    def patch(self) -> int:
        """Side of a patch in the vision tower, in pixels of a tile."""
        return int(self.config.vision_config.patch_size)

    @property
    def merged(self) -> int:
        """How many patches along a side the connector puts into one token."""
        return int(self.config.scale_factor)

    @cached_property
    def opening_id(self) -> int:
        """Id of the token that stands before each mark of a tile, and after the last tile."""
        return int(self.tokenizer.convert_tokens_to_ids(self.processor.fake_image_token))

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        """See `TransformersAdapter.patch_grid`."""
        return self._patches(image, self.merged)

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`: a sample's tiles follow each other."""
        fine = (tile_side(self.processor.image_processor) // self.patch) ** 2
        coarse = fine // self.merged**2
        tiles = [len(grid) // coarse if grid else 0 for grid in grids]
        seen = [joined([self._patches(image, 1) for image in group]) for group in images]
        return {
            Axis.VISION: tower_layout(tiles, fine, seen),
            Axis.PROJECTOR: tower_layout(tiles, coarse, grids),
        }

    def sequence_layouts(
        self,
        inputs: Mapping[str, Any],
        grids: Sequence[PatchGrid | None],
        answer_lengths: Sequence[int],
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.sequence_layouts`: marks of tiles are no text."""
        layouts = super().sequence_layouts(inputs, grids, answer_lengths)
        return {
            axis: without_marks(layout, grids, self.opening_id) for axis, layout in layouts.items()
        }

    def _patches(self, image: PlacedImage, merged: int) -> PatchGrid:
        images = self.processor.image_processor
        tile = tile_side(images)
        if image.frames:
            frame = patches(0, (1, 1), tile, self.patch, merged=merged)
            return frame_patches(frame, image.frames, image.frames)
        size = canvas(images, image.height, image.width)
        return patches(image.image, size, tile, self.patch, merged=merged)
