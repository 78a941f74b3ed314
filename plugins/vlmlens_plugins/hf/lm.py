"""Any text-only checkpoint that transformers loads as a causal language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import transformers
from pydantic import Field

from vlmlens.abc import options as base
from vlmlens.errors import DataError
from vlmlens.hf import PlacedImage, TransformersAdapter
from vlmlens.samples import Sample
from vlmlens.sites import Axis, SiteMap, read_anatomy
from vlmlens.tokens import AxisLayout, PatchGrid
from vlmlens_plugins.hf._text_prompts import TextPrompts
from vlmlens_plugins.hf._tree import find_templates


class TextOptions(base.Options):
    """How prompts are written."""

    chat: bool = Field(
        True,
        description="Write prompts in the chat template, if the tokenizer has one; false: as plain "
        "text.",
    )
    bos: bool = Field(
        True,
        description="Put the beginning-of-text token before plain text even where the tokenizer "
        "does not (GPT-2, Pythia); false: as the tokenizer does.",
    )


class TextAdapter(TransformersAdapter):
    """GPT-2, Pythia, Llama, Qwen, ... : the sites of a VLM's language model, without images."""

    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    Options: ClassVar[type[base.Options]] = TextOptions

    @cached_property
    def sites(self) -> SiteMap:
        """See `ModelAdapter.sites`."""
        paths = [name for name, _ in self.module.named_modules()]
        return SiteMap(find_templates(self.module), paths, self.renames, read_anatomy(self.module))

    def read_processor(self, model: str, arguments: Mapping[str, Any]) -> TextPrompts:
        """See `LoadedModel.read_processor`: the tokenizer alone."""
        chosen = self.request.options
        chosen = chosen if isinstance(chosen, TextOptions) else TextOptions()
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, **arguments)
        return TextPrompts(tokenizer, model, chat=chosen.chat, bos=chosen.bos)

    @property
    def padding_side(self) -> str:
        """Right: absolute positions are counted from the left."""
        return "right"

    @property
    def image_token_id(self) -> int:
        """No token."""
        return -1

    def open_images(self, samples: Sequence[Sample]) -> list[list[Any]]:
        """See `SampleEncoding.open_images`: there are none.

        Raises:
            DataError: A sample has images.
        """
        for sample in samples:
            if sample.images:
                raise DataError(
                    f"The sample {sample.id!r} has {len(sample.images)} images, and the adapter "
                    "'lm' is for models that read text only.",
                    subject=sample.id,
                    hint="Use data without images, or a model that reads them.",
                )
        return [[] for _ in samples]

    def patch_grid(self, image: PlacedImage) -> PatchGrid | None:
        """None: there are no images."""
        del image
        return None

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """Empty: there are no images."""
        del images, grids
        return {}

    def run_model(self, inputs: Mapping[str, Any], *, head: bool) -> None:
        """See `SampleEncoding.run_model`."""
        (self._module if head else self._module.base_model)(**inputs, use_cache=False)
