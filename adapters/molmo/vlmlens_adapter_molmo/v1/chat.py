"""Prompts and images as upstream's processor makes them, for batches too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from torch.nn.functional import pad

from vlmlens.errors import CheckpointError, DataError
from vlmlens.hf.token_ids import pad_rows
from vlmlens.hf.weights import checkpoint_file
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


class MolmoProcessor:
    """What a transformers processor does, for Molmo.

    Args:
        tokenizer: Of the checkpoint.
        image_processor: Of the checkpoint.
        model: Hub id or folder, named in errors.

    Raises:
        CheckpointError: The tokenizer does not know the image's tokens.
    """

    def __init__(self, tokenizer: Any, image_processor: MolmoImages, model: str) -> None:
        self.tokenizer, self.image_processor = tokenizer, image_processor
        ids = self._ids("".join(_IMAGE_TOKENS))
        if len(ids) != len(_IMAGE_TOKENS):
            raise CheckpointError(
                f"The tokenizer of {model!r} does not know each of {', '.join(_IMAGE_TOKENS)}.",
                subject=model,
            )
        self.image_tokens = ImageTokens(*ids[:4])
        first = tokenizer.bos_token_id
        self.first = tokenizer.eos_token_id if first is None else first

    def apply_chat_template(
        self, conversations: Sequence[Any], *, tokenize: bool, **settings: Any
    ) -> Any:
        """The prompt of one conversation as text, or tensors of several conversations.

        Args:
            conversations: One message of the user each; without `tokenize`, its message itself.
            tokenize: Whether tensors are wanted.
            settings: Of transformers' processors; the answer's beginning is always written.

        Returns:
            str, or `input_ids`, `attention_mask`, `images`, `image_masks` and `image_input_idx`,
            as `MolmoModel.forward` takes them; short rows are filled up on the left.

        Raises:
            DataError: A prompt holds the token that stands for a part of the image.
        """
        del settings
        if not tokenize:
            return _prompt(_text(conversations[0]))
        rows = [self._encoded(message) for (message,) in conversations]
        ids = [row["input_ids"] for row in rows]
        crops = max(len(row["images"]) for row in rows)
        inputs = {
            "input_ids": pad_rows(ids, self._padding, side="left"),
            "attention_mask": pad_rows([torch.ones_like(row) for row in ids], 0, side="left"),
        }
        for name, fill in (("images", BLANK), ("image_masks", BLANK), ("image_input_idx", NOWHERE)):
            inputs[name] = torch.stack([_filled_up(row[name], crops, fill) for row in rows])
        return inputs

    def _encoded(self, message: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The tensors of one sample."""
        text = _text(message)
        (image,) = (part["image"] for part in message["content"] if part["type"] == "image")
        prompt = self._ids(_prompt(text))
        if self.image_tokens.patch in prompt:
            raise DataError(
                f"The prompt holds {_PATCH}, which stands for a part of the image.",
                subject=text,
                hint="Leave it out; the image stands before the prompt.",
            )
        images, masks = self.image_processor(image)
        canvas = self.image_processor.canvas(image.height, image.width)
        before = [self.first, *image_sequence(canvas, self.image_tokens)]
        index = image_input_idx(canvas)
        return {
            "input_ids": torch.tensor(before + prompt),
            "images": images,
            "image_masks": masks,
            "image_input_idx": torch.where(index < 0, index, index + 1),
        }

    @property
    def _padding(self) -> int:
        found = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if found is None else found)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def load_processor(model: str, arguments: Mapping[str, Any]) -> MolmoProcessor:
    """The processor of a checkpoint, from its files alone.

    Raises:
        CheckpointError: A file says what is not known here.
        OSError: There is no tokenizer.json.
    """
    said = _read(model, "preprocessor_config.json", arguments)
    return MolmoProcessor(load_tokenizer(model, arguments), MolmoImages.read(said, model), model)


def load_tokenizer(model: str, arguments: Mapping[str, Any]) -> Any:
    """The tokenizer of a checkpoint; texts end with `<|endoftext|>` where it does not say.

    Raises:
        OSError: There is no tokenizer.json.
    """
    file = checkpoint_file(model, "tokenizer.json", arguments, needed=True)
    said = _read(model, "tokenizer_config.json", arguments)
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    roles = {name: _content(said[name]) for name in names if said.get(name)}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(file)), **{"eos_token": _END, **roles}
    )


def _read(model: str, file: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    path = checkpoint_file(model, file, arguments)
    return {} if path is None else dict(json.loads(path.read_text(encoding="utf-8")))


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _text(message: Mapping[str, Any]) -> str:
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")


def _prompt(text: str) -> str:
    return f" User: {text} Assistant:"


def _filled_up(tensor: torch.Tensor, length: int, fill: float) -> torch.Tensor:
    after = [0, 0] * (tensor.dim() - 1) + [0, length - len(tensor)]
    return pad(tensor, after, value=fill)
