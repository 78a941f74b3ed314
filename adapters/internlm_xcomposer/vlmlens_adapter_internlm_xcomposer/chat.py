"""Prompts as upstream's `chat` writes them, and the checkpoint's SentencePiece tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tokenizers import AddedToken

from vlmlens.errors import CheckpointError, DataError
from vlmlens.hf.checkpoints import checkpoint_file
from vlmlens.hf.prompt_processor import PromptProcessor, padded
from vlmlens.hf.sentencepiece_tokenizer import sentencepiece_tokenizer
from vlmlens_adapter_internlm_xcomposer.config import XComposerConfig
from vlmlens_adapter_internlm_xcomposer.tiling import TileImages, canvas, most_tiles

PLACE = "<ImageHere>"
"""Stands in a prompt where an image goes; it has no token."""
BEGIN, END = "[UNUSED_TOKEN_146]", "[UNUSED_TOKEN_145]"
"""Around a turn. They are pieces of the SentencePiece model."""


def load_tokenizer(model: str, arguments: Mapping[str, Any]) -> Any:
    """The tokenizer of a checkpoint.

    Raises:
        CheckpointError: It has none, or one without the pieces around a turn.
        MissingDependency: sentencepiece is not installed.
    """
    file = checkpoint_file(model, "tokenizer.model", arguments)
    if file is None:
        raise CheckpointError(f"{model!r} has no tokenizer.model.", subject=model)
    tokenizer = sentencepiece_tokenizer(file, pad="</s>")
    known = tokenizer.get_vocab()
    lacking = [name for name in (BEGIN, END) if name not in known]
    if lacking:
        raise CheckpointError(
            f"The tokenizer of {model!r} lacks the piece {' and '.join(lacking)}.", subject=model
        )
    marks = [AddedToken(name, special=True, normalized=False) for name in (BEGIN, END)]
    tokenizer.add_tokens(marks, special_tokens=True)
    return tokenizer


class ChatProcessor(PromptProcessor):
    """The prompts of upstream's `chat`, with an id per image token where an image goes.

    Args:
        tokenizer: The checkpoint's.
        config: The model's.
    """

    place: ClassVar[str | None] = PLACE

    def __init__(self, tokenizer: Any, config: XComposerConfig) -> None:
        vision: Any = config.vision_config
        super().__init__(tokenizer, TileImages(int(vision.image_size)))
        self.config = config

    def text(self, question: str, images: Sequence[Any]) -> str:
        """See `PromptProcessor.text`; images are not named in it."""
        del images
        return written(question, 0)

    def encoded(self, prompts: Sequence[tuple[str, list[Any]]]) -> dict[str, Any]:
        """See `PromptProcessor.encoded`.

        Returns:
            int64 `input_ids` and `attention_mask` `[samples, positions]` and, where there are
            images, what `TileImages` gives.

        Raises:
            DataError: A prompt has another number of places than of images, or is too long.
        """
        rows = [self.token_ids(*prompt) for prompt in prompts]
        pixels = self.image_processor([images for _, images in prompts])
        return {**padded(rows, self.tokenizer.pad_token_id), **pixels}

    def token_ids(self, question: str, images: Sequence[Any]) -> list[int]:
        """The sequence of one sample: text with an id per image token where an image goes.

        Raises:
            DataError: Places and images differ in number, or the sequence is too long.
        """
        most, tile = most_tiles(len(images)), self.image_processor.tile
        ids = [int(self.tokenizer.bos_token_id)]
        for i, part in enumerate(written(question, len(images)).split(PLACE)):
            if i:
                image = images[i - 1]
                placed = canvas(image.width, image.height, tile, most)
                ids += [self.config.image_token_id] * placed.tokens(self.config.merged_side)
            ids += self.ids(part) if part else []
        if len(ids) > self.config.longest:
            raise DataError(
                f"The prompt {question[:40]!r} with its {len(images)} images is {len(ids)} tokens "
                f"long; InternLM-XComposer 2.5 reads {self.config.longest}.",
                subject=question,
                hint="Give fewer or smaller images. (Its own code would cut off the question.)",
            )
        return ids


def written(question: str, images: int) -> str:
    """The prompt, with a place for each image.

    If the question has no placeholder, a single image comes first; several images are named at the
    start of the question.

    Raises:
        DataError: The question has another number of places than there are images.
    """
    found, front = question.count(PLACE), ""
    if not found and images == 1:
        front = PLACE
    elif not found and images:
        named = (f"Image{i + 1} {PLACE}; " for i in range(images))
        question = "".join(named) + question
    elif found != images:
        raise DataError(
            f"The prompt has {found} {PLACE}, its sample {images} images.",
            subject=question,
            hint=f"Write {PLACE} once per image, or not at all.",
        )
    return f"{front}{BEGIN}user\n{question}{END}\n{BEGIN}assistant\n"
