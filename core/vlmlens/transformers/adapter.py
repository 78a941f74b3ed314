"""TransformersAdapter: what the families with a native transformers class share.

A family says which auto class loads it, what its sites are called, and how its image tokens lie;
the rest is here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
import transformers

from vlmlens.abc.adapter import Batch, ForwardOutput, LoadRequest, Logits, ModelAdapter, Readout
from vlmlens.errors import DataError, SpecError
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Rename, SiteMap, SiteTemplate
from vlmlens.tokens import AxisLayout, PatchGrid
from vlmlens.transformers.encoding import append_answers, token_kinds
from vlmlens.transformers.layouts import PlacedImage, joined, placed_images, sequence_layout
from vlmlens.transformers.loading import (
    checkpoint_identity,
    explained,
    hub_arguments,
    pick_device,
    pick_dtype,
    quiet,
)
from vlmlens.transformers.processors import image_backend, load_processor


class TransformersAdapter(ModelAdapter):
    """Base of adapters over transformers classes.

    A subclass sets the class attributes and implements `patch_grid` and `image_layouts`.

    Args:
        module: The model, on its device or on the meta device.
        request: What it was loaded from.
    """

    auto_class: ClassVar[str] = "AutoModelForImageTextToText"
    templates: ClassVar[Sequence[SiteTemplate]] = ()
    renames: ClassVar[Sequence[Rename]] = ()
    default_model: ClassVar[str | None] = None

    def __init__(self, module: Any, request: LoadRequest) -> None:
        self._module = module
        self.request = request

    @classmethod
    def load(cls, request: LoadRequest) -> Self:
        """See `ModelAdapter.load`."""
        model = cls.model_name(request)
        arguments = hub_arguments(request)
        device = pick_device(request.device)
        with explained(model), quiet():
            config = transformers.AutoConfig.from_pretrained(model, **arguments)
            arguments["dtype"] = pick_dtype(request.dtype, config, device)
            if request.device_map is not None:
                arguments["device_map"] = request.device_map
            if request.attention is not None:
                arguments["attn_implementation"] = request.attention
            module = getattr(transformers, cls.auto_class).from_pretrained(model, **arguments)
        if request.device_map is None:
            module = module.to(device)
        return cls(module.eval().requires_grad_(False), request)

    @classmethod
    def skeleton(cls, request: LoadRequest) -> Self:
        """See `ModelAdapter.skeleton`."""
        model = cls.model_name(request)
        with explained(model):
            config = transformers.AutoConfig.from_pretrained(model, **hub_arguments(request))
            with torch.device("meta"):
                module = getattr(transformers, cls.auto_class).from_config(
                    config, trust_remote_code=request.trust_remote_code
                )
        return cls(module, request)

    @classmethod
    def model_name(cls, request: LoadRequest) -> str:
        """The checkpoint that a request means.

        Raises:
            SpecError: It names none, and the family has no default.
        """
        model = request.model or cls.default_model
        if model is None:
            raise SpecError("No checkpoint was named.", hint="Give --model, a hub id or a folder.")
        return model

    @property
    def module(self) -> torch.nn.Module:
        """See `ModelAdapter.module`."""
        module: torch.nn.Module = self._module
        return module

    @property
    def config(self) -> Any:
        """The model's transformers config."""
        return self._module.config

    @cached_property
    def processor(self) -> Any:
        """The checkpoint's processor, loaded on first use."""
        model = self.model_name(self.request)
        with explained(model):
            return load_processor(model, hub_arguments(self.request))

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @cached_property
    def sites(self) -> SiteMap:
        """See `ModelAdapter.sites`."""
        paths = [name for name, _ in self.module.named_modules()]
        return SiteMap(self.templates, paths, self.renames)

    @property
    def padding_side(self) -> str:
        """Where short rows are filled up; "right" where positions are counted from the left."""
        return "left"

    @property
    def image_token_id(self) -> int:
        """The token id that stands where an image's features go."""
        return int(self.config.image_token_id)

    @property
    def device(self) -> torch.device:
        """Where inputs go; the CPU for a skeleton, so that `encode` works on it."""
        device: torch.device = self._module.device
        return torch.device("cpu") if device.type == "meta" else device

    @property
    def dtype(self) -> str:
        """See `ModelAdapter.dtype`."""
        dtype = self._module.dtype
        if self._module.device.type == "meta":
            picked = pick_dtype(self.request.dtype, self.config, pick_device(self.request.device))
            dtype = dtype if picked == "auto" else picked
        return str(dtype).removeprefix("torch.")

    # ------------------------------------------------------------------ encode

    def encode(self, samples: Sequence[Sample], *, answers: Sequence[str] | None = None) -> Batch:
        """See `ModelAdapter.encode`."""
        if not samples:
            raise DataError("There is no sample to encode.", hint="Give at least one.")
        images = [sample.open_images() for sample in samples]
        inputs = self.process([sample.prompt for sample in samples], images)
        appended = [self.answer_ids(answer) for answer in answers] if answers else None
        if appended:
            inputs = append_answers(inputs, appended, self.pad_token_id, side=self.padding_side)
        layouts = self._layouts(inputs, placed_images(images, inputs), appended or ())
        placed = {
            name: value.to(self.device) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        }
        return Batch(tuple(samples), placed, layouts)

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
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": self.padding_side},
        )
        return dict(encoded)

    @abstractmethod
    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        """Where the tokens of one image lie in it, in the order of the sequence.

        One entry per position that holds the image token's id. Separators that share that id
        have a NaN box; they count as special tokens, not as image tokens.
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
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        lengths = [len(answer) for answer in answers]
        kinds = token_kinds(ids, mask, self.image_token_id, self.special_ids, lengths)
        layouts = {Axis.LLM: sequence_layout(ids, mask, kinds, grids)}
        layouts.update(self.image_layouts(images, grids))
        return layouts

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Token ids that stand for neither text nor image."""
        return frozenset(self.tokenizer.all_special_ids) - {self.image_token_id}

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
            keep = {"logits_to_keep": 1} if self._last_is_enough(logits) else {}
            output = self._module(**batch.inputs, use_cache=False, **keep).logits
        if logits == "all":
            return ForwardOutput(output)
        if keep:
            return ForwardOutput(output[:, -1])
        last = [int(layout.rows[-1]) for layout in batch.layouts[Axis.LLM].samples]
        return ForwardOutput(output.flatten(0, 1)[last])

    def _last_is_enough(self, logits: Logits) -> bool:
        return logits == "last" and self.padding_side == "left"

    def generate(self, batch: Batch, *, max_new_tokens: int) -> list[str]:
        """See `ModelAdapter.generate`."""
        with torch.inference_mode():
            ids = self._module.generate(
                **batch.inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=self.pad_token_id,
            )
        new = ids[:, batch.inputs["input_ids"].shape[1] :]
        texts: list[str] = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts

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
        )

    def scale_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """What the family does to the head's output before it calls it logits."""
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

    def _plain_ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `ModelAdapter.decode`."""
        text: str = self.tokenizer.decode(list(token_ids))
        return text

    # ------------------------------------------------------------------ describe

    def describe(self) -> dict[str, Any]:
        """See `ModelAdapter.describe`."""
        return {
            "class": type(self._module).__name__,
            **checkpoint_identity(self.model_name(self.request), self.config),
            "dtype": self.dtype,
            "device": self.device.type,
            "attention": getattr(self.config, "_attn_implementation", None),
            "image_processor": type(self.processor.image_processor).__name__,
            "image_backend": image_backend(self.processor.image_processor),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def widths(self) -> Mapping[str, int]:
        """See `ModelAdapter.widths`: of linear layers, norms, embeddings, and canonical sites."""
        known = {name: _width(module) for name, module in self.module.named_modules()}
        widths = {name: width for name, width in known.items() if width is not None}
        widths.update(self.block_widths())
        return widths

    def block_widths(self) -> Mapping[str, int]:
        """Output width of the canonical sites, from the config."""
        text = self.config.get_text_config().hidden_size
        vision = getattr(getattr(self.config, "vision_config", None), "hidden_size", None)
        by_axis = {Axis.LLM: text, Axis.PROJECTOR: text, Axis.VISION: vision}
        return {
            site.path: by_axis[site.axis]
            for site in self.sites.canonical.values()
            if by_axis.get(site.axis) and site.name != "llm.head"
        }


def _content(prompt: str, images: Sequence[Any]) -> list[dict[str, Any]]:
    pictures = [{"type": "image", "image": image} for image in images]
    return [*pictures, {"type": "text", "text": prompt}]


def _like(hidden: torch.Tensor, module: torch.nn.Module) -> torch.Tensor:
    parameter = next(module.parameters())
    return hidden.to(parameter.device, parameter.dtype)


def _width(module: torch.nn.Module) -> int | None:
    for name in ("out_features", "embedding_dim", "out_channels"):
        width = getattr(module, name, None)
        if isinstance(width, int):
            return width
    weight = getattr(module, "weight", None)
    if isinstance(weight, torch.Tensor) and weight.dim() == 1:
        return weight.shape[0]
    return None
