"""Loads processors, with or without torchvision.

Without torchvision, transformers refuses some processors only because they have a video processor.
Images do not need it. Such a processor is loaded here with its Pillow image processor, and with a
video processor that needs no torchvision (`video_processing`) or is never called.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from transformers.utils.hub import cached_file

from vlmlens.errors import MissingDependency

_NAMED_IN = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
_VIDEO_SETTINGS = ("video_preprocessor_config.json", "preprocessor_config.json")
_COPIED = ("merge_size", "slice_mode", "downsample_mode", "patch_size", "temporal_patch_size")


def load_processor(
    model: str,
    arguments: Mapping[str, Any],
    images: type[Any] | None = None,
    videos: str | None = None,
) -> Any:
    """A checkpoint's processor.

    Args:
        model: Hub id or folder.
        arguments: For every `from_pretrained`.
        images: The image processor class to use without torchvision, if transformers has none.
        videos: Transformers' video processor class, where videos are to be processed.

    Raises:
        MissingDependency: The family's images cannot be processed without torchvision.
        OSError: The checkpoint has no processor.
    """
    try:
        return transformers.AutoProcessor.from_pretrained(model, **arguments)
    except (ImportError, ValueError) as error:
        if "orchvision" not in str(error) or importlib.util.find_spec("torchvision"):
            raise
    found = _without_torchvision(processor_class(model, arguments), images, videos)
    return found.from_pretrained(model, **arguments)


def processor_class(model: str, arguments: Mapping[str, Any]) -> type[Any]:
    """The processor class that a checkpoint names, else that of its model type."""
    from transformers.models.auto.auto_mappings import PROCESSOR_MAPPING_NAMES

    name = next(filter(None, (_named(model, file, arguments) for file in _NAMED_IN)), None)
    if name is None:
        config = transformers.AutoConfig.from_pretrained(model, **arguments)
        name = PROCESSOR_MAPPING_NAMES[config.model_type]
    return transformers_class(name)


def image_backend(image_processor: Any) -> str:
    """What makes the pixel values: "torchvision", "pil" or another; they differ slightly."""
    backend = getattr(image_processor, "backend", None)
    if isinstance(backend, str):
        return backend
    name = type(image_processor).__name__
    return "pil" if name.endswith("Pil") or not _has_torchvision() else "torchvision"


def _has_torchvision() -> bool:
    return importlib.util.find_spec("torchvision") is not None


def transformers_class(name: str) -> type[Any]:
    """A processor class of transformers, including those that it hides without torchvision.

    Some processor modules import a helper from their torchvision image processor, and the Pillow
    image processor has the same helper. While they are imported, the Pillow module takes the other
    one's place. If there is no Pillow module, the result is transformers' placeholder.
    """
    found: type[Any] = getattr(transformers, name)
    package, _, module = found.__module__.rpartition(".")
    family = module.removeprefix("processing_")
    wanted = f"{package}.image_processing_{family}"
    twin = f"{package}.image_processing_pil_{family}"
    if not getattr(found, "is_dummy", False) or importlib.util.find_spec(twin) is None:
        return found
    with _lent(wanted, twin):
        real: type[Any] = getattr(importlib.import_module(found.__module__), found.__name__)
    return real


@contextmanager
def _lent(name: str, twin: str) -> Iterator[None]:
    """Let a module that is not imported yet be found as another one."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = importlib.import_module(twin)
    try:
        yield
    finally:
        del sys.modules[name]


def _named(model: str, file: str, arguments: Mapping[str, Any]) -> str | None:
    name = _settings(model, file, arguments).get("processor_class")
    return name if isinstance(name, str) else None


def _settings(model: str, file: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON file of a checkpoint; empty where it is missing."""
    path = cached_file(
        model,
        file,
        revision=arguments.get("revision"),
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return {}
    return dict(json.loads(Path(path).read_text(encoding="utf-8")))


def _without_torchvision(
    base: type[Any], images: type[Any] | None, videos: str | None
) -> type[Any]:
    """A processor class whose video processor needs no torchvision, or is never called."""
    if getattr(base, "is_dummy", False):
        raise _needs_torchvision(base.__name__)

    class Torchless(base):  # type: ignore[misc]
        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            if name == "video_processor" or (images and name == "image_processor"):
                return None
            return super().check_argument_for_proper_class(name, argument)

        @classmethod
        def _get_arguments_from_pretrained(
            cls, path: str, processor_dict: Any = None, **kwargs: Any
        ) -> list[Any]:
            del processor_dict
            kwargs.pop("subfolder", None)
            parts: dict[str, Any] = {}
            for name in cls.get_attributes():
                if name == "tokenizer":
                    parts[name] = transformers.AutoTokenizer.from_pretrained(path, **kwargs)
                elif name == "image_processor":
                    make = images.from_pretrained if images else _pillow_processor
                    parts[name] = make(path, **kwargs)
            if "video_processor" in cls.get_attributes():
                named = parts["image_processor"]
                parts["video_processor"] = _video_processor(path, kwargs, videos, named)
            return [parts[name] for name in cls.get_attributes()]

    Torchless.__name__ = base.__name__
    return Torchless


def _video_processor(path: str, arguments: Mapping[str, Any], name: str | None, images: Any) -> Any:
    """The video processor of a checkpoint; one that is never called where it has no settings.

    Args:
        path: Hub id or folder.
        arguments: For `from_pretrained`.
        name: Transformers' class; None: videos are not processed.
        images: The image processor; some of its settings are read from the video processor.
    """
    from transformers.video_processing_utils import VideoProcessorMixin

    class NoVideo(VideoProcessorMixin):
        model_input_names: list[str] = []  # noqa: RUF012

    nested = "video_processor" in _settings(path, "processor_config.json", arguments)
    if name and (nested or any(_settings(path, file, arguments) for file in _VIDEO_SETTINGS)):
        from vlmlens.hf.video_processing import torch_video_processor

        return torch_video_processor(name).from_pretrained(path, **arguments)
    none = NoVideo()
    for setting in _COPIED:
        if hasattr(images, setting):
            setattr(none, setting, getattr(images, setting))
    return none


def _pillow_processor(path: str, **kwargs: Any) -> Any:
    try:
        return transformers.AutoImageProcessor.from_pretrained(path, **kwargs)
    except (ImportError, ValueError) as error:
        if "orchvision" in str(error):
            raise _needs_torchvision(path) from error
        raise


def _needs_torchvision(subject: str) -> MissingDependency:
    return MissingDependency(
        f"{subject}: this family's images are processed with torchvision, which is not installed.",
        subject=subject,
        hint="pip install torchvision, in the version that fits the installed torch.",
    )
