"""Vision backbones by themselves: any plain vision transformer of transformers' `AutoModel`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, NoReturn

import numpy as np
import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

from vlmlens.abc.adapter import Answer, Generation, PromptReading, Readout, Sharing
from vlmlens.abc.editable import Edits
from vlmlens.errors import CheckpointError, CompositionError, DataError
from vlmlens.hf.checkpoints import check_complete
from vlmlens.hf.layouts import (
    CropGeometry,
    PlacedImage,
    grid_patches,
    joined,
    placed_images,
    tower_layout,
)
from vlmlens.hf.question_rows import with_names
from vlmlens.hf.shared_prefix import owned
from vlmlens.passes.batch import Batch, ForwardOutput, Logits, Pass
from vlmlens.passes.modes import inference
from vlmlens.samples import Sample, check_encodable
from vlmlens.sites import Axis, SiteTemplate
from vlmlens.tokens import AxisLayout, PatchGrid, TokenKind, TokenLayout
from vlmlens_plugins.hf._found import FoundSites
from vlmlens_plugins.hf._pixels import ImagesAlone, patches_of, pixels, read_image_processor
from vlmlens_plugins.hf._towers import find_tower_templates, special_tokens
from vlmlens_plugins.hf.manifests import VIT

_SEEN = frozenset({Axis.VISION, Axis.SAMPLE})
_SHAPES = "spatial_shapes"
"""The processor's output that gives (rows, columns) of images of any shape (SigLIP 2 NaFlex)."""
_REPORTING = ("modeling_utils", "distributed.tensor_parallel")
_UNUSED = "mask_token"
"""The weight that stands for a masked patch; no patch is masked here."""


