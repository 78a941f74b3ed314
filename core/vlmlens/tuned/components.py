"""The components of a model: vision tower, projector, language model; or what a pattern matches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vlmlens.errors import SiteNotFound, SpecError, did_you_mean
from vlmlens.passes.compiling import block_paths
from vlmlens.sites import Axis, Site

if TYPE_CHECKING:
    import torch

    from vlmlens.passes.model import Model

Component = Literal["vision", "projector", "llm"]
_LANGUAGE = (Axis.LLM, Axis.ENCODER)
COMPONENTS: tuple[Component, ...] = ("vision", "projector", "llm")
"""The components that each parameter of a model belongs to one of."""


def parameters_of(vlm: Model, component: str) -> dict[str, torch.nn.Parameter]:
    """The parameters of a component, by name.

    `vision` is the tower: the widest module around the vision sites that contains no site of the
    language model. `projector` is what carries the tower's output over: the site of this name, what
    follows the blocks in a tower that contains it, and everything that is in no other component.
    `llm` is the language model with its unembedding.

    Args:
        vlm: The model, or its skeleton.
        component: One of `COMPONENTS`, or a pattern of sites, such as `llm.block.8-11`.

    Raises:
        SpecError: The model has no such component, or it has no parameters.
        SiteNotFound: A pattern matches nothing.
    """
    if component in COMPONENTS:
        anatomy = _Anatomy.of(vlm)
        found = {
            name: value
            for name, value in vlm.module.named_parameters()
            if anatomy.component(name) == component
        }
    else:
        paths = [site.path for site in _sites(vlm, component)]
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


def _sites(vlm: Model, pattern: str) -> list[Site]:
    """The sites of a pattern; of a misspelt component it is said so."""
    try:
        return vlm.sites.resolve(pattern)
    except SiteNotFound as error:
        near = "" if "." in pattern else did_you_mean(pattern, COMPONENTS)
        if not near:
            raise
        raise SpecError(
            f"The model has no component {pattern!r}.",
            subject=pattern,
            hint=f"{near} Its components: {', '.join(components_of(vlm))}; or a pattern of sites, "
            "such as llm.block.8-11.",
        ) from error


def components_of(vlm: Model) -> list[Component]:
    """The components that a model has, in the order in which a pass goes through them."""
    anatomy = _Anatomy.of(vlm)
    having = {anatomy.component(name) for name, _ in vlm.module.named_parameters()}
    return [component for component in COMPONENTS if component in having]


def component_at(vlm: Model, path: str) -> Component:
    """The component to which a module or parameter belongs, by its path."""
    return _Anatomy.of(vlm).component(path)


@dataclass(frozen=True, slots=True)
class _Anatomy:
    """Paths of the modules that make up the components.

    Args:
        projector: Those of the projector.
        llm: Those of the language model.
        vision: Those of the tower.
    """

    projector: Sequence[str]
    llm: Sequence[str]
    vision: Sequence[str]

    @classmethod
    def of(cls, vlm: Model) -> _Anatomy:
        known = vlm.sites.canonical
        language = {s.path for s in known.values() if s.axis in _LANGUAGE}
        eyes = {site.path for name, site in known.items() if name.startswith("vision.")}
        projector = [site.path for name, site in known.items() if name == "projector"]
        others = [site.path for site in known.values() if site.path not in language]
        towers = {_widest(path, language) for path in eyes}
        return cls(
            projector,
            sorted({_widest(path, others) for path in language}),
            [part for tower in towers for part in _seeing(vlm, tower, projector)],
        )

    def component(self, path: str) -> Component:
        """The component of a module or parameter."""
        if _below(path, self.projector):
            return "projector"
        if _below(path, self.vision):
            return "vision"
        return "llm" if _below(path, self.llm) else "projector"


def _seeing(vlm: Model, tower: str, projector: Iterable[str]) -> list[str]:
    """A tower; if it contains the projector, its modules up to the one of the blocks."""
    if not any(_below(path, [tower]) for path in projector):
        return [tower]
    inside = [f"{tower}.{name}" for name, _ in vlm.module.get_submodule(tower).named_children()]
    blocks = block_paths(vlm).values()
    last = max((i for i, path in enumerate(inside) if _holds(path, blocks)), default=-1)
    return inside[: last + 1]


def _holds(path: str, others: Iterable[str]) -> bool:
    return any(_below(other, [path]) for other in others)


def _widest(path: str, others: Iterable[str]) -> str:
    """The outermost module around a path that contains none of the other paths."""
    parts = path.split(".")
    for length in range(1, len(parts)):
        outer = ".".join(parts[:length])
        if not _holds(outer, others):
            return outer
    return path


def _below(name: str, paths: Iterable[str]) -> bool:
    return any(f"{name}.".startswith(f"{path}.") for path in paths)
