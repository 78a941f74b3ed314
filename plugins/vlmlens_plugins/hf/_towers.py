"""Finding the sites of a vision tower in its module tree, without running it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from vlmlens.errors import CheckpointError
from vlmlens.sites import Axis, SiteTemplate

_NORMED_EMBEDS = ("pre_layrnorm", "pre_layernorm")
"""A norm between the embeddings and the first block (CLIP)."""
_EMBEDS = "embeddings"
_ENDS = ("layernorm", "norm", "post_layernorm", "rms_norm")
_OF_POOLED = "post_layernorm"
"""The last norm of CLIP and SigLIP: behind a class token it is given that alone."""
_POOLING = "head"
"""What pools the patches by attention (SigLIP, AIMv2)."""
_CLASS_TOKENS = ("cls_token", "class_embedding", "class_token")
_ONE_TOKEN = (*_CLASS_TOKENS, "distillation_token")
_SEVERAL_TOKENS = ("register_tokens",)


def find_tower_templates(model: nn.Module) -> list[SiteTemplate]:
    """The canonical sites of a vision tower; their names are those of the tower in a VLM.

    Args:
        model: On any device, the meta device too.

    Raises:
        CheckpointError: It has no single stack of blocks.
    """
    return list(_templates(model, _blocks(model)))


def special_tokens(model: nn.Module) -> int:
    """How many rows stand before the patches: the class token, a distillation token, registers."""
    found = 0
    for path, parameter in model.named_parameters():
        if _EMBEDS in path.split("."):
            name = path.rpartition(".")[2]
            found += name in _ONE_TOKEN
            found += int(parameter.shape[-2]) if name in _SEVERAL_TOKENS else 0
    return found


def _templates(model: nn.Module, blocks: str) -> Iterator[SiteTemplate]:
    beside = _beside(model, blocks)
    embed = next((beside[name] for name in (*_NORMED_EMBEDS, _EMBEDS) if name in beside), None)
    if embed is not None:
        yield SiteTemplate("vision.embed", (embed,), Axis.VISION)
    yield SiteTemplate("vision.block.{i}", (f"{blocks}.{{i}}",), Axis.VISION)
    end = next((name for name in _ENDS if name in beside), None)
    if end == _OF_POOLED and _has_class_token(model):
        yield SiteTemplate("vision.pooled", (beside[end],), Axis.SAMPLE)
    elif end is not None:
        yield SiteTemplate("vision.norm", (beside[end],), Axis.VISION)
    if _POOLING in beside:
        yield SiteTemplate("vision.projection", (beside[_POOLING],), Axis.SAMPLE)


def _beside(model: nn.Module, blocks: str) -> dict[str, str]:
    """Paths by last name: modules with weights that stand beside the blocks or what holds them."""
    found: dict[str, str] = {}
    place = blocks
    while place:
        place = place.rpartition(".")[0]
        for name, module in model.get_submodule(place).named_children():
            if any(True for _ in module.parameters()):
                found.setdefault(name, f"{place}.{name}" if place else name)
    return found


def _has_class_token(model: nn.Module) -> bool:
    names = (path.rpartition(".")[2] for path, _ in model.named_parameters())
    return any(name in _CLASS_TOKENS for name in names)


def _blocks(model: nn.Module) -> str:
    """The path of the longest list of modules that is in no other list.

    Raises:
        CheckpointError: There is none, or its members hold lists: stages of several resolutions.
    """
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and len(module) and not inside:
            found[path] = module
    longest = max(found, key=lambda path: len(found[path]), default=None)
    if longest is not None and not _staged(found[longest]):
        return longest
    raise CheckpointError(
        f"{type(model).__name__} is no plain vision transformer: "
        + ("it has no list of blocks." if longest is None else "its blocks stand in stages, whose "
           "feature maps differ in size (ConvNeXt, Swin)."),
        subject=type(model).__name__,
        hint="The adapter 'vit' reads towers with one stack of blocks over one grid of patches.",
    )  # fmt: skip


def _staged(blocks: nn.ModuleList) -> bool:
    return any(isinstance(part, nn.ModuleList) for part in blocks.modules() if part is not blocks)