class VisionAdapter(FoundSites):
    """DINOv2, DINOv3, ViT, MAE, BEiT, DeiT, the towers of CLIP and SigLIP: sites of a VLM's tower.

    The vision axis holds the class token, registers and patches of each image; pooled outputs have
    one row per image. No text is read, and nothing is answered.
    """

    auto_class: ClassVar[str] = "AutoModel"

    # ------------------------------------------------------------------ loading

    @classmethod
    def read_config(cls, model: str, arguments: Mapping[str, Any]) -> Any:
        """See `LoadedModel.read_config`: of a whole CLIP or SigLIP, the vision tower's."""
        config = super().read_config(model, arguments)
        if config.model_type in VIT.also_reads:
            commit, config = getattr(config, "_commit_hash", None), config.vision_config
            config._commit_hash = commit
        if hasattr(config, "mask_ratio"):
            config.mask_ratio = 0.0  # MAE leaves out three of four patches, at random, to train
        return config

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Refuse models that read text.

        Raises:
            CheckpointError: The checkpoint is one.
        """
        kind = config.model_type
        known = _class_of(config) is not None
        own = getattr(config, "auto_map", None) or {}
        if config.get_text_config() is not config or hasattr(config, "vision_config"):
            why = "reads images and text"
            hint = "Leave --adapter out: vision.* are sites of such a model, too."
        elif hasattr(config, "patch_size") and (known or cls.auto_class in own):
            return
        elif type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
            why, hint = "reads text", "Use --adapter lm."
        elif hasattr(config, "depths"):
            why, hint = "has its blocks in stages (ConvNeXt, Swin)", "Take a vision transformer."
        else:
            why = "is no vision transformer that transformers knows"
            hint = "`vlmlens plugins list` shows the other adapters."
        raise CheckpointError(
            f"A model of type {kind!r} {why}; the adapter 'vit' is for vision backbones alone "
            f"({', '.join(VIT.model_types[:4])}, ...).",
            subject=kind,
            hint=hint,
        )

    @classmethod
    def read_module(cls, model: str, config: Any, arguments: Mapping[str, Any]) -> Any:
        """See `LoadedModel.read_module`: the tower, without what stands on it (heads, decoders)."""
        own = _class_of(config)
        with _without_report():
            if own is None:
                return super().read_module(model, config, arguments)
            settings = {k: v for k, v in arguments.items() if k != "trust_remote_code"}
            module, info = own.from_pretrained(
                model, config=config, output_loading_info=True, **settings, **_unpooled(own)
            )
        check_complete(model, [n for n in info["missing_keys"] if not n.endswith(_UNUSED)])
        return module

    @classmethod
    def empty_module(cls, config: Any, request: Any) -> Any:
        """See `LoadedModel.empty_module`."""
        own = _class_of(config)
        if own is None:
            return super().empty_module(config, request)
        return own._from_config(config, **_unpooled(own))

    def read_processor(self, model: str, arguments: Mapping[str, Any]) -> ImagesAlone:
        """See `LoadedModel.read_processor`: the image processor alone."""
        return read_image_processor(model, arguments)

    def found(self) -> Sequence[SiteTemplate]:
        """The canonical sites.

        Raises:
            CheckpointError: There is no single stack of blocks.
        """
        return find_tower_templates(self.module)

    def block_widths(self) -> Mapping[str, int]:
        """See `TransformersAdapter.block_widths`."""
        width = int(self.config.hidden_size)
        return {site.path: width for site in self.sites.canonical.values()}

    # ------------------------------------------------------------------ encode

    def encode(
        self, samples: Sequence[Sample], *, answers: Sequence[Answer] | None = None
    ) -> Batch:
        """See `ModelAdapter.encode`; prompts are not read.

        Raises:
            CompositionError: There are answers.
        """
        if answers:
            self._writes_nothing()
        inputs, layouts = self._encoded(samples)
        return Batch(tuple(samples), inputs, layouts)

    def encode_shared(
        self, groups: Sequence[Sequence[Sample]], *, budget: int | None = None
    ) -> Batch:
        """See `ModelAdapter.encode_shared`: each distinct image is computed once."""
        del budget
        inputs, layouts = self._encoded([group[0] for group in groups])
        owners = [number for number, group in enumerate(groups) for _ in group]
        samples = tuple(sample for group in groups for sample in group)
        shared = {axis: owned(layout, owners) for axis, layout in layouts.items()}
        named = with_names(self, shared, samples, [self.open_images([s])[0] for s in samples])

        def run(head: bool) -> None:
            self.run_model(self.placed(inputs), head=head)

        return Batch(samples, inputs, named, (Pass(_SEEN, run, whole=True),))

    @property
    def shares(self) -> Sharing:
        """See `ModelAdapter.shares`."""
        return "images"

    def _encoded(
        self, samples: Sequence[Sample]
    ) -> tuple[dict[str, Any], Mapping[Axis, AxisLayout]]:
        check_encodable(samples)
        images = self.open_images(samples)
        inputs = self.process((), images)
        placed = placed_images(images, inputs)
        grids = [joined([self.patch_grid(image) for image in group]) for group in placed]
        layouts = self.image_layouts(placed, grids)
        return self.placed(inputs), with_names(self, layouts, samples, images)

    def open_images(self, samples: Sequence[Sample]) -> list[list[Any]]:
        """See `SampleEncoding.open_images`: each sample has some.

        Raises:
            DataError: A sample has none.
        """
        for sample in samples:
            if not sample.images:
                raise DataError(
                    f"The sample {sample.id!r} has no image, and {type(self._module).__name__} "
                    "(adapter 'vit') reads images only.",
                    subject=sample.id,
                    hint="Leave such samples out, or use a model that reads text.",
                )
        return super().open_images(samples)

    def process(self, prompts: Sequence[str], images: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """See `TransformersAdapter.process`: pixel values, and how the model is to take them."""
        del prompts
        flat = [image for group in images for image in group]
        made = pixels(self.processor.image_processor, flat)
        inputs = {name: value for name, value in made.items() if name in self._taken}
        if "noise" in self._taken:  # MAE sorts patches by it: these stay in order
            inputs["noise"] = torch.arange(self._patches(inputs)).repeat(len(flat), 1)
        if "interpolate_pos_encoding" in self._taken and self._resized(inputs):
            inputs["interpolate_pos_encoding"] = True
        return inputs

    @cached_property
    def _taken(self) -> frozenset[str]:
        """The arguments of the model's forward."""
        return frozenset(inspect.signature(type(self._module).forward).parameters)

    def placed(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `TransformersAdapter.placed`: pixels in the dtype of the weights."""
        made = super().placed(inputs)
        if self._module.device.type != "meta":
            made["pixel_values"] = made["pixel_values"].to(self._module.dtype)
        return made

    @cached_property
    def patch(self) -> tuple[int, int]:
        """(height, width) of a patch, in pixels of the model's input."""
        return _pair(self.config.patch_size)

    @cached_property
    def special(self) -> int:
        """Rows before the patches of an image: the class token, a distillation token, registers."""
        return special_tokens(self.module)

    def _patches(self, inputs: Mapping[str, Any]) -> int:
        """How many patches each image has."""
        height, width = inputs["pixel_values"].shape[-2:]
        return int(height // self.patch[0]) * int(width // self.patch[1])

    def _resized(self, inputs: Mapping[str, Any]) -> bool:
        """Whether images have another size than the positions of the model are for."""
        native = getattr(self.config, "image_size", None)
        return native is not None and _pair(native) != tuple(inputs["pixel_values"].shape[-2:])

    def patch_grid(self, image: PlacedImage) -> PatchGrid | None:
        """See `TransformersAdapter.patch_grid`; None where the processor's crop is not known."""
        if _SHAPES not in image.inputs:
            return patches_of(image, self.patch, self.processor.image_processor)
        rows, cols = (int(n) for n in image.inputs[_SHAPES][image.index])
        return grid_patches(image.image, rows, cols, (1, 1), CropGeometry(cols, rows))

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`: of the tower, and of pooled outputs."""
        inputs, counts = images[0][0].inputs, [len(group) for group in images]
        if _SHAPES in inputs:
            tower = _filled_up(images, grids, int(inputs["pixel_values"].shape[1]))
        else:
            tower = tower_layout(counts, self._patches(inputs), grids, special=self.special)
        return {Axis.VISION: tower, Axis.SAMPLE: _pooled_layout(counts)}

    # ------------------------------------------------------------------ text: none

    def read_prompt(self, sample: Sample) -> PromptReading:
        """See `ModelAdapter.read_prompt`: a note that it is not read."""
        return PromptReading(note="the adapter 'vit' does not read them" if sample.prompt else "")

    @property
    def context(self) -> int | None:
        """None: no text is read."""
        return None

    @property
    def image_token_id(self) -> int:
        """No token."""
        return -1

    @property
    def special_ids(self) -> frozenset[int]:
        """No tokens."""
        return frozenset()

    def answer_ids(self, answer: str) -> list[int]:
        """Raises `CompositionError`: nothing here writes text."""
        self._writes_nothing()

    def decode(self, token_ids: Sequence[int]) -> str:
        """Raises `CompositionError`: nothing here writes text."""
        self._writes_nothing()

    # ------------------------------------------------------------------ running

    def forward(self, batch: Batch, *, logits: Logits = "none") -> ForwardOutput:
        """See `ModelAdapter.forward`; there are no logits.

        Raises:
            CompositionError: Logits are wanted.
        """
        if logits != "none":
            self._writes_nothing()
        with inference():
            self.run_model(batch.inputs, head=False)
        return ForwardOutput(None)

    def run_model(self, inputs: Mapping[str, Any], *, head: bool) -> None:
        """See `SampleEncoding.run_model`."""
        del head
        self._module(**inputs)

    def generate(self, batch: Batch, *, max_new_tokens: int, edits: Edits = ()) -> list[Generation]:
        """Raises `CompositionError`: nothing here writes text."""
        self._writes_nothing()

    def readout(self) -> Readout | None:
        """None: there is no unembedding."""
        return None

    def choice_scores(self, samples: Sequence[Sample]) -> list[list[float]]:
        """See `ModelAdapter.choice_scores`: not None, since no text is generated, and no scores.

        Raises:
            CompositionError: There are samples.
        """
        if samples:
            self._writes_nothing()
        return []

    def _writes_nothing(self) -> NoReturn:
        raise CompositionError(
            f"{type(self._module).__name__} (adapter 'vit') reads images only: it has no logits "
            "and writes no text.",
            subject=type(self._module).__name__,
            hint="Look at its activations, for example with --analysis probe.",
        )


def _class_of(config: Any) -> type[Any] | None:
    """Transformers' class of a config; None if there is none."""
    known = MODEL_MAPPING.get(type(config), None)
    return known[0] if isinstance(known, tuple) else known


def _unpooled(own: type[Any]) -> dict[str, bool]:
    """Without the pooler of ViT, which many checkpoints lack."""
    takes = "add_pooling_layer" in inspect.signature(own.__init__).parameters
    return {"add_pooling_layer": False} if takes else {}


@contextmanager
def _without_report() -> Iterator[None]:
    """Without transformers' lists of weights that are not the tower's, or not split."""
    loggers = [logging.getLogger(f"transformers.{name}") for name in _REPORTING]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _pair(size: Any) -> tuple[int, int]:
    """(height, width) of a size that may be one number."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _filled_up(
    images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None], length: int
) -> AxisLayout:
    """The layout of images as rows of patches that are filled up to one length."""
    layouts = []
    for group, grid in zip(images, grids, strict=True):
        shapes = [image.inputs[_SHAPES][image.index].prod() for image in group]
        rows = [
            np.arange(image.index * length, image.index * length + int(patches), dtype=np.int64)
            for image, patches in zip(group, shapes, strict=True)
        ]
        joint = np.concatenate(rows)
        kinds = np.full(len(joint), TokenKind.IMAGE, np.uint8)
        layouts.append(TokenLayout(joint, kinds, patches=grid))
    return AxisLayout(sum(map(len, images)) * length, layouts)


def _pooled_layout(images_per_sample: Sequence[int]) -> AxisLayout:
    """The layout of pooled outputs `[images, width]`: rows of kind SPECIAL."""
    layouts, first = [], 0
    for count in images_per_sample:
        rows = np.arange(first, first + count, dtype=np.int64)
        layouts.append(TokenLayout(rows, np.full(count, TokenKind.SPECIAL, np.uint8)))
        first += count
    return AxisLayout(first, layouts)
