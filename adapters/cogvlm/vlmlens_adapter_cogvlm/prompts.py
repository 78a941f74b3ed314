"""Prompts and pixels as upstream makes them, with what a transformers processor does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from vlmlens.hf.token_ids import pad_rows
from vlmlens_adapter_cogvlm.config import TEMPLATES
from vlmlens_adapter_cogvlm.positions import LANGUAGE, VISION

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class CogVLMImageProcessor:
    """Squashes an image to a square, without a crop, and normalises it.

    Args:
        side: Of the square, in pixels.
    """

    backend = "pil"

    def __init__(self, side: int) -> None:
        self.size = {"height": side, "width": side}

    def __call__(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """float32 `[images, 3, side, side]`."""
        return torch.stack([self._one(image) for image in images])

    def _one(self, image: Image.Image) -> torch.Tensor:
        size = (self.size["width"], self.size["height"])
        square = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()
        mean, std = (torch.tensor(values)[:, None, None] for values in (_MEAN, _STD))
        return pixels.float().div(255).sub(mean).div(std)


class CogVLMProcessor:
    """What a transformers processor does, for CogVLM.

    Args:
        tokenizer: Its tokenizer.
        tokenizer_digest: Of the file that it was read from.
        config: The model's config.
        template: One of `TEMPLATES`.
    """

    def __init__(self, tokenizer: Any, tokenizer_digest: str, config: Any, template: str) -> None:
        vision = config.vision_config
        self.tokenizer = tokenizer
        self.tokenizer_digest = tokenizer_digest
        self.template = template
        self.image_processor = CogVLMImageProcessor(vision.image_size)
        self.slots = (vision.image_size // vision.patch_size) ** 2 + 2
        self.first, self.fill = int(config.bos_token_id), int(config.pad_token_id)

    def apply_chat_template(
        self, conversations: Sequence[Any], *, tokenize: bool, **settings: Any
    ) -> Any:
        """The prompt of one conversation as text, or tensors of several conversations.

        Args:
            conversations: One message of the user each; without `tokenize`, its message itself.
            tokenize: Whether tensors are wanted.
            settings: Of transformers' processors; the template says how the answer begins.

        Returns:
            str, or int64 `input_ids`, `token_type_ids` and `attention_mask`, `[samples,
            positions]` and padded on the left, and, where there are images, float32
            `pixel_values` `[images, 3, side, side]`.
        """
        del settings
        if not tokenize:
            return self._text(conversations[0])
        rows = [self._row(message) for (message,) in conversations]
        ids, types, mask = (
            pad_rows([row[i] for row in rows], fill, side="left")
            for i, fill in enumerate((self.fill, LANGUAGE, 0))
        )
        inputs = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
        images = [image for (message,) in conversations for image in _images(message)]
        return inputs | ({"pixel_values": self.image_processor(images)} if images else {})

    def _text(self, message: Mapping[str, Any]) -> str:
        question = "".join(part["text"] for part in message["content"] if part["type"] == "text")
        return TEMPLATES[self.template].format(question)

    def _row(self, message: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Ids, types and mask of one prompt: the beginning, the image's slots, the text."""
        text = self.tokenizer(self._text(message), add_special_tokens=False)["input_ids"]
        slots = self.slots if _images(message) else 0
        ids = torch.tensor([self.first, *[self.fill] * slots, *text])
        types = torch.tensor([LANGUAGE, *[VISION] * slots, *[LANGUAGE] * len(text)])
        return ids, types, torch.ones_like(ids)


def _images(message: Mapping[str, Any]) -> list[Image.Image]:
    return [part["image"] for part in message["content"] if part["type"] == "image"]
