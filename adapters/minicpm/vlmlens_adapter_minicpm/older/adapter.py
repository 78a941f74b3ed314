"""MiniCPM-V 2, MiniCPM-V 2.6, MiniCPM-o 2.6: learned queries read the patches of slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from vlmlens.abc.adapter import Readout
from vlmlens.errors import CheckpointError
from vlmlens.hf import PlacedImage, joined
from vlmlens.hf.checkpoints import checkpoint_json
from vlmlens.hf.own_class import OwnClass
from vlmlens.hf.weights import StoredTensor, renamed, stored_weights
from vlmlens.sites import Axis, Rename, SiteTemplate
from vlmlens.tokens import AxisLayout, PatchGrid, TokenKind, TokenLayout
from vlmlens_adapter_minicpm.adapter import MiniCpmAdapter
from vlmlens_adapter_minicpm.older.chat import ChatProcessor, FirstChat, LaterChat
from vlmlens_adapter_minicpm.older.config import Generation, generation_of, sliced_config
from vlmlens_adapter_minicpm.older.images import SliceImages
from vlmlens_adapter_minicpm.older.model import IMAGE, MiniCpmSlicedForConditionalGeneration
from vlmlens_adapter_minicpm.older.slicing import Slicing
from vlmlens_adapter_minicpm.older.tokenizers import (
    END_OF_TEXT,
    END_OF_TURN,
    MARKS,
    fast_tokenizer,
    slow_tokenizer,
)

_LEFT_OUT = ("apm", "audio_projection_layer", "tts")
"""Parts of MiniCPM-o that hear and speak; images and text never reach them."""
_PREPROCESSOR = "preprocessor_config.json"
_SETTINGS = ("scale_resolution", "patch_size", "max_slice_nums")


class SlicedAdapter(OwnClass, MiniCpmAdapter):
    """The base of the older generations. Module paths are upstream's."""

    module_class: ClassVar[type[Any]] = MiniCpmSlicedForConditionalGeneration
    image_tokens_placed: ClassVar[bool] = False
    images_between: ClassVar[bool] = False
    templates: ClassVar[Sequence[SiteTemplate]] = (
        SiteTemplate("vision.block.{i}", ("vpm.blocks.{i}", "vpm.encoder.layers.{i}"), Axis.VISION),
        SiteTemplate("vision.norm", ("vpm.norm", "vpm.post_layernorm"), Axis.VISION),
        SiteTemplate("projector", ("resampler",), Axis.PROJECTOR),
        SiteTemplate("llm.embed", ("llm.model.embed_tokens",), Axis.LLM),
        SiteTemplate("llm.block.{i}", ("llm.model.layers.{i}",), Axis.LLM),
        SiteTemplate("llm.norm", ("llm.model.norm",), Axis.LLM),
        SiteTemplate("llm.head", ("llm.lm_head",), Axis.LLM),
    )
    renames: ClassVar[Sequence[Rename]] = (
        Rename(r"^(vpm\.blocks\.[^.]+\.mlp)\.act$", r"\1.activation_fn"),
    )

    @classmethod
    def native_config(
        cls, said: Mapping[str, Any], model: str, arguments: Mapping[str, Any]
    ) -> Any:
        """See `OwnClass.native_config`.

        Raises:
            CheckpointError: It is of another generation.
        """
        del arguments
        generation = generation_of(said, model)
        if generation is None or GENERATIONS[generation] is not cls:
            raise CheckpointError(
                f"{model!r} is not what {cls.__name__} reads.",
                subject=model,
                hint="MiniCpmAdapter chooses by the config.",
            )
        return sliced_config(said, generation, model)

    @classmethod
    def native_weights(
        cls, model: str, config: Any, arguments: Mapping[str, Any]
    ) -> Mapping[str, StoredTensor]:
        """See `OwnClass.native_weights`."""
        spoken = [rf"^{part}\." for part in _LEFT_OUT if config.generation == Generation.O26]
        return renamed(stored_weights(model, arguments), (), spoken)

    @classmethod
    def special_token_ids(
        cls, model: str, config: Any, arguments: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """See `OwnClass.special_token_ids`."""
        del config
        return {"eos_token_id": cls.ends(cls.read_tokenizer(model, arguments))}

    @classmethod
    def ends(cls, tokenizer: Any) -> list[int]:
        """Ids of the tokens that end a text."""
        return [int(tokenizer.eos_token_id)]

    @classmethod
    def read_tokenizer(cls, model: str, arguments: Mapping[str, Any]) -> Any:
        """The checkpoint's tokenizer."""
        raise NotImplementedError

    def read_processor(self, model: str, arguments: Mapping[str, Any]) -> Any:
        """See `LoadedModel.read_processor`."""
        return self.chat(self.read_tokenizer(model, arguments), model, arguments)

    def chat(self, tokenizer: Any, model: str, arguments: Mapping[str, Any]) -> ChatProcessor:
        """Make the processor."""
        raise NotImplementedError

    @property
    def image_token_id(self) -> int:
        """No id: image positions hold the id of the unknown token; token types mark them."""
        return -1

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """See `TransformersAdapter.special_ids`."""
        return super().special_ids | set(self.tokenizer.convert_tokens_to_ids(list(MARKS)))

    # ------------------------------------------------------------------ layouts

    def patch_grid(self, image: PlacedImage) -> PatchGrid | None:
        """None: a query reads a whole slice."""
        del image
        return None

    def image_positions(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """See `TransformersAdapter.image_positions`."""
        found: torch.Tensor = inputs["mm_token_type_ids"] == IMAGE
        return found

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`: slices, each filled up to the longest.

        Inside the resampler, `kv_proj` and `ln_kv` have a row per patch.
        """
        slicing = self.processor.image_processor.slicing
        cuts = [[slicing.cut(i.width, i.height) for i in group] for group in images]
        sizes = [[size for cut in group for size in cut.patches(slicing.patch)] for group in cuts]
        views = [
            joined([cut.views(i.image, slicing.patch) for i, cut in zip(group, cut_, strict=True)])
            for group, cut_ in zip(images, cuts, strict=True)
        ]
        counts = [[rows * columns for rows, columns in group] for group in sizes]
        tower = _filled_up(counts, views)
        queries = self.config.query_num
        read = _filled_up([[queries] * len(group) for group in counts], [None] * len(counts))
        return {Axis.VISION: tower, Axis.PROJECTOR: replace(read, others=(tower,))}

    # ------------------------------------------------------------------ forward

    def run_model(self, inputs: Mapping[str, Any], *, head: bool) -> None:
        """See `TransformersAdapter.run_model`."""
        (self._module if head else self._module.body)(**inputs, use_cache=False)

    def readout(self) -> Readout | None:
        """See `ModelAdapter.readout`; hidden states are divided before the head."""
        found = super().readout()
        divisor, plain = self.config.head_divisor, found.unembed if found else None
        if found is None or plain is None:
            return None
        some = found.some
        divided = None if some is None else lambda hidden, tokens: some(hidden / divisor, tokens)
        return replace(found, unembed=lambda hidden: plain(hidden / divisor), some=divided)

    def describe(self) -> dict[str, Any]:
        """See `ModelAdapter.describe`; also names the parts that are left out."""
        said = {**super().describe(), "generation": str(self.config.generation)}
        if self.config.generation == Generation.O26:
            said["left_out"] = list(_LEFT_OUT)
        return said


class MiniCpm2Adapter(SlicedAdapter):
    """MiniCPM-V 2: timm's SigLIP, a MiniCPM of 2 billion parameters."""

    images_per_sample: ClassVar[int | None] = 1
    images_optional: ClassVar[bool] = True

    @classmethod
    def read_tokenizer(cls, model: str, arguments: Mapping[str, Any]) -> Any:
        """See `SlicedAdapter.read_tokenizer`."""
        return slow_tokenizer(model, arguments)

    def chat(self, tokenizer: Any, model: str, arguments: Mapping[str, Any]) -> ChatProcessor:
        """See `SlicedAdapter.chat`."""
        del model, arguments
        config = self.config
        patch = config.vision_config.patch_size
        images = SliceImages(Slicing(config.scale_resolution, patch, config.max_slice_nums))
        return FirstChat(tokenizer, images, config.query_num)


class MiniCpm26Adapter(SlicedAdapter):
    """MiniCPM-V 2.6 and MiniCPM-o 2.6: a SigLIP of NaViT's kind, Qwen2."""

    @classmethod
    def ends(cls, tokenizer: Any) -> list[int]:
        """See `SlicedAdapter.ends`; the config's are not upstream's."""
        return [tokenizer.convert_tokens_to_ids(name) for name in (END_OF_TURN, END_OF_TEXT)]

    @classmethod
    def read_tokenizer(cls, model: str, arguments: Mapping[str, Any]) -> Any:
        """See `SlicedAdapter.read_tokenizer`."""
        return fast_tokenizer(model, arguments)

    def chat(self, tokenizer: Any, model: str, arguments: Mapping[str, Any]) -> ChatProcessor:
        """See `SlicedAdapter.chat`.

        Raises:
            CheckpointError: The settings for cutting images are missing or not known.
        """
        said = _preprocessor(model, arguments, self.config)
        slicing = Slicing(*(int(said[name]) for name in _SETTINGS))
        return LaterChat(
            tokenizer,
            SliceImages(slicing, said["norm_mean"], said["norm_std"]),
            self.config.query_num,
            numbered=said.get("use_image_id", True),
            unattended_id=self.unattended_id,
        )

    @property
    def unattended_id(self) -> int | None:
        """The token id that upstream masks out: 0, "!", in MiniCPM-V 2.6 alone."""
        return 0 if self.config.generation == Generation.V26 else None

    @property
    def unseen_text(self) -> str:
        """See `TransformersAdapter.unseen_text`."""
        return "" if self.unattended_id is None else self.decode([self.unattended_id])

    def describe(self) -> dict[str, Any]:
        """See `ModelAdapter.describe`."""
        return {**super().describe(), "unattended_id": self.unattended_id}


GENERATIONS: Mapping[Generation, type[SlicedAdapter]] = {
    Generation.V2: MiniCpm2Adapter,
    Generation.V26: MiniCpm26Adapter,
    Generation.O26: MiniCpm26Adapter,
}
"""Which adapter reads which generation."""


def _preprocessor(model: str, arguments: Mapping[str, Any], config: Any) -> dict[str, Any]:
    said = checkpoint_json(model, _PREPROCESSOR, arguments)
    if not said:
        raise CheckpointError(f"{model!r} has no {_PREPROCESSOR}.", subject=model)
    known = {"patch_size": config.vision_config.patch_size, "image_feature_size": config.query_num,
             "slice_mode": True}  # fmt: skip
    wrong = [f"{name} = {said.get(name)!r}" for name in known if said.get(name) != known[name]]
    lacking = [name for name in (*_SETTINGS, "norm_mean", "norm_std") if name not in said]
    if wrong or lacking:
        told = ([f"has {', '.join(wrong)}"] if wrong else []) + (
            [f"lacks {', '.join(lacking)}"] if lacking else []
        )
        raise CheckpointError(
            f"The {_PREPROCESSOR} of {model!r} {' and '.join(told)}.",
            subject=model,
            hint=f"With its config.json, it should have {known}.",
        )
    return said


def _filled_up(counts: Sequence[Sequence[int]], views: Sequence[PatchGrid | None]) -> AxisLayout:
    """The layout of `[slices, longest, width]`.

    Args:
        counts: Per sample and slice, its rows.
        views: The patch grid of each sample.
    """
    longest = max((count for group in counts for count in group), default=0)
    layouts, first = [], 0
    for group, grid in zip(counts, views, strict=True):
        starts = (first + np.arange(len(group))) * longest
        rows = [start + np.arange(count) for start, count in zip(starts, group, strict=True)]
        own = np.concatenate([np.zeros(0, np.int64), *rows])
        kinds = np.full(len(own), TokenKind.IMAGE, np.uint8)
        layouts.append(TokenLayout(own, kinds, patches=grid))
        first += len(group)
    return AxisLayout(first * longest, layouts)
