"""LoadedModel: a transformers model and its processor, from a checkpoint or its config alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import transformers

from vlmlens.abc.adapter import LoadRequest, ModelAdapter
from vlmlens.errors import CheckpointError, SpecError
from vlmlens.hf.adapter_weights import refuse_adapters
from vlmlens.hf.checkpoints import (
    check_complete,
    checkpoint_file,
    checkpoint_identity,
    checkpoint_json,
    damaged,
    explained,
    quiet,
)
from vlmlens.hf.cuda_settings import cuda_settings, keep_precision
from vlmlens.hf.load_options import (
    check_autocast,
    compute_in,
    hub_arguments,
    pick_device,
    pick_dtype,
    quantization_config,
)
from vlmlens.hf.processors import image_backend, load_processor
from vlmlens.sites import Axis, Rename, SiteMap, SiteTemplate, read_anatomy


class LoadedModel(ModelAdapter):
    """The loading half of an adapter: weights, module tree, sites, description.

    Args:
        module: The model, on its device or on the meta device.
        request: What to load, and how.
    """

    auto_class: ClassVar[str] = "AutoModelForImageTextToText"
    templates: ClassVar[Sequence[SiteTemplate]] = ()
    renames: ClassVar[Sequence[Rename]] = ()
    default_model: ClassVar[str | None] = None
    image_processor_class: ClassVar[type[Any] | None] = None
    """Makes the pixel values where torchvision is missing and transformers needs it."""
    video_processors: ClassVar[Mapping[str, str]] = {}
    """By model type, the class of transformers that makes the tensors of videos: only where what
    the model then reads is known and checked. Other models read frames as several images."""

    def __init__(self, module: Any, request: LoadRequest) -> None:
        self._module = module
        self.request = request

    @classmethod
    def load(cls, request: LoadRequest) -> Self:
        """See `ModelAdapter.load`."""
        model = cls.model_name(request)
        arguments = cls.arguments(request)
        device = pick_device(request.device)
        with explained(model, request.attention), quiet():
            refuse_adapters(model, arguments)
            with damaged(model):
                config = cls.read_config(model, arguments)
            cls.check_config(config)
            arguments["dtype"] = pick_dtype(request.dtype, config, device)
            if request.quantization is not None:
                arguments["quantization_config"] = quantization_config(
                    request.quantization, arguments["dtype"]
                )
                arguments["device_map"] = {"": device}
            if request.device_map is not None:
                arguments["device_map"] = request.device_map
            if request.attention is not None:
                arguments["attn_implementation"] = request.attention
            with damaged(model):
                module = cls.read_module(model, config, arguments)
        if request.quantization is not None and not getattr(module, "is_quantized", False):
            raise CheckpointError(
                f"The checkpoint {model!r} was not quantized to {request.quantization}.",
                subject=model,
                hint="Its layout cannot be quantized while loading; leave --quantization out.",
            )
        if "device_map" not in arguments:
            module = module.to(device)
        if request.autocast is not None:
            compute_in(module, request.autocast, module.device.type)
        keep_precision(module.dtype, module.device)
        return cls(module.eval().requires_grad_(False), request)

    @classmethod
    def skeleton(cls, request: LoadRequest) -> Self:
        """See `ModelAdapter.skeleton`."""
        model = cls.model_name(request)
        if request.quantization is not None:
            quantization_config(request.quantization)
        check_autocast(request.autocast, pick_device(request.device).type)
        with explained(model, request.attention):
            refuse_adapters(model, hub_arguments(request))
            with damaged(model):
                config = cls.read_config(model, cls.arguments(request))
            cls.check_config(config)
            if request.attention is not None:
                config._attn_implementation = request.attention
            with damaged(model), torch.device("meta"):
                module = cls.empty_module(config, request)
        return cls(module, request)

    @classmethod
    def arguments(cls, request: LoadRequest) -> dict[str, Any]:
        """Keyword arguments of every `from_pretrained`, given to `read_config` and `read_module`.

        A family can add options here that change what is read; it must remove them again before
        it calls transformers.
        """
        return hub_arguments(request)

    @classmethod
    def checkpoint_config(cls, request: LoadRequest) -> dict[str, Any]:
        """See `ModelAdapter.checkpoint_config`."""
        model = cls.model_name(request)
        with explained(model):
            refuse_adapters(model, hub_arguments(request))
            said = checkpoint_json(model, "config.json", hub_arguments(request))
            if not said and not Path(model).is_dir():
                checkpoint_file(model, "config.json", hub_arguments(request), needed=True)
            return said

    @classmethod
    def empty_module(cls, config: Any, request: LoadRequest) -> Any:
        """The model of a config, without weights. A family with its own class overrides it.

        Args:
            config: From `read_config`.
            request: What to load.
        """
        return getattr(transformers, cls.auto_class).from_config(
            config, trust_remote_code=request.trust_remote_code
        )

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Raise if a package is missing that the checkpoint needs. Called before the model is made.

        Raises:
            MissingDependency: It needs a package that is not installed.
        """
        del config

    @classmethod
    def read_config(cls, model: str, arguments: Mapping[str, Any]) -> Any:
        """The transformers config of a checkpoint. A family with its own file layout overrides it.

        Args:
            model: Hub id or folder.
            arguments: For every `from_pretrained`.
        """
        return transformers.AutoConfig.from_pretrained(model, **arguments)

    @classmethod
    def read_module(cls, model: str, config: Any, arguments: Mapping[str, Any]) -> Any:
        """The model with its weights. A family with its own file layout overrides it.

        Args:
            model: Hub id or folder.
            config: From `read_config`.
            arguments: For `from_pretrained`: dtype, device map, attention, revision.

        Raises:
            CheckpointError: Weights are missing. (transformers would initialise them randomly.)
        """
        del config
        loader = getattr(transformers, cls.auto_class)
        module, info = loader.from_pretrained(model, output_loading_info=True, **arguments)
        check_complete(model, info["missing_keys"])
        return module

    @classmethod
    def model_name(cls, request: LoadRequest) -> str:
        """The checkpoint that a request names, else the family's default.

        Raises:
            SpecError: There is neither.
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
        with explained(model), damaged(model):
            return self.read_processor(model, hub_arguments(self.request))

    def read_processor(self, model: str, arguments: Mapping[str, Any]) -> Any:
        """The processor of a checkpoint. A family with its own file layout overrides it.

        Args:
            model: Hub id or folder.
            arguments: For every `from_pretrained`.
        """
        videos = self.video_processors.get(self.config.model_type)
        return load_processor(model, arguments, self.image_processor_class, videos)

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @cached_property
    def sites(self) -> SiteMap:
        """See `ModelAdapter.sites`."""
        paths = [name for name, _ in self.module.named_modules()]
        return SiteMap(self.templates, paths, self.renames, read_anatomy(self.module))

    @property
    def device(self) -> torch.device:
        """Where inputs go; the CPU for a skeleton, so that `encode` works."""
        device: torch.device = self._module.device
        return torch.device("cpu") if device.type == "meta" else device

    def computing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A part of the model that is called on its own, with the autocast of the whole model."""
        if self.request.autocast is None:
            return function
        wrap = torch.autocast(self.device.type, getattr(torch, self.request.autocast))
        wrapped: Callable[..., Any] = wrap(function)
        return wrapped

    @property
    def dtype(self) -> str:
        """See `ModelAdapter.dtype`."""
        dtype = self._module.dtype
        if self._module.device.type == "meta":
            picked = pick_dtype(self.request.dtype, self.config, pick_device(self.request.device))
            dtype = dtype if picked == "auto" else picked
        return str(dtype).removeprefix("torch.")

    def describe(self) -> dict[str, Any]:
        """See `ModelAdapter.describe`."""
        model = self.model_name(self.request)
        attention = getattr(self.config, "_attn_implementation", None)
        return {
            "class": type(self._module).__name__,
            **checkpoint_identity(model, self.config, self.request.revision),
            "dtype": self.dtype,
            "device": self.device.type,
            "attention": attention,
            "autocast": self.request.autocast,
            "quantization": self.request.quantization,
            **cuda_settings(self.device, attention),
            **self._computes,
            "image_processor": type(self.processor.image_processor).__name__,
            "image_backend": image_backend(self.processor.image_processor),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    @property
    def _computes(self) -> dict[str, str]:
        """In what a model of 4 bits computes its matrix products; empty for other models."""
        if self.request.quantization != "4bit":
            return {}
        settings = getattr(self.config, "quantization_config", None)
        dtype = getattr(settings, "bnb_4bit_compute_dtype", None)
        return {"computes": str(dtype).removeprefix("torch.")}

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
        by_axis = {Axis.LLM: text, Axis.ENCODER: text, Axis.PROJECTOR: text, Axis.VISION: vision}
        return {
            site.path: by_axis[site.axis]
            for site in self.sites.canonical.values()
            if by_axis.get(site.axis) and site.name != "llm.head"
        }


def _width(module: torch.nn.Module) -> int | None:
    for name in ("out_features", "embedding_dim", "out_channels"):
        width = getattr(module, name, None)
        if isinstance(width, int):
            return width
    weight = getattr(module, "weight", None)
    if isinstance(weight, torch.Tensor) and weight.dim() == 1:
        return weight.shape[0]
    return None
