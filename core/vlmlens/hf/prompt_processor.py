"""PromptProcessor: does what a transformers processor does, for families without one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from vlmlens.hf.token_ids import pad_rows


class PromptProcessor(ABC):
    """Makes prompts and tensors from conversations of one user message each.

    Args:
        tokenizer: The checkpoint's tokenizer.
        image_processor: Makes pixel values.
    """

    place: ClassVar[str | None] = None
    """What marks the place of an image in a question, where the family reads such marks."""

    def __init__(self, tokenizer: Any, image_processor: Any) -> None:
        self.tokenizer, self.image_processor = tokenizer, image_processor

    @abstractmethod
    def text(self, question: str, images: Sequence[Any]) -> str:
        """The whole prompt. Whether a placeholder marks an image depends on the family."""

    @abstractmethod
    def encoded(self, prompts: Sequence[tuple[str, list[Any]]]) -> dict[str, Any]:
        """The model's inputs, padded on the left.

        Args:
            prompts: Question and images of each sample.
        """

    def apply_chat_template(
        self, conversations: Sequence[Any], *, tokenize: bool, **settings: Any
    ) -> Any:
        """The prompt of one conversation as text, or tensors of several conversations.

        Args:
            conversations: One message of the user each; without `tokenize`, its message itself.
            tokenize: Whether tensors are wanted.
            settings: Of transformers' processors; ignored. Rows are always padded on the left, and
                the prompt always ends where the answer begins.

        Returns:
            str, or the output of `encoded`.
        """
        del settings
        if not tokenize:
            return self.text(*_parts(conversations[0]))
        return self.encoded([_parts(message) for (message,) in conversations])

    def ids(self, text: str) -> list[int]:
        """The token ids of a text, without special tokens around it."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def padded(rows: Sequence[Sequence[int]], fill: int) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask`, int64 `[samples, positions]`, padded on the left."""
    ids = [torch.tensor(row) for row in rows]
    return {
        "input_ids": pad_rows(ids, fill, side="left"),
        "attention_mask": pad_rows([torch.ones_like(row) for row in ids], 0, side="left"),
    }


def _parts(message: Any) -> tuple[str, list[Any]]:
    content = message["content"]
    text = "".join(part["text"] for part in content if part["type"] == "text")
    return text, [part["image"] for part in content if part["type"] == "image"]
