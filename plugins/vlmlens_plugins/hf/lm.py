"""Any text-only checkpoint that transformers loads as a causal language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import transformers
from pydantic import Field
from torch.nn import Module, ModuleList
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from vlmlens.abc import options as base
from vlmlens.abc.adapter import LoadRequest, PromptReading
from vlmlens.errors import CheckpointError, DataError
from vlmlens.hf.layouts import PlacedImage
from vlmlens.samples import Sample
from vlmlens.sites import Axis, SiteTemplate
from vlmlens.sites.anatomy import Anatomy
from vlmlens.tokens import AxisLayout, PatchGrid
from vlmlens_plugins.hf._found import FoundSites
from vlmlens_plugins.hf._text_prompts import TextPrompts
from vlmlens_plugins.hf._tree import find_text_templates


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


class TextAdapter(FoundSites):
    """GPT-2, Pythia, Llama, Qwen, ... : the sites of a VLM's language model, without images."""

    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    Options: ClassVar[type[base.Options]] = TextOptions

    def __init__(self, module: Any, request: LoadRequest) -> None:
        super().__init__(module, request)
        for part in module.modules():
            if getattr(getattr(part, "config", None), "parallel_attn", False):
                _keep_output(getattr(part, "mlp", None))

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Refuse models that read images, encoder-decoders, and what is no language model.

        Raises:
            CheckpointError: The checkpoint is one.
        """
        own = getattr(config, "auto_map", None) or {}
        known = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or cls.auto_class in own
        if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            why, hint = "reads images", "Leave --adapter out; such models take text alone, too."
        elif not known:
            why = "is no causal language model that transformers knows"
            hint = "`vlmlens plugins list` shows the other adapters."
        elif config.is_encoder_decoder:
            why, hint = "is an encoder-decoder", "Choose a model that only continues its text."
        else:
            return
        raise CheckpointError(
            f"A model of type {config.model_type!r} {why}; the adapter 'lm' is for text-only "
            "models (AutoModelForCausalLM).",
            subject=config.model_type,
            hint=hint,
        )

    def found(self) -> Sequence[SiteTemplate]:
        """The canonical sites.

        Raises:
            CheckpointError: There is no stack of blocks, or no embedding.
        """
        templates = find_text_templates(self.module)
        names = {template.name for template in templates}
        lists = [n for n, m in self.module.named_modules() if isinstance(m, ModuleList)]
        for needed, what in (("llm.block.{i}", "stack of blocks"), ("llm.embed", "embedding")):
            if needed not in names:
                raise CheckpointError(
                    f"The {what} of {type(self.module).__name__} was not found. Expected: blocks "
                    "in a ModuleList, and what get_input_embeddings() gives among the modules. "
                    f"Its lists of modules: {', '.join(lists) or 'none'}.",
                    subject=type(self.module).__name__,
                    hint="An adapter of its own can name them: vlmlens new adapter NAME.",
                )
        return templates

    def anatomy(self) -> Anatomy:
        """The heads and the branches; without a final norm, blocks norm their sums (GPT-1)."""
        known = super().anatomy()
        normed = any(template.name == "llm.norm" for template in self.found())
        return known if normed else replace(known, branches={})

    # ------------------------------------------------------------------ prompts

    def read_processor(self, model: str, arguments: Mapping[str, Any]) -> TextPrompts:
        """See `LoadedModel.read_processor`: the tokenizer alone."""
        chosen = self.request.options
        chosen = chosen if isinstance(chosen, TextOptions) else TextOptions()
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, **arguments)
        return TextPrompts(tokenizer, model, chat=chosen.chat, bos=chosen.bos)

    def read_prompt(self, sample: Sample) -> PromptReading:
        """See `ModelAdapter.read_prompt`."""
        read = super().read_prompt(sample)
        if not read.problem and not sample.prompt.strip() and self.processor.empty(sample.prompt):
            return PromptReading("the prompt has no tokens")
        if read.problem or self.processor.chat or not sample.prompt[-1:].isspace():
            return read
        return PromptReading(note="it ends in white space, and answers begin with a space")

    @property
    def padding_side(self) -> str:
        """Right: absolute positions are counted from the left."""
        return "right"

    @property
    def pad_token_id(self) -> int:
        """The id that pads short rows; it is masked, so its value does not matter."""
        tokenizer = self.tokenizer
        known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        return next(int(each) for each in known if each is not None)

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
                    f"The sample {sample.id!r} has an image, and {type(self.module).__name__} "
                    "(adapter 'lm') reads text only.",
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

    # ------------------------------------------------------------------ running

    def run_model(self, inputs: Mapping[str, Any], *, head: bool) -> None:
        """See `SampleEncoding.run_model`."""
        (self._module if head else self._module.base_model)(**inputs, use_cache=False)

    def describe(self) -> dict[str, Any]:
        """See `ModelAdapter.describe`; with how prompts are written."""
        prompts = {"chat": self.processor.chat, "front": self.processor.front}
        without = {"image_processor": None, "image_backend": "none"}
        return {**super().describe(), **without, "prompts": prompts}


def _keep_output(module: Module | None) -> None:
    """Give what follows a copy of a module's output: Falcon adds to it in place."""
    if module is not None:
        module.register_forward_hook(lambda _, args, output: output.clone())
