"""TransformersAdapter: what the families with a native transformers class share.

A family says which auto class loads it, what its sites are called, and how its image tokens lie;
the rest is here (encode, forward, read out) and in `loaded` (load, skeleton, sites, description).
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch

from vlmlens.abc.adapter import Answer, Generation, Readout, Sharing
from vlmlens.errors import DataError
from vlmlens.hf.encoding import append_answers, padded_left, token_kinds
from vlmlens.hf.features import encode_same_images
from vlmlens.hf.layouts import PlacedImage, joined, placed_images, sequence_layout
from vlmlens.hf.loaded import LoadedModel
from vlmlens.hf.recurrent import carries_state, chunk_size, masks_one
from vlmlens.hf.shared import encode_beginnings, sees_all
from vlmlens.hf.towers import blocks_behind
from vlmlens.passes.batch import Batch, ForwardOutput, Logits
from vlmlens.samples import Sample, check_encodable
from vlmlens.sites import Axis
from vlmlens.tokens import AxisLayout, PatchGrid


class TransformersAdapter(LoadedModel):
    """Base of adapters over transformers classes.

    A subclass sets the class attributes and implements `patch_grid` and `image_layouts`.
    """

    images_per_sample: ClassVar[int | None] = None
    """How many images every sample must have; None: any number, none included."""
    image_tokens_placed: ClassVar[bool] = True
    """Whether each image token of the sequence stands for a place that `patch_grid` knows."""
    return_tensors: ClassVar[str | None] = "pt"
    """What the processor is asked for; None where it cannot stack images of several shapes."""
    shares_prefix: ClassVar[bool] = False
    """Whether samples on the same images may share their beginning: no token of the language
    model sees a later one, and images stand before the question."""
    shares_images: ClassVar[bool] = False
    """Whether the model takes image features in place of pixels (`mm_encoder_outputs`), with one
    entry per image, so that an image of several samples goes through the tower once."""
    reads_feature_layer: ClassVar[bool] = False
    """Whether the config's `vision_feature_layer` says which hidden states of the vision tower the
    model reads; a family that says it otherwise overrides `tower_states`."""

    @property
    def padding_side(self) -> str:
        """Where short rows are filled up; "right" where positions are counted from the left."""
        return "right" if self._carries_state else "left"

    @cached_property
    def _carries_state(self) -> bool:
        return carries_state(self.module)

    @property
    def image_mark(self) -> str:
        """What stands for an image in the templated text, before the processor sees it."""
        return str(self.tokenizer.convert_ids_to_tokens(self.image_token_id))

    @property
    def image_token_id(self) -> int:
        """The token id that stands where an image's features go."""
        return int(self.config.image_token_id)

    # ------------------------------------------------------------------ encode

    def encode(
        self, samples: Sequence[Sample], *, answers: Sequence[Answer] | None = None
    ) -> Batch:
        """See `ModelAdapter.encode`."""
        check_encodable(samples)
        images = self.open_images(samples)
        inputs = self.process([sample.prompt for sample in samples], images)
        appended = [self._written_ids(answer) for answer in answers] if answers else None
        if appended:
            inputs = self.with_answers(inputs, appended)
        layouts = self._layouts(inputs, placed_images(images, inputs), appended or ())
        return Batch(tuple(samples), self.placed(inputs), layouts)

    @property
    def tower_states(self) -> int | Sequence[int]:
        """Which of the vision tower's hidden states the model reads, as transformers numbers them.

        0 is what enters the first block, -1 what the last gives.
        """
        if not self.reads_feature_layer:
            return -1
        states: int | Sequence[int] = self.config.vision_feature_layer
        return states

    @property
    def unread(self) -> Sequence[str]:
        """See `ModelAdapter.unread`."""
        return blocks_behind(self.sites, self.tower_states)

    @property
    def shares(self) -> Sharing:
        """See `ModelAdapter.shares`."""
        if self.shares_prefix and sees_all(self, 1):
            return "beginnings"
        return "images" if self.shares_images else "nothing"

    def encode_shared(
        self, groups: Sequence[Sequence[Sample]], *, budget: int | None = None
    ) -> Batch | None:
        """See `ModelAdapter.encode_shared`: beginnings where that is exact, else images."""
        if not all(group[0].images for group in groups):
            return None
        found = encode_beginnings(self, groups) if self.shares_prefix else None
        if found is None and self.shares_images:
            return encode_same_images(self, groups, budget)
        return found

    def run_model(self, inputs: Mapping[str, Any], *, head: bool) -> None:
        """One forward pass for its activations; a family without an inner `model` overrides it.

        Args:
            inputs: Keyword arguments of forward.
            head: Whether the unembedding is to run too.
        """
        (self._module if head else self._module.model)(**inputs, use_cache=False)

    def tail_positions(self, places: torch.Tensor) -> torch.Tensor:
        """Position ids of what follows shared beginnings.

        Args:
            places: int64 `[groups, positions]`: how many tokens stand before each in its sample.
        """
        return places

    def prompt_text(self, sample: Sample) -> str:
        """A sample's prompt in the chat template, as text, each image as its placeholder."""
        message = {"role": "user", "content": _content(sample.prompt, sample.images)}
        text = self.processor.apply_chat_template(
            [message], tokenize=False, add_generation_prompt=True
        )
        return str(text)

    def placed(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs with their tensors on the model's device."""
        return {
            name: value.to(self.device) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        }

    def open_images(self, samples: Sequence[Sample]) -> list[list[Any]]:
        """Each sample's images, as many as the family takes.

        Raises:
            DataError: A sample has another number of images.
            ImageError: One cannot be read.
        """
        for sample in samples:
            if self.images_per_sample not in (None, len(sample.images)):
                raise DataError(
                    f"The sample {sample.id!r} has {len(sample.images)} images; "
                    f"{type(self._module).__name__} takes exactly {self.images_per_sample}.",
                    subject=sample.id,
                    hint="Leave such samples out, or choose another adapter.",
                )
        return [sample.open_images() for sample in samples]

    def process(self, prompts: Sequence[str], images: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """The processor's output for prompts with their images: keyword arguments of forward.

        The chat template is applied and tokenized in one step, so that no special token is added
        twice.
        """
        conversations = [
            [{"role": "user", "content": _content(prompt, group)}]
            for prompt, group in zip(prompts, images, strict=True)
        ]
        encoded = self.processor.apply_chat_template(
            conversations,
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            return_tensors=self.return_tensors,
            processor_kwargs={"padding": True, "padding_side": self.padding_side},
        )
        return dict(encoded)

    def with_answers(
        self, inputs: Mapping[str, Any], answers: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """The inputs with each sample's answer tokens where the model would write them."""
        return append_answers(inputs, answers, self.pad_token_id, side=self.padding_side)

    @abstractmethod
    def patch_grid(self, image: PlacedImage) -> PatchGrid | None:
        """Where the tokens of one image lie in it, in the order of the sequence.

        One entry per position that holds the image token's id. Separators that share that id
        have a NaN box; they count as special tokens, not as image tokens. None where it is not
        known; then `image_tokens_placed` is False.
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

    def sequence_layouts(
        self,
        inputs: Mapping[str, Any],
        grids: Sequence[PatchGrid | None],
        answer_lengths: Sequence[int],
    ) -> Mapping[Axis, AxisLayout]:
        """The layouts of the language side: one sequence that holds image, prompt and answer.

        Families override it that have two sequences.

        Args:
            inputs: The encoded batch.
            grids: The patch grid of each sample's images together, as `patch_grid` gave them.
            answer_lengths: Tokens of each sample's appended answer; empty without answers.
        """
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        kinds = token_kinds(ids, mask, self.image_token_id, self.special_ids, answer_lengths)
        known = grids if self.image_tokens_placed else None
        return {Axis.LLM: sequence_layout(ids, mask, kinds, known)}

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Token ids that stand for neither text nor image."""
        added = self.tokenizer.added_tokens_decoder
        marked = {number for number, token in added.items() if token.special}
        return frozenset(marked | set(self.tokenizer.all_special_ids)) - {self.image_token_id}

    @property
    def pad_token_id(self) -> int:
        """The id that fills up short rows; masked, so that its value never matters."""
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    # ------------------------------------------------------------------ forward

    def forward(self, batch: Batch, *, logits: Logits = "none") -> ForwardOutput:
        """See `ModelAdapter.forward`."""
        with torch.inference_mode():
            if logits == "none":
                self._module.model(**batch.inputs, use_cache=False)
                return ForwardOutput(None)
            if logits == "last":
                return ForwardOutput(self._last_logits(batch))
            return ForwardOutput(self._module(**batch.inputs, use_cache=False).logits)

    def _last_logits(self, batch: Batch) -> torch.Tensor:
        """Logits `[samples, tokens]` of each sample's last position; of few others, if possible."""
        rows = torch.tensor([int(sample.rows[-1]) for sample in batch.layouts[Axis.LLM].samples])
        places, which = torch.unique(rows % batch.inputs["input_ids"].shape[1], return_inverse=True)
        keep = self._logits_to_keep(places)
        logits: torch.Tensor = self._module(**batch.inputs, use_cache=False, **keep).logits
        if not keep:
            return logits.flatten(0, 1)[rows.to(logits.device)]
        return logits[torch.arange(len(rows)), which]

    def _logits_to_keep(self, places: torch.Tensor) -> dict[str, Any]:
        """How to ask the model for the logits of some positions; empty where it gives all."""
        accepted = inspect.signature(type(self._module).forward).parameters.get("logits_to_keep")
        if accepted is None:
            return {}
        if self.padding_side == "left":
            return {"logits_to_keep": 1}
        by_place = "Tensor" in str(accepted.annotation)
        return {"logits_to_keep": places.to(self.device)} if by_place else {}

    def generate(self, batch: Batch, *, max_new_tokens: int) -> list[Generation]:
        """See `ModelAdapter.generate`."""
        inputs = self._ending_together(batch.inputs)
        with torch.inference_mode():
            ids = self._module.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=self.pad_token_id,
            )
        return self.written(ids[:, inputs["input_ids"].shape[1] :])

    def _ending_together(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The inputs as `generate` of transformers takes them: what is written on stands last."""
        if self.padding_side == "left":
            return inputs
        alone = len(inputs["input_ids"]) == 1 and not masks_one(self.module)
        chunk = 1 if alone or not self._carries_state else chunk_size(self.module)
        return padded_left(inputs, self.pad_token_id, chunk)

    def written(self, new: torch.Tensor) -> list[Generation]:
        """Generated token ids as text.

        Args:
            new: int64 `[samples, steps]`; what stands after a token that ends a text is padding.
        """
        ends = _end_ids(self._module.generation_config)
        rows = [_until_end(row, ends) for row in new.tolist()]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [Generation(text, tuple(row)) for text, row in zip(texts, rows, strict=True)]

    # ------------------------------------------------------------------ readout

    def readout(self) -> Readout | None:
        """See `ModelAdapter.readout`."""
        sites = self.sites.canonical
        blocks = [name for name in sites if name.startswith("llm.block.")]
        norm = self.module.get_submodule(sites["llm.norm"].path)
        head = self.module.get_submodule(sites["llm.head"].path)
        return Readout(
            norm=lambda hidden: norm(_like(hidden, norm)),
            unembed=lambda hidden: self.scale_logits(head(_like(hidden, head))),
            site=max(blocks, key=lambda name: int(name.rpartition(".")[2])),
            some=self._unembed_some(head),
        )

    def _unembed_some(
        self, head: torch.nn.Module
    ) -> Callable[[torch.Tensor, slice | torch.Tensor], torch.Tensor] | None:
        """See `Readout.some`; None where the head is no plain linear layer, or is not loaded."""
        if type(head) is not torch.nn.Linear or head.weight.is_meta:
            return None

        def some(hidden: torch.Tensor, tokens: slice | torch.Tensor) -> torch.Tensor:
            bias = None if head.bias is None else head.bias[tokens]
            part = torch.nn.functional.linear(_like(hidden, head), head.weight[tokens], bias)
            return self.scale_logits(part)

        return some

    def scale_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """What the family does to the head's output before it calls it logits, one by one."""
        return logits

    def answer_ids(self, answer: str) -> list[int]:
        """See `ModelAdapter.answer_ids`.

        A space is put between prompt and answer unless the prompt ends in white space or in a
        special token.
        """
        head = self.processor.apply_chat_template(
            [{"role": "user", "content": _content("x", ())}],
            tokenize=False,
            add_generation_prompt=True,
        )
        before = self._plain_ids(head)
        glued = head[-1:].isspace() or (bool(before) and before[-1] in self.special_ids)
        text = answer if glued else f" {answer}"
        after = self._plain_ids(head + text)
        if after[: len(before)] == before:
            return after[len(before) :]
        return self._plain_ids(text)

    def _written_ids(self, answer: Answer) -> list[int]:
        return self.answer_ids(answer) if isinstance(answer, str) else list(answer)

    def _plain_ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `ModelAdapter.decode`."""
        text: str = self.tokenizer.decode(list(token_ids))
        return text


def _end_ids(settings: Any) -> set[int]:
    ends = settings.eos_token_id
    if ends is None:
        return set()
    return {ends} if isinstance(ends, int) else set(ends)


def _until_end(ids: list[int], ends: set[int]) -> list[int]:
    """The ids up to the first that ends a text, with it."""
    found = next((i + 1 for i, number in enumerate(ids) if number in ends), len(ids))
    return ids[:found]


def _content(prompt: str, images: Sequence[Any]) -> list[dict[str, Any]]:
    pictures = [{"type": "image", "image": image} for image in images]
    return [*pictures, {"type": "text", "text": prompt}]


def _like(hidden: torch.Tensor, module: torch.nn.Module) -> torch.Tensor:
    parameter = next(module.parameters())
    return hidden.to(parameter.device, parameter.dtype)
