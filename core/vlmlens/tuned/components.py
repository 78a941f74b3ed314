"""The components of a model: vision tower, projector, language model; or what a pattern matches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from vlmlens.errors import SpecError
from vlmlens.sites import Axis

if TYPE_CHECKING:
    import torch

    from vlmlens.passes.model import Model

Component = Literal["vision", "projector", "llm"]
COMPONENTS: tuple[Component, ...] = ("vision", "projector", "llm")
"""The components that each parameter of a model belongs to one of."""


def parameters_of(vlm: Model, component: str) -> dict[str, torch.nn.Parameter]:
    """The parameters of a component, by name.

    `vision` is everything below the module that contains the vision sites, `llm` likewise, with the
    unembedding; `projector` is everything else: what carries the tower's output over.

    Args:
        vlm: The model, or its skeleton.
        component: One of `COMPONENTS`, or a pattern of sites, such as `llm.block.8-11`.

    Raises:
        SpecError: The model has no such component, or it has no parameters.
        SiteNotFound: A pattern matches nothing.
    """
    if component in COMPONENTS:
        found = {
            name: value
            for name, value in vlm.module.named_parameters()
            if component_at(vlm, name) == component
        }
    else:
        paths = [site.path for site in vlm.sites.resolve(component)]
        found = {
            name: value for name, value in vlm.module.named_parameters() if _below(name, paths)
        }
    if not found:
        raise SpecError(
            f"The model has no parameters in the component {component!r}.",
            subject=component,
            hint=f"Its components: {', '.join(components_of(vlm))}.",
        )
    return found


def components_of(vlm: Model) -> list[Component]:
    """The components that a model has, in the order in which a pass goes through them."""
    having = {component_at(vlm, name) for name, _ in vlm.module.named_parameters()}
    return [component for component in COMPONENTS if component in having]


def component_at(vlm: Model, path: str) -> Component:
    """The component to which a module or parameter belongs, by its path."""
    if _below(path, _roots(vlm, (Axis.VISION,))):
        return "vision"
    return "llm" if _below(path, _roots(vlm, (Axis.LLM, Axis.ENCODER))) else "projector"


def _roots(vlm: Model, axes: Sequence[Axis]) -> list[str]:
    """Paths of the modules that contain all sites of an axis, and nothing of another one."""
    known = vlm.sites.canonical.values()
    others = [site.path for site in known if site.axis not in axes]
    own = [site.path for site in known if site.axis in axes]
    return [_widest(path, others) for path in own]


def _widest(path: str, others: Sequence[str]) -> str:
    """The outermost module around a path that contains none of the other paths."""
    parts = path.split(".")
    for length in range(1, len(parts)):
        outer = ".".join(parts[:length])
        if not any(f"{other}.".startswith(f"{outer}.") for other in others):
            return outer
    return path


def _below(name: str, paths: Iterable[str]) -> bool:
    return any(f"{name}.".startswith(f"{path}.") for path in paths)
