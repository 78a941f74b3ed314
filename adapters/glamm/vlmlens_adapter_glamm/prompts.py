"""Prompts and pixels as upstream makes them, with what a transformers processor does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from vlmlens.errors import DataError
from vlmlens.hf.token_ids import pad_rows
from vlmlens_adapter_glamm.pixels import grounding_pixels, grounding_size
from vlmlens_adapter_glamm.tokenizer import IM_END, IM_START

Template = Literal["llava_v1", "plain"]
IMAGE = "<image>"
_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions."
)


class GlammProcessor:
    """What a transformers processor does, for GLaMM.

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
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.template = template
        self.slots = [config.image_token_id] * (vision.image_size // vision.patch_size) ** 2
        self.side = int(config.grounding_config.vision_config.image_size)
        self.first, self.fill = int(text.bos_token_id), int(tokenizer.pad_token_id)
        self.shown = f"{IM_START}{IMAGE}{IM_END}" if config.mm_use_im_start_end else IMAGE

    def apply_chat_template(
        self, conversations: Sequence[Any], *, tokenize: bool, **settings: Any
    ) -> Any:
        """The prompt of one conversation as text, or tensors of several conversations.

        Args:
            conversations: One message of the user each; without `tokenize`, its message itself.
            tokenize: Whether tensors are wanted.
            settings: Of transformers' processors; the template says how the answer begins.

        Returns:
            str, or int64 `input_ids` and `attention_mask`, `[samples, positions]` and padded on
            the left, and, where there are images, float32 `pixel_values` and
            `grounding_pixel_values`, `[images, 3, size, size]`, and int64 `original_sizes` and
            `resized_sizes`, `[images, 2]`, heights and widths.

        Raises:
            DataError: A prompt holds the image's placeholder, which the template puts.
        """
        del settings
        if not tokenize:
            return self._text(conversations[0])
        rows = [self._ids(self._text(message)) for (message,) in conversations]
        images = [image for (message,) in conversations for image in _images(message)]
        inputs = {
            "input_ids": pad_rows(rows, self.fill, side="left"),
            "attention_mask": pad_rows([torch.ones_like(row) for row in rows], 0, side="left"),
        }
        return inputs | (self._pixels(images) if images else {})

    def _text(self, message: Mapping[str, Any]) -> str:
        question = "".join(part["text"] for part in message["content"] if part["type"] == "text")
        if IMAGE in question:
            raise DataError(
                f"The prompt holds {IMAGE}, which GLaMM's template puts before it.",
                subject=question,
                hint=f"Leave {IMAGE} out.",
            )
        if _images(message):
            question = f"The {self.shown} provides an overview of the picture.\n{question}"
        if self.template == "plain":
            return question
        return f"{_SYSTEM} USER: {question} ASSISTANT:"

    def _ids(self, text: str) -> torch.Tensor:
        """Ids of a prompt: a beginning, and the image's slots where its placeholder stands.

        The texts before and after the placeholder are tokenized each on its own, as upstream does.
        """
        before, *after = (
            self.tokenizer(part, add_special_tokens=False)["input_ids"]
            for part in text.split(IMAGE)
        )
        ids = [self.first, *before]
        for part in after:
            ids += [*self.slots, *part]
        return torch.tensor(ids)

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


def _images(message: Mapping[str, Any]) -> list[Any]:
    return [part["image"] for part in message["content"] if part["type"] == "image"]
