"""CLIP, SigLIP and SigLIP 2: an image tower beside a text tower, compared by similarity.

The llm axis holds the text tower's positions; pooled outputs and the two projections into the
common space have one row per sample. Nothing here writes text, so there is no readout and nothing
to generate: questions are answered by comparing their choices to the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, NoReturn

import numpy as np
import torch

from vlmlens.abc.adapter import Generation, PromptReading, Readout
from vlmlens.abc.editable import Edits
from vlmlens.errors import CompositionError, DataError
from vlmlens.hf import CropGeometry, PlacedImage, RasterAdapter, grid_patches
from vlmlens.hf.layouts import sample_layout
from vlmlens.passes.batch import Batch, ForwardOutput, Logits
from vlmlens.passes.modes import inference
from vlmlens.samples import Sample
from vlmlens.sites import Axis, SiteMap, SiteTemplate, read_anatomy
from vlmlens.tokens import AxisLayout, PatchGrid, TokenKind, TokenLayout

_CHUNK, _REMEMBERED = 64, 10_000
_BLOCKS = SiteTemplate("vision.block.{i}", ("vision_model.encoder.layers.{i}",), Axis.VISION)
_TEXT = (
    SiteTemplate("text.embed", ("text_model.embeddings",), Axis.LLM),
    SiteTemplate("text.block.{i}", ("text_model.encoder.layers.{i}",), Axis.LLM),
    SiteTemplate("text.norm", ("text_model.final_layer_norm",), Axis.LLM),
)
CLIP_SITES: Sequence[SiteTemplate] = (
    _BLOCKS,
    SiteTemplate("vision.pooled", ("vision_model.post_layernorm",), Axis.SAMPLE),
    SiteTemplate("vision.projection", ("visual_projection",), Axis.SAMPLE),
    *_TEXT,
    SiteTemplate("text.projection", ("text_projection",), Axis.SAMPLE),
)
"""CLIP: the vision tower's final norm sees the pooled CLS token only."""
SIGLIP_SITES: Sequence[SiteTemplate] = (
    _BLOCKS,
    SiteTemplate("vision.norm", ("vision_model.post_layernorm",), Axis.VISION),
    SiteTemplate("vision.projection", ("vision_model.head",), Axis.SAMPLE),
    *_TEXT,
    SiteTemplate("text.projection", ("text_model.head",), Axis.SAMPLE),
)
"""SigLIP: an attention head pools the vision tower, straight into the common space."""


