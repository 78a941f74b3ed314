"""Prompts and pixels as upstream makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from vlmlens.errors import DataError
from vlmlens.hf.prompt_processor import PromptProcessor, padded
from vlmlens_adapter_glamm.pixels import grounding_pixels, grounding_size
from vlmlens_adapter_glamm.tokenizer import IM_END, IM_START

Template = Literal["llava_v1", "plain"]
IMAGE = "<image>"
_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions."
)


class GlammProcessor(PromptProcessor):
    """GLaMM's prompts: a sentence about the image, the question, and a template around both.

    Args:
        tokenizer: Its tokenizer.
        image_processor: Of the vision tower.
        config: The model's config.
        template: "llava_v1", the conversation that upstream's app puts around a prompt, or "plain".
    """

    def __init__(
        self, tokenizer: Any, image_processor: Any, config: Any, template: Template
    ) -> None:
        vision, text = config.vision_config, config.text_config
        super().__init__(tokenizer, image_processor)
        self.template = template
        self.slots = [config.image_token_id] * (vision.image_size // vision.patch_size) ** 2
        self.side = int(config.grounding_config.vision_config.image_size)
        self.first, self.fill = int(text.bos_token_id), int(tokenizer.pad_token_id)
        self.shown = f"{IM_START}{IMAGE}{IM_END}" if config.mm_use_im_start_end else IMAGE

    def encoded(self, prompts: Sequence[tuple[str, list[Any]]]) -> dict[str, Any]:
        """See `PromptProcessor.encoded`.

        Returns:
            int64 `input_ids` and `attention_mask`, `[samples, positions]`, and, where there are
            images, float32 `pixel_values` and `grounding_pixel_values`, `[images, 3, size, size]`,
            and int64 `original_sizes` and `resized_sizes`, `[images, 2]`, heights and widths.
        """
        rows = [self._with_slots(self.text(*prompt)) for prompt in prompts]
        images = [image for _, shown in prompts for image in shown]
        return padded(rows, self.fill) | (self._pixels(images) if images else {})

    def text(self, question: str, images: Sequence[Any]) -> str:
        """See `PromptProcessor.text`.

        Raises:
            DataError: The prompt holds the image's placeholder, which only the template may add.
        """
        if IMAGE in question:
            raise DataError(
                f"The prompt holds {IMAGE}, which GLaMM's template puts before it.",
                subject=question,
                hint=f"Leave {IMAGE} out.",
            )
        if images:
            question = f"The {self.shown} provides an overview of the picture.\n{question}"
        if self.template == "plain":
            return question
        return f"{_SYSTEM} USER: {question} ASSISTANT:"

    def _with_slots(self, text: str) -> list[int]:
        """Ids of a prompt: begin token, text, and image slots in place of the placeholder.

        The texts before and after the placeholder are tokenized separately, as upstream does.
        """
        before, *after = (self.ids(part) for part in text.split(IMAGE))
        return [self.first, *before, *(i for part in after for i in (*self.slots, *part))]

    def _pixels(self, images: Sequence[Any]) -> dict[str, torch.Tensor]:
        sizes = [(image.height, image.width) for image in images]
        seen = self.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        return {
            "pixel_values": seen,
            "grounding_pixel_values": torch.stack(
                [grounding_pixels(image, self.side) for image in images]
            ),
            "original_sizes": torch.tensor(sizes),
            "resized_sizes": torch.tensor([grounding_size(*size, self.side) for size in sizes]),
        }
