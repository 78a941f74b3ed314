"""Prompts of text-only models: a chat template where there is one, else the plain text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from vlmlens.errors import CheckpointError, DataError
from vlmlens.hf.chat_template import render, template_of
from vlmlens.hf.prompt_processor import PromptProcessor
from vlmlens.hf.question_rows import STAND_IN
from vlmlens.hf.token_ids import pad_rows


class TextPrompts(PromptProcessor):
    """Writes and encodes prompts without images, padded on the right.

    Args:
        tokenizer: The checkpoint's tokenizer.
        model: Hub id or folder, named in errors.
        chat: Whether prompts are written in the chat template, if the tokenizer has one.
        bos: Whether the beginning-of-text token stands before plain text, even where the tokenizer
            does not put it there.
    """

    def __init__(self, tokenizer: Any, model: str, *, chat: bool, bos: bool) -> None:
        super().__init__(tokenizer, None)
        if not self.ids(STAND_IN):
            raise CheckpointError(
                f"The checkpoint {model!r} has no tokenizer: it reads no text at all.",
                subject=model,
                hint="Copy tokenizer.json and tokenizer_config.json into it.",
            )
        self._model, self._bos = model, bos
        self.chat = chat and bool(getattr(tokenizer, "chat_template", None))

    def text(self, question: str, images: Sequence[Any]) -> str:
        """See `PromptProcessor.text`."""
        del images
        if not self.chat:
            return question
        template = template_of(self.tokenizer, self._model)
        return render(template, question, self.tokenizer, self._model)

    def encoded(self, prompts: Sequence[tuple[str, list[Any]]]) -> dict[str, Any]:
        """See `PromptProcessor.encoded`; padded on the right, where positions stay as they are.

        Raises:
            DataError: A prompt has no tokens.
        """
        rows = [torch.tensor(self._row(*each), dtype=torch.long) for each in prompts]
        if not all(map(len, rows)):
            raise DataError("A prompt has no tokens.", hint="Write something, or leave it out.")
        return {
            "input_ids": pad_rows(rows, self.tokenizer.pad_token_id or 0, side="right"),
            "attention_mask": pad_rows([torch.ones_like(row) for row in rows], 0, side="right"),
        }

    def empty(self, question: str) -> bool:
        """Whether a prompt has no tokens at all."""
        return not self._row(question, ())

    def _row(self, question: str, images: Sequence[Any]) -> list[int]:
        return [*([] if self.chat else self.front), *self.ids(self.text(question, images))]

    @cached_property
    def front(self) -> list[int]:
        """The special tokens before plain text. Those that the tokenizer puts after it are not."""
        whole: list[int] = self.tokenizer(STAND_IN)["input_ids"]
        plain = self.ids(STAND_IN)
        front = next(
            (whole[:i] for i in range(len(whole)) if whole[i : i + len(plain)] == plain), []
        )
        first = self.tokenizer.bos_token_id
        return [first, *front] if self._bos and first is not None and first not in front else front
