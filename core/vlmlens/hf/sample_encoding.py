"""SampleEncoding: turns samples into the model's inputs and says where their tokens lie."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import torch

from vlmlens.abc.adapter import Answer
from vlmlens.errors import DataError
from vlmlens.hf.chat_template import FINISHED
from vlmlens.hf.frames import Frames, check_one_kind, parts, video_settings
from vlmlens.hf.layouts import PlacedImage, joined, placed_images, sequence_layout
from vlmlens.hf.prompt_processor import PromptProcessor
from vlmlens.hf.prompt_writing import PromptWriting
from vlmlens.hf.question_rows import with_names
from vlmlens.hf.recurrent import carries_state
from vlmlens.hf.token_ids import append_answers, ids_after, one_batch, token_kinds
from vlmlens.hf.virtual_rows import Room
from vlmlens.passes.batch import Batch
from vlmlens.passes.later import waits
from vlmlens.rows.uploads import pinned, uploaded
from vlmlens.samples import Sample, check_encodable
from vlmlens.sites import Axis
from vlmlens.tokens import AxisLayout, PatchGrid

_STRETCHED = frozenset({"linear", "dynamic"})
"""Rotary scalings by a factor beyond `max_position_embeddings`; of others, that is the limit."""
_MOST_ANSWERS = 4096
"""How many answers are kept with their ids."""


class SampleEncoding(PromptWriting):
    """The encoding half of an adapter: processor, chat template, tokens, layouts.

    `TransformersAdapter` adds forward and generate. `shared_prefix` and `shared_images` need only
    this half.
    """

    images_per_sample: ClassVar[int | None] = None
    """How many images every sample must have; None: any number, none included."""
    images_optional: ClassVar[bool] = False
    """Whether a sample may also have fewer images than `images_per_sample`, or none."""
    image_tokens_placed: ClassVar[bool] = True
    """Whether each image token of the sequence stands for a place that `patch_grid` knows."""
    return_tensors: ClassVar[str | None] = "pt"
    """The `return_tensors` of the processor; None if it cannot stack images of several shapes."""

    @property
    def unseen_text(self) -> str:
        """Characters of prompts that the model never sees."""
        return ""

    @property
    def padding_side(self) -> str:
        """Where short rows are padded; "right" if positions are counted from the left."""
        return "right" if self.carries_state else "left"

    @cached_property
    def carries_state(self) -> bool:
        """Whether a layer carries a state along the sequence; see `vlmlens.hf.recurrent`."""
        return carries_state(self.module)

    @property
    def pad_token_id(self) -> int:
        """The id that pads short rows; it is masked, so its value does not matter."""
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens: neither text nor image."""
        added = self.tokenizer.added_tokens_decoder
        marked = {number for number, token in added.items() if token.special}
        seen = {self.image_token_id, self.video_token_id}
        return frozenset(marked | set(self.tokenizer.all_special_ids)) - seen

    def encode(
        self, samples: Sequence[Sample], *, answers: Sequence[Answer] | None = None
    ) -> Batch:
        """See `ModelAdapter.encode`."""
        check_encodable(samples)
        images = self.open_images(samples)
        check_one_kind(samples, images)
        inputs = self.process(self.asked(samples), images)
        room = self._room(samples, images, inputs)
        inputs = room.made(inputs) if room else inputs
        appended = [self._written_ids(answer) for answer in answers] if answers else None
        if appended:
            inputs = self.with_answers(inputs, appended)
        self.check_lengths(samples, inputs)
        layouts = self._layouts(inputs, placed_images(images, inputs), appended or ())
        layouts = room.marked(layouts) if room else layouts
        named = with_names(self, layouts, samples, images)
        return Batch(tuple(samples), self.placed(inputs), named)

    def _room(
        self, samples: Sequence[Sample], images: Sequence[Any], inputs: Mapping[str, Any]
    ) -> Room | None:
        """Where the virtual tokens of the model's soft prompt stand; None if it has none."""
        prompt = self.soft_prompt
        if prompt is None:
            return None
        layouts = self._layouts(inputs, placed_images(images, inputs), ())
        named = with_names(self, layouts, samples, images)
        image, added = self.image_positions(inputs), self.tokenizer.added_tokens_decoder
        return Room.of(prompt.place, len(prompt), samples, named, image, added.keys())

    @property
    def context(self) -> int | None:
        """See `ModelAdapter.context`: what the language model's config says."""
        text = self.config.get_text_config()
        longest = getattr(text, "max_position_embeddings", None)
        scaling = getattr(text, "rope_parameters", None) or {}
        stretched = scaling.get("rope_type") in _STRETCHED
        factor = scaling.get("factor", 1) if stretched else 1
        return None if longest is None else int(longest * factor)

    def check_lengths(self, samples: Sequence[Sample], inputs: Mapping[str, Any]) -> None:
        """Raise if a sample has more tokens than the model can read.

        Raises:
            DataError: One has.
        """
        if self.context is None:
            return
        lengths = inputs["attention_mask"].sum(1).tolist()
        for sample, length in zip(samples, lengths, strict=True):
            if length > self.context:
                raise DataError(
                    f"The sample {sample.id!r} has {length} tokens; "
                    f"{type(self._module).__name__} reads {self.context}.",
                    subject=sample.id,
                    hint="Shorten the prompt, or take fewer frames of the video: --set frames=4."
                    if sample.video
                    else "Shorten the prompt, or give fewer or smaller images.",
                )

    def open_images(self, samples: Sequence[Sample]) -> list[list[Any]]:
        """The opened images of each sample; of a video, `Frames`, where the family takes videos.

        Raises:
            DataError: A sample has another number of images, or one has a video and another not.
            ImageError: One cannot be read.
        """
        most, kind = self.images_per_sample, "at most" if self.images_optional else "exactly"
        for sample in samples:
            found = len(sample.images)
            if most is not None and (found > most or (found < most and not self.images_optional)):
                raise DataError(
                    f"The sample {sample.id!r} has {found} images; "
                    f"{type(self._module).__name__} takes {kind} {most}.",
                    subject=sample.id,
                    hint="Leave such samples out, or choose another adapter.",
                )
        return [self.opened(sample) for sample in samples]

    def opened(self, sample: Sample) -> list[Any]:
        """The opened images of a sample; of a video, `Frames`, where the family takes videos.

        Raises:
            DataError: Its video cannot be used.
            ImageError: An image cannot be read.
        """
        images = sample.open_images()
        if problem := self.video_problem(sample):
            raise DataError(
                f"The sample {sample.id!r} cannot be used: {problem}.",
                subject=sample.id,
                hint="Give the video as a file, or say its fps, its total and more frames; or give "
                "the frames as several images, without `video`.",
            )
        return Frames.of(sample, images) if isinstance(self.shown(sample), Frames) else images

    @property
    def stacked_frames(self) -> tuple[str, int] | None:
        """The input that holds videos of one length each as a stack, and the axis of its frames.

        Videos of several lengths are put one after the other along it. None: lengths may differ.
        """
        return None

    def process(self, prompts: Sequence[str], images: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """The processor's output for prompts and their images: the model's keyword arguments."""
        lengths = {len(group) for group in images if isinstance(group, Frames)}
        if len(lengths) < 2 or self.stacked_frames is None:
            return self.processed(prompts, images)
        each = [self.processed([p], [g]) for p, g in zip(prompts, images, strict=True)]
        return one_batch(each, *self.stacked_frames, self.pad_token_id, side=self.padding_side)

    def processed(self, prompts: Sequence[str], images: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """See `process`: of images, or of videos of one length.

        transformers is given the finished text with the images, and tokenizes it as what its own
        template would have written, so that no special token is added twice.
        """
        pairs = list(zip(prompts, images, strict=True))
        if isinstance(self.processor, PromptProcessor):
            conversations = [
                [{"role": "user", "content": [*parts(group), {"type": "text", "text": prompt}]}]
                for prompt, group in pairs
            ]
            return dict(self.processor.apply_chat_template(conversations, tokenize=True))
        finished = [
            [{"role": "user", "content": parts(group), "rendered": self.templated(prompt, group)}]
            for prompt, group in pairs
        ]
        encoded = self.processor.apply_chat_template(
            finished,
            chat_template=FINISHED,
            tokenize=True,
            return_dict=True,
            return_tensors=self.return_tensors,
            processor_kwargs={
                "padding": True,
                "padding_side": self.padding_side,
                **video_settings(images),
            },
        )
        return dict(encoded)

    def placed(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs with their tensors on the model's device; within `for_later`, ready to go there.

        What runs a pass calls it again, which costs nothing if they are there.
        """
        move = pinned if waits() else uploaded
        return {
            name: move(value, self.device) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        }

    def place(self, batch: Batch) -> Batch:
        """See `ModelAdapter.place`."""
        return replace(batch, inputs=self.placed(batch.inputs))

    def with_answers(
        self, inputs: Mapping[str, Any], answers: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """The inputs with each sample's answer tokens appended where the model would write them."""
        return append_answers(inputs, answers, self.pad_token_id, side=self.padding_side)

    def answer_ids(self, answer: str) -> list[int]:
        """See `ModelAdapter.answer_ids`, and `ids_after` for what separates prompt and answer."""
        asked = (self.templated("x", ()), answer)
        if asked not in self._known_ids:
            if len(self._known_ids) >= _MOST_ANSWERS:
                self._known_ids.clear()
            found = ids_after(*asked, self._plain_ids, self.special_ids)
            self._known_ids[asked] = tuple(found)
        return list(self._known_ids[asked])

    @cached_property
    def _known_ids(self) -> dict[tuple[str, str], tuple[int, ...]]:
        """Of answers after the prompt's text: the same few choices are asked for at each sample."""
        return {}

    def _written_ids(self, answer: Answer) -> list[int]:
        return self.answer_ids(answer) if isinstance(answer, str) else list(answer)

    def _plain_ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `ModelAdapter.decode`."""
        text: str = self.tokenizer.decode(list(token_ids))
        return text

    @abstractmethod
    def patch_grid(self, image: PlacedImage) -> PatchGrid | None:
        """Where the tokens of one image lie in it, in the order of the sequence.

        One entry per image position. Separators among them get a NaN box and count as special
        tokens. None if the places are not known; then `image_tokens_placed` is False.
        """

    @abstractmethod
    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """The layouts of the vision and the projector axis.

        Args:
            images: The images of each sample.
            grids: The patch grid of each sample's images together, as `patch_grid` gave them.
        """

    def _layouts(
        self,
        inputs: Mapping[str, Any],
        images: Sequence[Sequence[PlacedImage]],
        answers: Sequence[Sequence[int]],
    ) -> dict[Axis, AxisLayout]:
        grids = [joined([self.patch_grid(image) for image in group]) for group in images]
        lengths = [len(answer) for answer in answers]
        layouts = dict(self.sequence_layouts(inputs, grids, lengths))
        layouts.update(self.image_layouts(images, grids))
        return layouts

    def image_positions(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """The positions that image features replace, bool `[samples, positions]`.

        A family overrides it if token types mark image positions, not a token id.
        """
        found: torch.Tensor = inputs["input_ids"] == self.image_token_id
        if self.video_token_id is not None:
            found = found | (inputs["input_ids"] == self.video_token_id)
        return found

    def sequence_layouts(
        self,
        inputs: Mapping[str, Any],
        grids: Sequence[PatchGrid | None],
        answer_lengths: Sequence[int],
    ) -> Mapping[Axis, AxisLayout]:
        """The layouts of the language side: one sequence that holds image, prompt and answer.

        Families with two sequences override it.

        Args:
            inputs: The encoded batch.
            grids: The patch grid of each sample's images together, as `patch_grid` gave them.
            answer_lengths: Tokens of each sample's appended answer; empty without answers.
        """
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        image = self.image_positions(inputs)
        kinds = token_kinds(ids, mask, image, self.special_ids, answer_lengths)
        known = grids if self.knows_places(grids) else None
        return {Axis.LLM: sequence_layout(ids, mask, kinds, known)}

    def knows_places(self, grids: Sequence[PatchGrid | None]) -> bool:
        """Whether the image tokens of a batch stand for the places in these grids."""
        del grids
        return self.image_tokens_placed

    def run_model(self, inputs: Mapping[str, Any], *, head: bool) -> None:
        """One forward pass for its activations. A family without an inner `model` overrides it.

        Args:
            inputs: Keyword arguments of forward.
            head: Whether the unembedding is to run too.
        """
        (self._module if head else self._module.model)(**inputs, use_cache=False)

    def tail_positions(self, places: torch.Tensor, beginning: Mapping[str, Any]) -> torch.Tensor:
        """Position ids of the tokens after a shared beginning.

        Args:
            places: int64 `[groups, positions]`: how many tokens precede each in its sample.
            beginning: The inputs of the beginnings.
        """
        del beginning
        return places
