"""LoRA (https://arxiv.org/abs/2106.09685) on the linear layers of a component, by peft."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vlmlens.abc import ModelAdapter
from vlmlens.errors import DataError, SpecError
from vlmlens.sites import Site
from vlmlens.tuned.about import write_about
from vlmlens.tuned.peft_package import load_peft, without_old_names
from vlmlens.tuned.record import Kind
from vlmlens_plugins.tuning.part import Part
from vlmlens_plugins.tuning.parts._linear import linear_layers

_NAME = "default"
_WRAPPED = "base_model.model."
_WEIGHTS = "adapter_model.safetensors"


class LoraPart(Part):
    """LoRA on linear layers: `W x + alpha / rank * B A x`. B begins as zeros.

    A and B are float32 where the model's weights are of 16 bits, as in peft. Dropout is applied
    in passes that keep gradients, and only there.

    Args:
        vlm: The model.
        component: One of `COMPONENTS`, or a pattern of sites, such as `llm.block.8-11`.
        rank: Rows of A.
        alpha: See above.
        targets: The layers, as module paths or their last parts; None: all linear layers of the
            component but the unembedding.
        dropout: The probability with which a value of x is dropped before A, in [0, 1).
        seed: Of the values of A.

    Raises:
        MissingDependency: peft is not installed.
        SpecError: A number is out of range, the model has LoRA inside already, the component has
            no linear layer, or a target is none of them.
    """

    kind: Kind = "lora"

    def __init__(
        self,
        vlm: ModelAdapter,
        component: str,
        *,
        rank: int = 8,
        alpha: float = 16,
        targets: Sequence[str] | None = None,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        _check_numbers(rank, alpha, dropout)
        peft = load_peft()
        _check_bare(vlm, peft)
        self.component = component
        self._module = vlm.module
        self._plain = linear_layers(vlm, component, targets)
        self._config = peft.LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=_exactly(self._plain),
        )
        self._wrapped = self._made(peft, seed)

    def _made(self, peft: Any, seed: int) -> dict[str, torch.nn.Module]:
        """The layers of peft around the plain ones; the model is as before."""
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]), without_old_names():
            torch.manual_seed(seed)
            try:
                peft.inject_adapter_in_model(self._config, self._module, _NAME)
                peft.cast_adapter_dtype(self._module, _NAME)
                made = {path: self._module.get_submodule(path) for path in self._plain}
            finally:
                _place(self._module, self._plain)
                vars(self._module).pop("peft_config", None)
        for layer in made.values():
            layer.requires_grad_(False)
            _drop_in_training_only(layer)
        return made

    @contextmanager
    def attached(self, vlm: ModelAdapter) -> Iterator[None]:
        """See `Part.attached`."""
        if vlm.module is not self._module:
            raise SpecError(
                "LoRA was made for another model than the one that it is to be attached to.",
                hint="Make a LoraPart for this model, or save the LoRA and load it with --tuned.",
            )
        vlm.sites  # noqa: B018 - named while the model has its own layers
        _place(self._module, self._wrapped)
        for value in self.parameters():
            value.requires_grad_(True)
        try:
            with vlm.holding(self.describe):
                yield
        finally:
            _place(self._module, self._plain)
            for value in self.parameters():
                value.requires_grad_(False)
                value.grad = None

    def parameters(self) -> Sequence[torch.nn.Parameter]:
        """See `Part.parameters`."""
        return list(self._values().values())

    def places(self, vlm: ModelAdapter) -> Sequence[Site]:
        """See `Part.places`."""
        return [site for path in self._plain for site in vlm.sites.resolve(path)]

    def state(self) -> dict[str, torch.Tensor]:
        """See `Part.state`."""
        return {
            name: value.detach().to("cpu", copy=True).contiguous()
            for name, value in self._values().items()
        }

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """See `Part.load_state`.

        Raises:
            DataError: The names or shapes are not those of this LoRA.
        """
        own = self._values()
        wrong = sorted(set(own) ^ set(state))
        wrong += [name for name in own if not wrong and own[name].shape != state[name].shape]
        if wrong:
            raise DataError(
                f"The values are not of this LoRA: {len(wrong)} names or shapes differ, such as "
                f"{wrong[0]!r}.",
                subject=wrong[0],
                hint="Load values that a LoraPart with the same layers and rank gave.",
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])

    def save(self, folder: Path, about: Mapping[str, Any]) -> None:
        """See `Part.save`. The two files of peft, which `PeftModel.from_pretrained` reads, too."""
        config = self._config
        config.inference_mode = True
        config.base_model_name_or_path = (about.get("base") or {}).get("checkpoint")
        config.save_pretrained(str(folder))
        values = {f"{_WRAPPED}{name}": value for name, value in self.state().items()}
        save_file(values, folder / _WEIGHTS, metadata={"format": "pt"})
        write_about(folder, self.kind, {"component": self.component, **about})

    def _values(self) -> dict[str, torch.nn.Parameter]:
        """A and B of each layer, by the names of peft's file without its prefix."""
        return {
            f"{path}.lora_{each}.weight": getattr(layer, f"lora_{each}")[_NAME].weight
            for path, layer in self._wrapped.items()
            for each in "AB"
        }


class _InTraining(torch.nn.Dropout):
    """Dropout in passes that keep gradients; the model's mode (train or eval) has no say."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(x, self.p, training=torch.is_grad_enabled())


def _drop_in_training_only(layer: Any) -> None:
    found = layer.lora_dropout[_NAME]
    if isinstance(found, torch.nn.Dropout):
        layer.lora_dropout[_NAME] = _InTraining(found.p)
    layer.eval()


def _place(module: torch.nn.Module, layers: Mapping[str, torch.nn.Module]) -> None:
    for path, layer in layers.items():
        parent, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent), name, layer)


def _exactly(paths: Mapping[str, Any]) -> str:
    """An expression that matches these module paths and no others, also where one ends another."""
    return "|".join(re.escape(path) for path in paths)


def _check_numbers(rank: int, alpha: float, dropout: float) -> None:
    wrong = {"rank": rank} if rank < 1 else {"alpha": alpha} if not 0 < alpha < float("inf") else {}
    wrong = wrong or ({} if 0 <= dropout < 1 else {"dropout": dropout})
    for name, value in wrong.items():
        raise SpecError(
            f"LoRA's {name} is {value!r}.",
            subject=name,
            hint="rank is at least 1, alpha above 0, and dropout at least 0 and below 1.",
        )


def _check_bare(vlm: ModelAdapter, peft: Any) -> None:
    if any(isinstance(module, peft.BaseTunerLayer) for module in vlm.module.modules()):
        raise SpecError(
            "The model has LoRA inside that is not merged; no other LoRA can be trained on it.",
            hint="Load the model with its LoRA merged: leave --no-merge-tuned out.",
        )
