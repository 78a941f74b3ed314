"""LoRA of peft: checked against a model, put into it, and added to its weights.

https://arxiv.org/abs/2106.09685; peft computes it. The tensors of the file decide which modules get
LoRA; the settings must name the same ones. After loading, every value is compared with the file's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vlmlens.errors import CheckpointError, CompositionError
from vlmlens.tuned.folder_files import read_object, shapes_in
from vlmlens.tuned.lora_names import check_targets, placed
from vlmlens.tuned.lora_settings import LoraSettings
from vlmlens.tuned.peft_package import load_peft, without_old_names

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.tuned.record import Tuned

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_NAME = "default"
_BELOW = ".base_layer.weight"
_SHOWN = 3


def check_fits(vlm: ModelAdapter, tuned: Tuned, *, merge: bool) -> None:
    """Check a LoRA against a model or its skeleton: names, shapes, and whether it can be merged.

    The skeleton is the same afterwards.

    Raises:
        CheckpointError: A name or a shape is not the model's; some of both are listed.
        CompositionError: It cannot be merged into this model.
        MissingDependency: peft is not installed.
    """
    found = _Placed.of(vlm, tuned)
    if merge:
        _check_mergeable(vlm.module, found)
    with _tree_kept(vlm.module):
        _injected(vlm, found, tuned)
        _check_shapes(_held(vlm.module, found), found, tuned)


def put_in(vlm: ModelAdapter, tuned: Tuned, *, merge: bool) -> None:
    """Put a LoRA into a model.

    Args:
        vlm: The loaded model.
        tuned: The LoRA.
        merge: Whether it is added to the weights. The product is computed in float32, added, and
            rounded to the type of the weights. The module tree then is what it was. If not, the
            layers of peft stay around the model's.

    Raises:
        CheckpointError: A value did not arrive, or is not finite.
        CompositionError: It cannot be merged into this model.
        MissingDependency: peft is not installed.
    """
    from safetensors.torch import load_file

    found = _Placed.of(vlm, tuned)
    if merge:
        _check_mergeable(vlm.module, found)
    values = {found.names[key]: value for key, value in load_file(tuned.path / WEIGHTS).items()}
    with torch.inference_mode(False), torch.no_grad(), without_old_names():
        tuner = _injected(vlm, found, tuned)
        _check_shapes(_held(vlm.module, found), found, tuned)
        load_peft().set_peft_model_state_dict(vlm.module, dict(values), _NAME)
        _check_arrived(_held(vlm.module, found), values, tuned)
        if merge:
            tuner.merge_and_unload()
    vlm.module.eval().requires_grad_(False)


class _Placed:
    """A LoRA's file with the places of its tensors in a model.

    Args:
        settings: From `adapter_config.json`.
        modules: The modules that get LoRA, as the file names them and in the model.
        names: By key of the file, the name in the model that peft gives the tensor.
        shapes: By key of the file.
        saved: The modules that were trained as a whole, in the model.
    """

    def __init__(
        self,
        settings: LoraSettings,
        modules: Mapping[str, str],
        names: Mapping[str, str],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self.settings = settings
        self.modules = modules
        self.names = names
        self.shapes = shapes

    @classmethod
    def of(cls, vlm: ModelAdapter, tuned: Tuned) -> _Placed:
        """Read and place a LoRA's tensors; none is loaded."""
        folder = str(tuned.path)
        _ = vlm.sites  # named while the model has its own layers
        settings = LoraSettings.of(read_object(tuned.path / CONFIG), folder)
        shapes = shapes_in(tuned.path / WEIGHTS)
        where = placed(vlm, shapes, folder)
        modules = {each.path: path for each, path in where.values() if each.of_lora}
        if not modules:
            raise CheckpointError(
                f"{str(tuned.path / WEIGHTS)!r} holds no matrices of LoRA.",
                subject=folder,
                hint="Name the folder that peft's `save_pretrained` wrote.",
            )
        check_targets(vlm, settings, modules, folder)
        names = {key: f"{path}.{each.tail}" for key, (each, path) in where.items()}
        return cls(settings, modules, names, shapes)


