"""PromptProcessor: what a transformers processor does, for families that have none there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from vlmlens.hf.token_ids import pad_rows


class PromptProcessor(ABC):
    """Makes prompts and tensors of conversations, each one message of the user.

    Args:
        tokenizer: The checkpoint's.
        image_processor: What makes pixel values.
    """

    def __init__(self, tokenizer: Any, image_processor: Any) -> None:
        self.tokenizer, self.image_processor = tokenizer, image_processor

    @abstractmethod
    def text(self, question: str, images: Sequence[Any]) -> str:
        """The whole prompt, with a placeholder where the family's prompts name an image."""

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
            settings: Of transformers' processors. They are not read: short rows are filled up on
                the left, and the beginning of the answer is always written.

        Returns:
            str, or what `encoded` gives.
        """
        del settings
        if not tokenize:
            return self.text(*_parts(conversations[0]))
        return self.encoded([_parts(message) for (message,) in conversations])

    def ids(self, text: str) -> list[int]:
        """The token ids of a text, without any that the tokenizer puts around it."""
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
