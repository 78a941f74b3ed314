"""Names in a file of LoRA, and the modules of the model that they mean.

peft names what it saved after the modules of the model at that time. Models are arranged anew in
newer versions of transformers; where it renames the weights of older checkpoints, the names of LoRA
follow the same rules. A name that leads to no module is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmlens.errors import CheckpointError, SiteError

if TYPE_CHECKING:
    from vlmlens.passes.model import Model
    from vlmlens.tuned.lora_settings import LoraSettings

_WRAPPED = "base_model.model."
_OF_LORA = re.compile(
    r"(?P<path>.+)\.(?P<tail>lora_[AB]\.(?:weight|bias)|lora_embedding_[AB]"
    r"|lora_magnitude_vector(?:\.weight)?)"
)
_INSIDE = ".base_layer"
"""Inside a layer of LoRA, the module that was there before."""
_SHOWN = 3
_PREPARED = ("Linear", "Embedding", "Conv1d", "Conv2d", "Conv3d", "Conv1D")
"""Names of the classes that peft can put LoRA around, torch's and those of transformers."""


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """A tensor of a LoRA file.

    Args:
        key: Its name in the file.
        path: The module that it is for, as the file names it.
        tail: What is behind the module's path.
        of_lora: Whether it is of a LoRA layer; if not, it is a weight of a module that was trained.
    """

    key: str
    path: str
    tail: str
    of_lora: bool

    @classmethod
    def of(cls, key: str) -> NamedTensor:
        """The parts of a name."""
        name = key.removeprefix(_WRAPPED)
        if found := _OF_LORA.fullmatch(name):
            return cls(key, found["path"], found["tail"], True)
        path, _, tail = name.rpartition(".")
        inside = _INSIDE if path.endswith(_INSIDE) else ""
        return cls(key, path.removesuffix(inside), f"{inside}.{tail}".lstrip("."), False)


def placed(vlm: Model, keys: Iterable[str], folder: str) -> dict[str, tuple[NamedTensor, str]]:
    """The tensors of a LoRA file by key, each with the path of the module in this model.

    Args:
        vlm: The model, or its skeleton.
        keys: The names in the file.
        folder: Named in errors.

    Raises:
        CheckpointError: Some name no module of the model; it lists some names of both.
    """
    named = [NamedTensor.of(key) for key in keys]
    paths = module_paths(vlm, {each.path for each in named})
    lost = [each.key for each in named if paths[each.path] is None]
    if lost:
        own = [path for path, kind in _prepared(vlm)]
        raise CheckpointError(
            f"{len(lost)} of {len(named)} tensors of the LoRA in {folder!r} are for modules that "
            f"the model does not have, such as {_some(lost)}. The model has {_some(own)}.",
            subject=lost[0],
            hint="The LoRA was made for another model, or for an arrangement of this one that "
            "transformers does not rename. Choose the model that it was trained on, or merge it "
            "with the versions that trained it, and name the merged model with --model.",
        )
    return {each.key: (each, paths[each.path] or "") for each in named}


def module_paths(vlm: Model, paths: Iterable[str]) -> dict[str, str | None]:
    """For module paths as a file has them, the paths in the model; None where there is none."""
    known = {name for name, _ in vlm.module.named_modules() if name}
    rename = _renaming(vlm.module)
    return {path: _found(vlm, path, known, rename(path)) for path in paths}


def _found(vlm: Model, path: str, known: set[str], renamed: str) -> str | None:
    if path in known:
        return path
    if renamed in known:
        return renamed
    try:
        ours = vlm.sites.renamed(path)
    except SiteError:
        return None
    return ours if ours in known else None


def _renaming(module: Any) -> Any:
    """A function that renames a module path as transformers renames a checkpoint's weights."""
    from transformers import PreTrainedModel
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    if not isinstance(module, PreTrainedModel):
        return lambda path: path
    rules = [
        each for each in get_model_conversion_mapping(module) if isinstance(each, WeightRenaming)
    ]

    def rename(path: str) -> str:
        name, _ = rename_source_key(f"{path}.weight", rules, [])
        return str(name).removesuffix(".weight")

    return rename


def check_targets(
    vlm: Model, settings: LoraSettings, moved: Mapping[str, str], folder: str
) -> None:
    """Check that the modules with weights are those that the settings name, no more and no fewer.

    Args:
        vlm: The model, or its skeleton.
        settings: Of the LoRA.
        moved: The modules of the LoRA file, as it names them and in the model.
        folder: Named in errors.

    Raises:
        CheckpointError: They are not; it lists some.
    """
    extra = [
        old
        for old, new in moved.items()
        if not settings.targeted(old) and not settings.targeted(new)
    ]
    before = _earlier_names(moved)
    inside = set(moved.values())
    lacking = [
        path for path, _ in _prepared(vlm) if path not in inside and settings.targeted(before(path))
    ]
    unused = settings.unused_patterns([*moved, *moved.values()])
    for said, names in (
        ("has weights for modules that its target_modules do not name", extra),
        ("lacks the weights of modules that its target_modules name", lacking),
        ("has rank_pattern or alpha_pattern for modules that it does not change", unused),
    ):
        if names:
            raise CheckpointError(
                f"The LoRA in {folder!r} {said}: {len(names)}, such as {_some(names)}.",
                subject=names[0],
                hint="Its two files are incomplete, or do not belong together, or the LoRA was "
                "made for another model. If the weights are right, correct target_modules in its "
                "adapter_config.json.",
            )


def _prepared(vlm: Model) -> list[tuple[str, str]]:
    """The modules that may have LoRA: path and class."""
    found = []
    for path, module in vlm.module.named_modules():
        kinds = [each.__name__ for each in type(module).__mro__]
        kind = next((each for each in kinds if each in _PREPARED), None)
        if path and kind:
            found.append((path, kind))
    return found


def _earlier_names(moved: Mapping[str, str]) -> Any:
    """A function from a path in the model to the path that the file's arrangement gives it."""
    heads = dict(sorted({_heads(old, new) for old, new in moved.items()}))

    def before(path: str) -> str:
        own = [new for new in heads if path == new or path.startswith(f"{new}." if new else "")]
        head = max(own, key=len, default=None)
        if head is None:
            return path
        rest = path[len(head) :].removeprefix(".")
        return f"{heads[head]}.{rest}" if heads[head] else rest

    return before


def _heads(old: str, new: str) -> tuple[str, str]:
    """What two paths differ in at their beginnings: that of the new one, that of the old one."""
    olds, news = old.split("."), new.split(".")
    while olds and news and olds[-1] == news[-1]:
        olds.pop()
        news.pop()
    return ".".join(news), ".".join(olds)


def _some(names: list[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{', '.join(repr(each) for each in names[:_SHOWN])}{more}"