def _injected(vlm: ModelAdapter, found: _Placed, tuned: Tuned) -> Any:
    """The tuner of peft, with its layers around the model's; nothing is loaded into them."""
    peft = load_peft()
    if any(isinstance(module, peft.BaseTunerLayer) for module in vlm.module.modules()):
        raise CompositionError(
            "The model has LoRA inside that is not merged; no other one can be put into it.",
            subject=str(tuned.path),
        )
    said, paths = found.settings, found.modules
    config = peft.LoraConfig(
        r=said.rank,
        lora_alpha=said.alpha,
        target_modules="|".join(re.escape(path) for path in paths.values()),
        rank_pattern=_exactly(paths, said.rank_of, said.rank),
        alpha_pattern=_exactly(paths, said.alpha_of, said.alpha),
        use_rslora=said.rslora,
        use_dora=said.dora,
        lora_bias=said.lora_bias,
        bias=said.bias,
        fan_in_fan_out=said.fan_in_fan_out,
        modules_to_save=list(said.saved) or None,
    )
    try:
        with torch.inference_mode(False), without_old_names():
            tuner = peft.LoraModel(vlm.module, config, _NAME)
            peft.cast_adapter_dtype(vlm.module, _NAME)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"peft cannot put the LoRA in {str(tuned.path)!r} into this model: "
            f"{' '.join(str(error).split())[:300]}",
            subject=str(tuned.path),
            hint="It was made for another model, or its adapter_config.json was changed.",
        ) from error
    return tuner


def _exactly(paths: Mapping[str, str], value_of: Any, usual: float) -> dict[str, Any]:
    """Values of modules that differ from the usual one, by expressions that match one module.

    Patterns may be about names in the file or in the model.
    """
    found = {}
    for old, new in paths.items():
        values = [value_of(new), value_of(old)]
        chosen = next((value for value in values if value != usual), usual)
        if chosen != usual:
            found[f"^{re.escape(new)}"] = chosen
    return found


def _held(module: torch.nn.Module, found: _Placed) -> dict[str, torch.Tensor]:
    """What peft would save of the LoRA in a model, by name.

    Some files also have the weights of embeddings below LoRA; they count where the file has them.
    """
    held: dict[str, torch.Tensor] = load_peft().get_peft_model_state_dict(
        module, adapter_name=_NAME, save_embedding_layers=False
    )
    below = {name for name in found.names.values() if name.endswith(_BELOW)}
    own = {name: value for name, value in module.named_parameters() if name in below}
    return {**held, **own}


def _check_shapes(held: Mapping[str, torch.Tensor], found: _Placed, tuned: Tuned) -> None:
    folder = str(tuned.path)
    keys = {name: key for key, name in found.names.items()}
    extra = [key for name, key in keys.items() if name not in held]
    lacking = [name for name in held if name not in keys]
    wrong = [
        f"{key} {list(found.shapes[key])} instead of {list(held[name].shape)}"
        for name, key in keys.items()
        if name in held and tuple(held[name].shape) != found.shapes[key]
    ]
    told = [
        f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
        for what, names in (
            ("that the model has no place for", extra),
            ("missing in the file", lacking),
            ("of another shape", wrong),
        )
        if names
    ]
    if told:
        raise CheckpointError(
            f"The tensors of the LoRA in {folder!r} do not fit the model. {'; '.join(told)}.",
            subject=folder,
            hint="The LoRA was made for another model, or its two files do not belong together.",
        )


def _check_arrived(
    held: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor], tuned: Tuned
) -> None:
    for name, value in values.items():
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{name} of the LoRA in {str(tuned.path)!r} holds values that are not finite.",
                subject=name,
                hint="Its training diverged, or the file is damaged.",
            )
        there = held[name]
        if not torch.equal(there, value.to(there.device, there.dtype)):
            raise CheckpointError(
                f"peft did not put {name} of the LoRA in {str(tuned.path)!r} into the model.",
                subject=name,
                hint="Report it as a bug, with the versions of peft and transformers "
                "(`vlmlens doctor`).",
            )


def _check_mergeable(module: Any, found: _Placed) -> None:
    """Raise if adding LoRA to weights would change other modules, or quantized weights."""
    owners: dict[int, list[str]] = {}
    for path, each in module.named_modules():
        for weight in each.parameters(recurse=False):
            owners.setdefault(id(weight), []).append(path)
    for path in found.modules.values():
        shared = [
            owner
            for weight in module.get_submodule(path).parameters(recurse=False)
            for owner in owners[id(weight)]
            if owner != path
        ]
        if shared:
            raise CompositionError(
                f"The LoRA at {path!r} cannot be added to the weights: {shared[0]!r} has the same "
                "ones, and would be changed, too.",
                subject=path,
                hint="Use --no-merge-tuned.",
            )


@contextmanager
def _tree_kept(module: torch.nn.Module) -> Iterator[None]:
    """Have the module tree be as it was afterwards, whatever is put around modules inside."""
    before = dict(module.named_modules(remove_duplicate=False))
    try:
        yield
    finally:
        for path, each in before.items():
            parent, _, name = path.rpartition(".")
            if path and before[parent]._modules.get(name) is not each:
                setattr(before[parent], name, each)
        vars(module).pop("peft_config", None)


def files_in(folder: Path) -> list[Path]:
    """The files that determine the numbers of a LoRA."""
    return [folder / CONFIG, folder / WEIGHTS]
