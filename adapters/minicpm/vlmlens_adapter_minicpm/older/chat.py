"""Prompts as upstream's `chat` writes them, with what a transformers processor does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image

from vlmlens.errors import DataError
from vlmlens.hf.token_ids import pad_rows
from vlmlens_adapter_minicpm.older.images import SliceImages
from vlmlens_adapter_minicpm.older.model import IMAGE
from vlmlens_adapter_minicpm.older.tokenizers import UNKNOWN


class ChatProcessor(ABC):
    """What a transformers processor does, for one of the older generations.

    Args:
        tokenizer: The checkpoint's.
        images: Makes pixels.
        query_num: Tokens that a slice becomes.
    """

    marks: ClassVar[Sequence[tuple[str, str]]]
    """What stands before and behind the tokens of a slice."""

    def __init__(self, tokenizer: Any, images: SliceImages, query_num: int) -> None:
        self.tokenizer, self.image_processor, self.query_num = tokenizer, images, query_num
        number = tokenizer.convert_tokens_to_ids
        self._before, self._behind = (
            torch.tensor([number(pair[i]) for pair in self.marks]) for i in (0, 1)
        )

    @abstractmethod
    def written(self, question: str, slots: Sequence[str]) -> str:
        """The whole prompt, with what stands for each image."""

    @abstractmethod
    def slot(self, number: int, grid: tuple[int, int] | None) -> str:
        """What stands for an image.

        Args:
            number: Of the image in its sample.
            grid: (columns, rows) of its slices, if it is cut.
        """

    def token_ids(self, text: str) -> list[int]:
        """The tokens of a whole prompt."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def apply_chat_template(
        self, conversations: Sequence[Any], *, tokenize: bool, **settings: Any
    ) -> Any:
        """The prompt of one conversation as text, or tensors of several conversations.

        Args:
            conversations: One message of the user each; without `tokenize`, its message itself.
            tokenize: Whether tensors are wanted.
            settings: Of transformers' processors; `padding_side` is read of `processor_kwargs`.

        Returns:
            str, or int64 `input_ids`, `attention_mask` and `mm_token_type_ids` `[samples,
            positions]` and, where there are images, what `SliceImages` gives.

        Raises:
            DataError: A prompt holds marks of images itself.
        """
        if not tokenize:
            question, images = _parts(conversations[0])
            return self.written(question, [self.slot(i, None) for i in range(len(images))])
        parts = [_parts(message) for (message,) in conversations]
        ids = [torch.tensor(self.token_ids(self._prompt(*part))) for part in parts]
        types = [self._types(row, *part) for row, part in zip(ids, parts, strict=True)]
        side = settings.get("processor_kwargs", {}).get("padding_side", "left")
        mask = [torch.ones_like(row) for row in ids]
        images = [image for _, group in parts for image in group]
        return {
            "input_ids": pad_rows(ids, self.tokenizer.pad_token_id, side=side),
            "attention_mask": pad_rows(mask, 0, side=side),
            "mm_token_type_ids": pad_rows(types, 0, side=side),
            **(self.image_processor(images) if images else {}),
        }

    def _prompt(self, question: str, images: Sequence[Image.Image]) -> str:
        cut = self.image_processor.slicing.cut
        grids = [cut(image.width, image.height).grid for image in images]
        return self.written(question, [self.slot(i, grid) for i, grid in enumerate(grids)])

    def _types(
        self, ids: torch.Tensor, question: str, images: Sequence[Image.Image]
    ) -> torch.Tensor:
        """int64 `[positions]`, 1 where a token of an image goes."""
        slicing = self.image_processor.slicing
        cuts = [slicing.cut(image.width, image.height) for image in images]
        slices = sum(len(cut.patches(slicing.patch)) for cut in cuts)
        begins, ends = (
            torch.isin(ids, marks).nonzero()[:, 0].tolist()
            for marks in (self._before, self._behind)
        )
        if len(begins) != slices or ends != [first + self.query_num + 1 for first in begins]:
            raise DataError(
                f"The prompt {question[:60]!r} holds tokens that mark images.",
                subject=question,
                hint="Images are put before it by themselves; take the marks out.",
            )
        types = torch.zeros_like(ids)
        for first, last in zip(begins, ends, strict=True):
            types[first + 1 : last] = IMAGE
        return types

    def _filled(self, mark: tuple[str, str]) -> str:
        return mark[0] + UNKNOWN * self.query_num + mark[1]


class FirstChat(ChatProcessor):
    """MiniCPM-V 2: `<slice>` stands around all slices of an image."""

    marks = (("<image>", "</image>"),)

    def written(self, question: str, slots: Sequence[str]) -> str:
        """See `ChatProcessor.written`."""
        before = "".join(f"{slot}\n" for slot in slots)
        return f"<用户>{before}{question}<AI>"

    def slot(self, number: int, grid: tuple[int, int] | None) -> str:
        """See `ChatProcessor.slot`."""
        del number
        one = self._filled(self.marks[0])
        if grid is None:
            return one
        columns, rows = grid
        return f"{one}<slice>" + "\n".join([one * columns] * rows) + "</slice>"

    def token_ids(self, text: str) -> list[int]:
        """See `ChatProcessor.token_ids`; a text begins with a token of its own."""
        return [int(self.tokenizer.bos_token_id), *super().token_ids(text)]


class LaterChat(ChatProcessor):
    """MiniCPM-V 2.6 and MiniCPM-o 2.6: images are numbered, `<slice>` stands around each slice.

    Args:
        tokenizer: As `ChatProcessor` has it; this and the next two.
        images: Likewise.
        query_num: Likewise.
        numbered: Whether images are numbered.
        unattended_id: A token id that no token attends to, if there is one.
    """

    marks = (("<image>", "</image>"), ("<slice>", "</slice>"))

    def __init__(
        self,
        tokenizer: Any,
        images: SliceImages,
        query_num: int,
        *,
        numbered: bool,
        unattended_id: int | None,
    ) -> None:
        super().__init__(tokenizer, images, query_num)
        self.numbered, self.unattended_id = numbered, unattended_id

    def written(self, question: str, slots: Sequence[str]) -> str:
        """See `ChatProcessor.written`."""
        message = {"role": "user", "content": "\n".join([*slots, question])}
        text: str = self.tokenizer.apply_chat_template(
            [message], tokenize=False, add_generation_prompt=True
        )
        return text

    def slot(self, number: int, grid: tuple[int, int] | None) -> str:
        """See `ChatProcessor.slot`."""
        whole, part = (self._filled(mark) for mark in self.marks)
        columns, rows = grid or (0, 0)
        named = f"<image_id>{number}</image_id>" if self.numbered else ""
        return named + whole + "\n".join([part * columns] * rows)

    def apply_chat_template(
        self, conversations: Sequence[Any], *, tokenize: bool, **settings: Any
    ) -> Any:
        """See `ChatProcessor.apply_chat_template`.

        Where a token id is not attended to, `unattended` `[samples, positions]` says where it is.
        """
        made = super().apply_chat_template(conversations, tokenize=tokenize, **settings)
        if not tokenize or self.unattended_id is None:
            return made
        hidden = (made["input_ids"] == self.unattended_id).long()
        return {**made, "unattended": hidden * made["attention_mask"]}


def _parts(message: Mapping[str, Any]) -> tuple[str, list[Any]]:
    content = message["content"]
    text = "".join(part["text"] for part in content if part["type"] == "text")
    return text, [part["image"] for part in content if part["type"] == "image"]