class ClipAdapter(RasterAdapter):
    """`CLIPModel`, `SiglipModel` and `Siglip2Model` (NaFlex: images keep their shape)."""

    auto_class: ClassVar[str] = "AutoModel"
    images_between: ClassVar[bool] = False
    images_per_sample: ClassVar[int | None] = 1
    image_tokens_placed: ClassVar[bool] = False

    @property
    def is_clip(self) -> bool:
        """Whether it is CLIP: causal text, read at its end token; else SigLIP."""
        return str(self.config.model_type) == "clip"

    @property
    def is_naflex(self) -> bool:
        """Whether the vision tower takes images of any shape, as rows of patches."""
        return str(self.config.model_type) == "siglip2"

    @cached_property
    def sites(self) -> SiteMap:
        """See `ModelAdapter.sites`."""
        paths = [name for name, _ in self.module.named_modules()]
        return SiteMap(
            CLIP_SITES if self.is_clip else SIGLIP_SITES, paths, anatomy=read_anatomy(self.module)
        )

    @property
    def padding_side(self) -> str:
        """Right for CLIP, which counts positions from the left; else as the tokenizer says.

        SigLIP and SigLIP 2 read the last position of a text that is filled up to its full length,
        so the side decides what is read.
        """
        return "right" if self.is_clip else str(self.tokenizer.padding_side)

    @property
    def image_token_id(self) -> int:
        """No token stands for the image."""
        return -1

    # ------------------------------------------------------------------ encode

    def process(self, prompts: Sequence[str], images: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """See `TransformersAdapter.process`."""
        return {**self.process_texts(prompts), **self._process_images(images)}

    def templated(self, prompt: str, images: Sequence[Any]) -> str:
        """See `TransformersAdapter.templated`: there is no template."""
        del images
        return prompt

    def process_texts(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """The text tower's inputs.

        SigLIP was trained on texts filled up to its full length, whose last position, filling or
        not, is read: there the filling counts as text that the model sees.

        Raises:
            DataError: A text is too long; the model would see only its beginning.
        """
        longest = int(self.config.text_config.max_position_embeddings)
        for problem in filter(None, map(self._cut, texts)):
            raise DataError(
                f"{problem[:1].upper()}{problem[1:]}.", subject="prompt", hint="Shorten it."
            )
        encoded = self.tokenizer(
            list(texts),
            padding=True if self.is_clip else "max_length",
            max_length=longest if not self.is_clip else None,
            padding_side=self.padding_side,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = encoded["attention_mask"]
        return {
            "input_ids": encoded["input_ids"],
            "attention_mask": mask if self.is_clip else torch.ones_like(mask),
        }

    def _process_images(self, images: Sequence[Sequence[Any]]) -> dict[str, Any]:
        flat = [image for group in images for image in group]
        return dict(self.processor.image_processor(images=flat, return_tensors="pt"))

    def read_prompt(self, sample: Sample) -> PromptReading:
        """See `ModelAdapter.read_prompt`: a text that would be cut is a problem."""
        longest = max([sample.prompt, *self._texts_of(sample)], key=self._length)
        return PromptReading(self._cut(longest))

    @property
    def context(self) -> int | None:
        """None: `read_prompt` and `process_texts` refuse texts that are too long."""
        return None

    def _texts_of(self, sample: Sample) -> list[str]:
        """The texts that are compared with the image: each choice, after the prompt."""
        return [f"{sample.prompt} {choice}".strip() for choice in sample.choices]

    def _length(self, text: str) -> int:
        return len(self.tokenizer(text, verbose=False)["input_ids"])

    def _cut(self, text: str) -> str:
        """Why a text would be cut; empty if it is short enough. No token is below a byte."""
        longest = int(self.config.text_config.max_position_embeddings)
        if len(text.encode()) + 2 <= longest or (length := self._length(text)) <= longest:
            return ""
        return (
            f"the text {text[:40]!r} has {length} tokens; {type(self._module).__name__} reads "
            f"{longest}"
        )

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        """See `TransformersAdapter.patch_grid`: of the vision tower's tokens."""
        if not self.is_naflex:
            return super().patch_grid(image)
        rows, cols = (int(n) for n in image.inputs["spatial_shapes"][image.index])
        return grid_patches(image.image, rows, cols, (1, 1), CropGeometry(cols, rows))

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`."""
        tower = (
            _filled_up([group[0] for group in images], grids)
            if self.is_naflex
            else super().image_layouts(images, grids)[Axis.VISION]
        )
        return {Axis.VISION: tower, Axis.SAMPLE: sample_layout(len(images))}

    # ------------------------------------------------------------------ forward

    def forward(self, batch: Batch, *, logits: Logits = "none") -> ForwardOutput:
        """See `ModelAdapter.forward`; there are no logits.

        Raises:
            CompositionError: Logits are wanted.
        """
        if logits != "none":
            self._writes_nothing()
        with inference():
            self._module(**batch.inputs)
        return ForwardOutput(None)

    def choice_scores(self, samples: Sequence[Sample]) -> list[list[float]]:
        """See `ModelAdapter.choice_scores`: each choice, after the prompt, is a text.

        Radford et al., "Learning Transferable Visual Models From Natural Language Supervision"
        (2021), section 3.1.2: the softmax over the texts of their cosine similarities to the
        image, at the temperature that the model learned. SigLIP's bias cancels out.
        """
        if not samples:
            return []
        images = self._embedded_images(samples)
        texts = [self._texts_of(sample) for sample in samples]
        embedded = self._embedded_texts([text for group in texts for text in group])
        scale = self._module.logit_scale.exp().double()
        scores = []
        for image, group in zip(images, texts, strict=True):
            logits = scale * (torch.stack([embedded[text] for text in group]) @ image)
            scores.append(logits.log_softmax(0).tolist())
        return scores

    def _embedded_images(self, samples: Sequence[Sample]) -> torch.Tensor:
        inputs = self._process_images(self.open_images(samples))
        with torch.inference_mode():
            return _embedding(self._module.get_image_features(**self.placed(inputs)))

    def _embedded_texts(self, texts: Sequence[str]) -> Mapping[str, torch.Tensor]:
        """The embedding of each text; those of the last calls are remembered.

        Nothing is remembered while the model holds something tuned, whose values may change.
        """
        remembered = {} if self.holds else self._texts
        known = {text: remembered[text] for text in texts if text in remembered}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        for start in range(0, len(new), _CHUNK):
            part = new[start : start + _CHUNK]
            inputs = self.placed(self.process_texts(part))
            with torch.inference_mode():
                rows = _embedding(self._module.get_text_features(**inputs))
            known.update(zip(part, rows, strict=True))
        if len(remembered) + len(new) > _REMEMBERED:
            remembered.clear()
        remembered.update({text: known[text] for text in new[:_REMEMBERED]})
        return known

    @cached_property
    def _texts(self) -> dict[str, torch.Tensor]:
        return {}

    def generate(self, batch: Batch, *, max_new_tokens: int, edits: Edits = ()) -> list[Generation]:
        """Raises `CompositionError`: nothing here writes text."""
        self._writes_nothing()

    def answer_ids(self, answer: str) -> list[int]:
        """Raises `CompositionError`: nothing here writes text."""
        self._writes_nothing()

    def readout(self) -> Readout | None:
        """None: there is no unembedding."""
        return None

    def _writes_nothing(self) -> NoReturn:
        raise CompositionError(
            f"{type(self._module).__name__} has no language model head: it gives no logits and "
            "writes no text.",
            subject=type(self._module).__name__,
            hint="Compare choices to the image with choice_scores.",
        )

    def block_widths(self) -> Mapping[str, int]:
        """See `TransformersAdapter.block_widths`."""
        own = {} if self.is_clip else {"vision_model.head": self.config.vision_config.hidden_size}
        return {**super().block_widths(), **own}


def _filled_up(images: Sequence[PlacedImage], grids: Sequence[PatchGrid | None]) -> AxisLayout:
    """The layout of images as rows of patches that are filled up to one length."""
    length = images[0].inputs["pixel_values"].shape[1]
    layouts = []
    for image, grid in zip(images, grids, strict=True):
        rows = image.index * length + np.arange(0 if grid is None else len(grid), dtype=np.int64)
        kinds = np.full(len(rows), TokenKind.IMAGE, np.uint8)
        layouts.append(TokenLayout(rows, kinds, patches=grid))
    return AxisLayout(len(images) * length, layouts)


def _embedding(features: Any) -> torch.Tensor:
    """Unit vectors in float64; older versions of transformers give the tensor itself."""
    tensor = getattr(features, "pooler_output", features).double()
    unit: torch.Tensor = tensor / tensor.norm(dim=-1, keepdim=True)
    return unit
