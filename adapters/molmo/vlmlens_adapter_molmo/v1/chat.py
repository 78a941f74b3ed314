"""Prompts as upstream's processor makes them, for batches too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn.functional import pad

from vlmlens.errors import CheckpointError, DataError
from vlmlens.hf.checkpoints import checkpoint_file, checkpoint_json
from vlmlens.hf.fast_tokenizer import fast_tokenizer
from vlmlens.hf.prompt_processor import PromptProcessor, padded
from vlmlens_adapter_molmo.v1.images import BLANK, MolmoImages
from vlmlens_adapter_molmo.v1.sequence import (
    NOWHERE,
    ImageTokens,
    image_input_idx,
    image_sequence,
)

IMAGE = "<|image|>"
"""Stands for an image in texts that the model never sees."""

_PATCH = "<im_patch>"
_IMAGE_TOKENS = ("<im_start>", "<im_end>", _PATCH, "<im_col>", IMAGE)
_END = "<|endoftext|>"


class MolmoProcessor(PromptProcessor):
    """Molmo's prompts: the image's tokens stand before the text.

    Args:
        tokenizer: Of the checkpoint.
        image_processor: Of the checkpoint.
        model: Hub id or folder, named in errors.

    Raises:
        CheckpointError: The tokenizer does not know the image's tokens.
    """

    def __init__(self, tokenizer: Any, image_processor: MolmoImages, model: str) -> None:
        super().__init__(tokenizer, image_processor)
        ids = self.ids("".join(_IMAGE_TOKENS))
        if len(ids) != len(_IMAGE_TOKENS):
            raise CheckpointError(
                f"The tokenizer of {model!r} does not know each of {', '.join(_IMAGE_TOKENS)}.",
                subject=model,
            )
        self.image_tokens = ImageTokens(*ids[:4])
        first = tokenizer.bos_token_id
        self.first = tokenizer.eos_token_id if first is None else first

    def text(self, question: str, images: Sequence[Any]) -> str:
        """See `PromptProcessor.text`; the image is not named in it."""
        del images
        return f" User: {question} Assistant:"

    def encoded(self, prompts: Sequence[tuple[str, list[Any]]]) -> dict[str, torch.Tensor]:
        """See `PromptProcessor.encoded`.

        Returns:
            `input_ids`, `attention_mask`, `images`, `image_masks` and `image_input_idx`, as
            `MolmoModel.forward` takes them.

        Raises:
            DataError: A prompt holds the token that stands for a part of the image.
        """
        ids = [self._ids_of(*prompt) for prompt in prompts]
        rows = [self._images_of(image) for _, (image,) in prompts]
        crops = max(len(row["images"]) for row in rows)
        inputs = padded(ids, self.tokenizer.pad_token_id)
        for name, fill in (("images", BLANK), ("image_masks", BLANK), ("image_input_idx", NOWHERE)):
            inputs[name] = torch.stack([_filled_up(row[name], crops, fill) for row in rows])
        return inputs

    def _ids_of(self, question: str, images: Sequence[Any]) -> list[int]:
        """The sequence of one sample."""
        (image,) = images
        prompt = self.ids(self.text(question, images))
        if self.image_tokens.patch in prompt:
            raise DataError(
                f"The prompt holds {_PATCH}, which stands for a part of the image.",
                subject=question,
                hint="Leave it out; the image stands before the prompt.",
            )
        canvas = self.image_processor.canvas(image.height, image.width)
        return [self.first, *image_sequence(canvas, self.image_tokens), *prompt]

    def _images_of(self, image: Any) -> dict[str, torch.Tensor]:
        """The other tensors of one sample."""
        images, masks = self.image_processor(image)
        index = image_input_idx(self.image_processor.canvas(image.height, image.width))
        return {
            "images": images,
            "image_masks": masks,
            "image_input_idx": torch.where(index < 0, index, index + 1),
        }


def load_processor(model: str, arguments: Mapping[str, Any]) -> MolmoProcessor:
    """The processor of a checkpoint, from its files alone.

    Raises:
        CheckpointError: A file has settings that are not known here.
        OSError: There is no tokenizer.json.
    """
    said = checkpoint_json(model, "preprocessor_config.json", arguments)
    return MolmoProcessor(load_tokenizer(model, arguments), MolmoImages.read(said, model), model)


def load_tokenizer(model: str, arguments: Mapping[str, Any]) -> Any:
    """The tokenizer of a checkpoint; the default end token is `<|endoftext|>`.

    Raises:
        OSError: There is no tokenizer.json.
    """
    file = checkpoint_file(model, "tokenizer.json", arguments, needed=True)
    settings = checkpoint_json(model, "tokenizer_config.json", arguments)
    return fast_tokenizer(Tokenizer.from_file(str(file)), settings, eos=_END)


def _filled_up(tensor: torch.Tensor, length: int, fill: float) -> torch.Tensor:
    after = [0, 0] * (tensor.dim() - 1) + [0, length - len(tensor)]
    return pad(tensor, after, value=fill)
