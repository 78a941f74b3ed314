"""All weights of a component."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vlmlens.abc import ModelAdapter
from vlmlens.errors import CompositionError, DataError, SpecError
from vlmlens.passes.gradients import check_differentiable
from vlmlens.sites import Axis, Site
from vlmlens.tuned.about import write_about
from vlmlens.tuned.components import component_at, parameters_of
from vlmlens.tuned.record import Kind
from vlmlens_plugins._tensor_files import save_tensors
from vlmlens_plugins.tuning.part import Part

FILE = "weights.safetensors"

_SMALL = (torch.float16, torch.bfloat16)


class WeightsPart(Part):
    """All parameters of a component, a weight that several modules share once.

    Weights of 16 bits are trained as float32 values, of which the model has rounded copies. So
    training takes 16 bytes per weight, for values, gradients and the two averages of Adam.

    Args:
        vlm: The model.
        component: One of `COMPONENTS`, or a pattern of sites, such as `llm.block.8-11`.

    Raises:
        SpecError: The model has no parameters in that component.
        SiteNotFound: A pattern matches nothing.
        CompositionError: Its weights are quantized, or not in memory.
    """

    kind: Kind = "weights"

    def __init__(self, vlm: ModelAdapter, component: str) -> None:
        check_differentiable(vlm)
        self.component = component
        self._module = vlm.module
        found = parameters_of(vlm, component)
        _check_there(found)
        with torch.inference_mode(False), torch.no_grad():
            self._values = {name: _own(value) for name, value in found.items()}
        self._inside: dict[str, torch.nn.Parameter] = {}

    @contextmanager
    def attached(self, vlm: ModelAdapter) -> Iterator[None]:
        """See `Part.attached`."""
        if vlm.module is not self._module or self._inside:
            raise SpecError(
                "The weights were made for another model, or are attached already.",
                subject=self.component,
                hint="Make a WeightsPart for this model, and attach it once.",
            )
        chosen = parameters_of(vlm, self.component)
        before = {name: value.data for name, value in chosen.items()}
        self._inside = chosen
        with (
            wanting_gradients(vlm.module, chosen.values()),
            vlm.holding(self.describe),
        ):
            hooks = [self._put_in(name, value) for name, value in chosen.items()]
            try:
                yield
            finally:
                self._inside = {}
                for hook in hooks:
                    hook.remove()
                for name, value in chosen.items():
                    value.data, self._values[name].grad = before[name], None

    def parameters(self) -> Sequence[torch.nn.Parameter]:
        """See `Part.parameters`."""
        return [
            inside if inside.dtype == self._values[name].dtype else self._values[name]
            for name, inside in self._inside.items()
        ]

    def stepped(self) -> None:
        """See `Part.stepped`."""
        with torch.no_grad():
            for name, inside in self._inside.items():
                if inside.dtype != self._values[name].dtype:
                    inside.data.copy_(self._values[name])

    def places(self, vlm: ModelAdapter) -> Sequence[Site]:
        """See `Part.places`."""
        found = (_place(vlm, name) for name in self._values)
        return list(dict.fromkeys(found))

    def state(self) -> dict[str, torch.Tensor]:
        """See `Part.state`; float32 where the model has 16 bits."""
        return {
            name: value.detach().to("cpu", copy=True).contiguous()
            for name, value in self._values.items()
        }

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """See `Part.load_state`.

        Raises:
            DataError: The names or shapes are not those of this component.
        """
        own = self._values
        wrong = sorted(set(own) ^ set(state))
        wrong = wrong or [name for name in own if own[name].shape != state[name].shape]
        if wrong:
            raise DataError(
                f"The values are not of this component: {len(wrong)} names or shapes differ, such "
                f"as {wrong[0]!r}.",
                subject=self.component,
                hint="Load values that a WeightsPart of the same component gave.",
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])
        self.stepped()

    def save(self, folder: Path, about: Mapping[str, Any]) -> None:
        """See `Part.save`: one file, in the model's types and with its names."""
        types = dict(self._module.named_parameters())
        values = {name: value.to(types[name].dtype) for name, value in self.state().items()}
        save_tensors(folder / FILE, values, {"format": "pt"})
        write_about(folder, self.kind, {"component": self.component, **about})

    def _put_in(self, name: str, inside: torch.nn.Parameter) -> Any:
        """Have the model use the values; what removes the hook that hands gradients over."""
        own = self._values[name]
        inside.data = own.data if own.dtype == inside.dtype else own.data.to(inside.dtype)

        def hand_over(value: torch.Tensor) -> None:
            if value.grad is not None and own.dtype != value.dtype:
                given = value.grad.to(own.dtype)
                own.grad = given if own.grad is None else own.grad + given
                value.grad = None

        return inside.register_post_accumulate_grad_hook(hand_over)


@contextmanager
def wanting_gradients(
    module: torch.nn.Module, chosen: Iterable[torch.nn.Parameter]
) -> Iterator[None]:
    """Have some parameters of a module want gradients inside, and no others; afterwards none."""
    module.requires_grad_(False)
    for value in (inside := list(chosen)):
        value.requires_grad_(True)
    try:
        yield
    finally:
        for value in inside:
            value.requires_grad_(False)
            value.grad = None


def _own(value: torch.nn.Parameter) -> torch.nn.Parameter:
    kept = value.detach().clone(memory_format=torch.contiguous_format)
    return torch.nn.Parameter(kept.float() if value.dtype in _SMALL else kept)


def _place(vlm: ModelAdapter, name: str) -> Site:
    """The site at or inside which a parameter is used.

    A parameter of the projector that stands beside the modules, such as the embedding of line
    breaks in an image, is used after the tower.
    """
    path = name.rpartition(".")[0]
    sites = vlm.sites
    if owner := sites.owner(path):
        return owner
    inside = [site for site in sites.canonical.values() if f"{site.path}.".startswith(f"{path}.")]
    if path and not inside:
        return sites.resolve(path)[0]
    tower = [site for site in sites.canonical.values() if site.axis is Axis.VISION]
    read = [site for site in tower if site.name not in vlm.unread]
    if read and component_at(vlm, name) == "projector":
        return read[-1]
    return Site(path or "the model", path, Axis.LLM)


def _check_there(found: Mapping[str, torch.nn.Parameter]) -> None:
    away = next((name for name, value in found.items() if value.is_meta), None)
    if away is not None:
        raise CompositionError(
            f"The parameter {away!r} is not in memory, so it cannot be trained.",
            subject=away,
            hint="Load the model without --device-map, or on devices that hold all of it.",
        )
