"""TransformersAdapter: the base of families with a native transformers class.

A family says which auto class loads it, what its sites are called, and how its image tokens lie.
Loading is in `loaded_model`, encoding in `sample_encoding`; running the model is here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from vlmlens.abc.adapter import Generation, Readout, Sharing
from vlmlens.abc.editable import Edits
from vlmlens.hf.frames import Frames
from vlmlens.hf.recurrent import chunk_size, masks_one
from vlmlens.hf.sample_encoding import SampleEncoding
from vlmlens.hf.shared_images import encode_same_images
from vlmlens.hf.shared_prefix import encode_beginnings, sees_all
from vlmlens.hf.token_ids import padded_left
from vlmlens.passes.batch import Batch, ForwardOutput, Logits
from vlmlens.passes.modes import inference
from vlmlens.samples import Sample
from vlmlens.sites import Axis, SiteMap


class TransformersAdapter(SampleEncoding):
    """Base of adapters over transformers classes.

    A subclass sets the class attributes and implements `patch_grid` and `image_layouts`.
    """

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
    def tower_states(self) -> int | Sequence[int]:
        """The hidden states of the vision tower that the model reads, numbered as in transformers.

        0 is the input of the first block, -1 the output of the last.
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
        """See `ModelAdapter.encode_shared`: shares beginnings where that is exact, else images.

        Samples with a video share a beginning, or nothing.
        """
        shown = [self.shown(group[0]) for group in groups]
        videos = [isinstance(each, Frames) for each in shown]
        if not all(shown) or (any(videos) and not all(videos)):
            return None
        found = encode_beginnings(self, groups) if self.shares_prefix else None
        if found is None and self.shares_images and not any(videos):
            return encode_same_images(self, groups, budget)
        return found

    def forward(self, batch: Batch, *, logits: Logits = "none") -> ForwardOutput:
        """See `ModelAdapter.forward`."""
        with inference():
            if logits == "none":
                self.run_model(batch.inputs, head=False)
                return ForwardOutput(None)
            if logits == "last":
                return ForwardOutput(self._last_logits(batch))
            return ForwardOutput(self._module(**batch.inputs, use_cache=False).logits)

    def _last_logits(self, batch: Batch) -> torch.Tensor:
        """Logits `[samples, tokens]` of each sample's last position, computing few others."""
        rows = torch.tensor([int(sample.rows[-1]) for sample in batch.layouts[Axis.LLM].samples])
        places, which = torch.unique(rows % batch.inputs["input_ids"].shape[1], return_inverse=True)
        keep = self._logits_to_keep(places)
        logits: torch.Tensor = self._module(**batch.inputs, use_cache=False, **keep).logits
        if not keep:
            return logits.flatten(0, 1)[rows.to(logits.device)]
        return logits[torch.arange(len(rows)), which]

    def _logits_to_keep(self, places: torch.Tensor) -> dict[str, Any]:
        """Arguments that ask the model for logits of some positions; empty if it returns all."""
        accepted = inspect.signature(type(self._module).forward).parameters.get("logits_to_keep")
        if accepted is None:
            return {}
        if self.padding_side == "left":
            return {"logits_to_keep": 1}
        by_place = "Tensor" in str(accepted.annotation)
        return {"logits_to_keep": places.to(self.device)} if by_place else {}

    def generate(self, batch: Batch, *, max_new_tokens: int, edits: Edits = ()) -> list[Generation]:
        """See `ModelAdapter.generate`."""
        inputs = self._ending_together(batch.inputs)
        ids = self.generated_ids(inputs, max_new_tokens)
        return self.written(ids[:, inputs["input_ids"].shape[1] :])

    def generated_ids(self, inputs: Mapping[str, Any], max_new_tokens: int) -> torch.Tensor:
        """Token ids of greedy generation with the prompt, int64 `[samples, positions]`."""
        with torch.inference_mode():
            ids: torch.Tensor = self._module.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=self.pad_token_id,
            )
        return ids

    def _ending_together(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The inputs as transformers' `generate` takes them: every row ends with a token."""
        if self.padding_side == "left":
            return inputs
        alone = len(inputs["input_ids"]) == 1 and not masks_one(self.module)
        chunk = 1 if alone or not self.carries_state else chunk_size(self.module)
        return padded_left(inputs, self.pad_token_id, chunk)

    def written(self, new: torch.Tensor) -> list[Generation]:
        """Generated token ids as text.

        Args:
            new: int64 `[samples, steps]`; everything after an end token is padding.
        """
        ends = _end_ids(self._module.generation_config)
        rows = [_until_end(row, ends) for row in new.tolist()]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [Generation(text, tuple(row)) for text, row in zip(texts, rows, strict=True)]

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
        """See `Readout.some`; None if the head is not a plain linear layer, or is not loaded."""
        if type(head) is not torch.nn.Linear or head.weight.is_meta:
            return None

        def some(hidden: torch.Tensor, tokens: slice | torch.Tensor) -> torch.Tensor:
            bias = None if head.bias is None else head.bias[tokens]
            part = torch.nn.functional.linear(_like(hidden, head), head.weight[tokens], bias)
            return self.scale_logits(part)

        return some

    def scale_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn the head's output into logits, value by value; most families change nothing."""
        return logits


def blocks_behind(sites: SiteMap, states: int | Sequence[int]) -> tuple[str, ...]:
    """Names of the vision blocks after the last hidden state that the model reads.

    Args:
        sites: The model's sites.
        states: Numbers of hidden states: 0 is the input of the first block, -1 the last output.

    >>> from vlmlens.sites import Axis, SiteTemplate
    >>> template = SiteTemplate("vision.block.{i}", ("layers.{i}",), Axis.VISION)
    >>> tower = SiteMap([template], [f"layers.{i}" for i in range(4)])
    >>> blocks_behind(tower, -2), blocks_behind(tower, [1, 2]), blocks_behind(tower, -1)
    (('vision.block.3',), ('vision.block.2', 'vision.block.3'), ())
    """
    names = [f"vision.block.{i}" for i in range(len(sites.canonical))]
    blocks = [name for name in names if name in sites.canonical]
    numbers = [states] if isinstance(states, int) else list(states)
    read = max(state % (len(blocks) + 1) for state in numbers)
    return tuple(blocks[read:])


def _end_ids(settings: Any) -> set[int]:
    ends = settings.eos_token_id
    if ends is None:
        return set()
    return {ends} if isinstance(ends, int) else set(ends)


def _until_end(ids: list[int], ends: set[int]) -> list[int]:
    """The ids up to and including the first end token."""
    found = next((i + 1 for i, number in enumerate(ids) if number in ends), len(ids))
    return ids[:found]


def _like(hidden: torch.Tensor, module: torch.nn.Module) -> torch.Tensor:
    parameter = next(module.parameters(), None)
    return hidden if parameter is None else hidden.to(parameter.device, parameter.dtype)
