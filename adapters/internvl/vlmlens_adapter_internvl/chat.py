"""Prompts and pixels as the original checkpoints' own code makes them (template internvl2_5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import transformers

from vlmlens.errors import CheckpointError, DataError
from vlmlens.hf.prompt_processor import PromptProcessor

IMAGE_CONTEXT = "<IMG_CONTEXT>"
END_OF_TURN = "<|im_end|>"
_PLACEHOLDER = "<image>"
_SYSTEM = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的"  # noqa: RUF001
    "多模态大语言模型。"
)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_EXPECTED = {"template": "internvl2_5", "use_thumbnail": True, "pad2square": False}


class ChatProcessor(PromptProcessor):
    """The prompts of a checkpoint in the original layout.

    Args:
        tokenizer: Its tokenizer.
        config: Its config, in the original's words.
        model: Hub id or folder, named in errors.
    """

    place: ClassVar[str | None] = _PLACEHOLDER

    def __init__(self, tokenizer: Any, config: Mapping[str, Any], model: str) -> None:
        check_chat(config, model)
        vision = config["vision_config"]
        side = config.get("force_image_size") or vision["image_size"]
        self.tokens_per_tile = int((side // vision["patch_size"] * config["downsample_ratio"]) ** 2)
        dynamic = config.get("dynamic_image_size")
        images = transformers.GotOcr2ImageProcessorPil(
            size={"height": side, "width": side},
            crop_to_patches=True,
            min_patches=config.get("min_dynamic_patch", 1) if dynamic else 1,
            max_patches=config.get("max_dynamic_patch", 12) if dynamic else 1,
            image_mean=_MEAN,
            image_std=_STD,
        )
        super().__init__(tokenizer, images)

    def text(self, question: str, images: Sequence[Any]) -> str:
        """See `PromptProcessor.text`."""
        return _prompt(question, [IMAGE_CONTEXT for _ in images])

    def encoded(self, prompts: Sequence[tuple[str, list[Any]]]) -> dict[str, Any]:
        """See `PromptProcessor.encoded`.

        Returns:
            `input_ids`, `attention_mask` and, where there are images, float32 `pixel_values`
            `[tiles, 3, side, side]`.
        """
        images = [image for _, shown in prompts for image in shown]
        pixels = self._pixels(images) if images else {}
        counts = iter(pixels.pop("num_patches", ()))
        texts = [_prompt(text, [self._slot(next(counts)) for _ in own]) for text, own in prompts]
        made = self.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
        return {name: made[name] for name in ("input_ids", "attention_mask")} | pixels

    def _pixels(self, images: Sequence[Any]) -> dict[str, Any]:
        return dict(self.image_processor(images=list(images), return_tensors="pt"))

    def _slot(self, tiles: Any) -> str:
        return f"<img>{IMAGE_CONTEXT * self.tokens_per_tile * int(tiles)}</img>"


def check_chat(config: Mapping[str, Any], model: str) -> None:
    """Raise if the checkpoint makes prompts or pixels in another way.

    Raises:
        CheckpointError: They are.
    """
    for name, expected in _EXPECTED.items():
        found = config.get(name, expected)
        if found != expected:
            raise CheckpointError(
                f"{model!r} has {name} = {found!r} in its config; only {expected!r} is known.",
                subject=model,
                hint="The original layout is read for InternVL 2.5 only.",
            )


def _prompt(question: str, slots: Sequence[str]) -> str:
    question = _with_placeholders(question, len(slots))
    for slot in slots:
        question = question.replace(_PLACEHOLDER, slot, 1)
    return (
        f"<|im_start|>system\n{_SYSTEM}{END_OF_TURN}\n"
        f"<|im_start|>user\n{question}{END_OF_TURN}\n<|im_start|>assistant\n"
    )


def _with_placeholders(question: str, images: int) -> str:
    """The question with a placeholder per image; added in front if it has none."""
    found = question.count(_PLACEHOLDER)
    if not images or found == images:
        return question
    if found:
        raise DataError(
            f"The prompt has {found} {_PLACEHOLDER}, its sample {images} images.",
            subject=question,
            hint=f"Write {_PLACEHOLDER} once per image, or not at all.",
        )
    if images == 1:
        return f"{_PLACEHOLDER}\n{question}"
    return "".join(f"Image-{i + 1}: {_PLACEHOLDER}\n" for i in range(images)) + question
