"""Prompts as upstream's `chat` writes them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from PIL import Image

from vlmlens.errors import DataError
from vlmlens.hf.chat_template import render, template_of
from vlmlens.hf.prompt_processor import PromptProcessor, padded
from vlmlens_adapter_minicpm.older.images import SliceImages
from vlmlens_adapter_minicpm.older.model import IMAGE
from vlmlens_adapter_minicpm.older.tokenizers import UNKNOWN


class ChatProcessor(PromptProcessor):
    """The prompts of one of the older generations.

    Args:
        tokenizer: The checkpoint's.
        images: Makes pixels.
        query_num: Tokens that a slice becomes.
    """

    marks: ClassVar[Sequence[tuple[str, str]]]
    """What stands before and behind the tokens of a slice."""

    def __init__(self, tokenizer: Any, images: SliceImages, query_num: int) -> None:
        super().__init__(tokenizer, images)
        self.query_num = query_num
        number = tokenizer.convert_tokens_to_ids
        self._before, self._behind = ({number(pair[i]) for pair in self.marks} for i in (0, 1))

    @abstractmethod
    def written(self, question: str, slots: Sequence[str]) -> str:
        """The whole prompt, with the placeholder of each image."""

    @abstractmethod
    def slot(self, number: int, grid: tuple[int, int] | None) -> str:
        """The placeholder of an image.

        Args:
            number: Of the image in its sample.
            grid: (columns, rows) of its slices, if it is cut.
        """

    def token_ids(self, text: str) -> list[int]:
        """The tokens of a whole prompt."""
        return self.ids(text)

    def text(self, question: str, images: Sequence[Any]) -> str:
        """See `PromptProcessor.text`."""
        return self.written(question, [self.slot(i, None) for i in range(len(images))])

    def encoded(self, prompts: Sequence[tuple[str, list[Any]]]) -> dict[str, Any]:
        """See `PromptProcessor.encoded`.

        Returns:
            int64 `input_ids`, `attention_mask` and `mm_token_type_ids` `[samples, positions]` and,
            where there are images, what `SliceImages` gives.

        Raises:
            DataError: A prompt holds marks of images itself.
        """
        ids = [self.token_ids(self._prompt(*prompt)) for prompt in prompts]
        types = [self._types(row, *prompt) for row, prompt in zip(ids, prompts, strict=True)]
        images = [image for _, shown in prompts for image in shown]
        return {
            **padded(ids, self.tokenizer.pad_token_id),
            "mm_token_type_ids": padded(types, 0)["input_ids"],
            **(self.image_processor(images) if images else {}),
        }

    def _prompt(self, question: str, images: Sequence[Image.Image]) -> str:
        cut = self.image_processor.slicing.cut
        grids = [cut(image.width, image.height).grid for image in images]
        return self.written(question, [self.slot(i, grid) for i, grid in enumerate(grids)])

    def _types(self, ids: Sequence[int], question: str, images: Sequence[Image.Image]) -> list[int]:
        """1 at image positions, else 0."""
        slicing = self.image_processor.slicing
        cuts = [slicing.cut(image.width, image.height) for image in images]
        slices = sum(len(cut.patches(slicing.patch)) for cut in cuts)
        begins, ends = (
            [i for i, number in enumerate(ids) if number in marks]
            for marks in (self._before, self._behind)
        )
        if len(begins) != slices or ends != [first + self.query_num + 1 for first in begins]:
            raise DataError(
                f"The prompt {question[:60]!r} holds tokens that mark images.",
                subject=question,
                hint="Images are put before it by themselves; take the marks out.",
            )
        image = {i for first in begins for i in range(first + 1, first + self.query_num + 1)}
        return [IMAGE if i in image else 0 for i in range(len(ids))]

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
        tokenizer: See `ChatProcessor`, also for the next two.
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
        model = self.tokenizer.name_or_path
        template = template_of(self.tokenizer, model)
        return render(template, "\n".join([*slots, question]), self.tokenizer, model)

    def slot(self, number: int, grid: tuple[int, int] | None) -> str:
        """See `ChatProcessor.slot`."""
        whole, part = (self._filled(mark) for mark in self.marks)
        columns, rows = grid or (0, 0)
        named = f"<image_id>{number}</image_id>" if self.numbered else ""
        return named + whole + "\n".join([part * columns] * rows)

    def encoded(self, prompts: Sequence[tuple[str, list[Any]]]) -> dict[str, Any]:
        """See `ChatProcessor.encoded`.

        Adds `unattended` `[samples, positions]`, 1 at a token id that is never attended to.
        """
        made = super().encoded(prompts)
        if self.unattended_id is None:
            return made
        hidden = (made["input_ids"] == self.unattended_id).long()
        return {**made, "unattended": hidden * made["attention_mask"]}
