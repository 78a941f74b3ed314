"""Prompts and pixels as upstream makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from vlmlens.hf.image_processing import normalised
from vlmlens.hf.prompt_processor import PromptProcessor, padded
from vlmlens_adapter_cogvlm.config import TEMPLATES
from vlmlens_adapter_cogvlm.positions import LANGUAGE, VISION


class CogVLMImageProcessor:
    """Resizes an image to a square, without a crop, and normalises it.

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
        return normalised(pixels.float().div(255), OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)


class CogVLMProcessor(PromptProcessor):
    """CogVLM's prompts: begin token, image slots, the text in its template.

    Args:
        tokenizer: Its tokenizer.
        tokenizer_digest: Of the file that it was read from.
        config: The model's config.
        template: One of `TEMPLATES`.
    """

    def __init__(self, tokenizer: Any, tokenizer_digest: str, config: Any, template: str) -> None:
        vision = config.vision_config
        super().__init__(tokenizer, CogVLMImageProcessor(vision.image_size))
        self.tokenizer_digest, self.template = tokenizer_digest, template
        self.slots = (vision.image_size // vision.patch_size) ** 2 + 2
        self.first, self.fill = int(config.bos_token_id), int(config.pad_token_id)

    def text(self, question: str, images: Sequence[Any]) -> str:
        """See `PromptProcessor.text`; the image is not named in it."""
        del images
        return TEMPLATES[self.template].format(question)

    def encoded(self, prompts: Sequence[tuple[str, list[Any]]]) -> dict[str, Any]:
        """See `PromptProcessor.encoded`.

        Returns:
            int64 `input_ids`, `token_type_ids` and `attention_mask`, `[samples, positions]`, and,
            where there are images, float32 `pixel_values` `[images, 3, side, side]`.
        """
        ids, types = [], []
        for question, shown in prompts:
            text, slots = self.ids(self.text(question, shown)), self.slots if shown else 0
            ids.append([self.first, *[self.fill] * slots, *text])
            types.append([LANGUAGE, *[VISION] * slots, *[LANGUAGE] * len(text)])
        types_of = padded(types, LANGUAGE)["input_ids"]
        inputs = {**padded(ids, self.fill), "token_type_ids": types_of}
        images = [image for _, shown in prompts for image in shown]
        return inputs | ({"pixel_values": self.image_processor(images)} if images else {})
