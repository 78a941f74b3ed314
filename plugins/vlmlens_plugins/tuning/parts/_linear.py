"""Which linear layers of a component LoRA goes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from vlmlens.abc import ModelAdapter
from vlmlens.errors import SpecError
from vlmlens.tuned.components import parameters_of

_SHOWN = 12


def linear_layers(
    vlm: ModelAdapter, component: str, targets: Sequence[str] | None = None
) -> dict[str, torch.nn.Linear]:
    """The linear layers of a component by path, without unembedding.

    Without targets, those whose outcome nothing reads are left out (`ModelAdapter.unread`).

    Args:
        vlm: The model, or its skeleton.
        component: One of `COMPONENTS`, or a pattern of sites.
        targets: Only these: module paths, or their last parts ("q_proj", "mlp.down_proj").

    Raises:
        SpecError: The component has no linear layer, or a target is none of them.
    """
    found = _all(vlm, component)
    if not found:
        raise SpecError(
            f"The component {component!r} has no linear layer, so LoRA has no place in it.",
            subject=component,
            hint="Train its weights instead, or choose another component.",
        )
    if targets is None:
        return {path: layer for path, layer in found.items() if not _is_unread(vlm, path)} or found
    for target in targets:
        _check_target(target, found, component)
    return {path: layer for path, layer in found.items() if any(_is(path, t) for t in targets)}


def _all(vlm: ModelAdapter, component: str) -> dict[str, torch.nn.Linear]:
    owned = parameters_of(vlm, component)
    left_out = {id(weight) for weight in _words(vlm)}
    return {
        path: module
        for path, module in vlm.module.named_modules()
        if isinstance(module, torch.nn.Linear)
        and f"{path}.weight" in owned
        and id(module.weight) not in left_out
        and not _inside_another(vlm, path)
    }


def _words(vlm: ModelAdapter) -> list[torch.Tensor]:
    """The weights of embeddings and of the unembedding; a layer may share one."""
    tables = [m.weight for m in vlm.module.modules() if isinstance(m, torch.nn.Embedding)]
    head = vlm.sites.canonical.get("llm.head")
    if head is not None:
        tables += list(vlm.module.get_submodule(head.path).parameters())
    return tables


def _inside_another(vlm: ModelAdapter, path: str) -> bool:
    """Whether a layer is a part of torch's own attention, which never calls it, or of another one.

    Some families have LoRA of their own, as linear layers inside of linear layers.
    """
    parent = vlm.module.get_submodule(path.rpartition(".")[0])
    return isinstance(parent, torch.nn.MultiheadAttention | torch.nn.Linear)


def _is_unread(vlm: ModelAdapter, path: str) -> bool:
    owner = vlm.sites.owner(path)
    return owner is not None and owner.name in set(vlm.unread)


def _is(path: str, target: str) -> bool:
    return path == target or path.endswith(f".{target}")


def _check_target(target: str, found: Mapping[str, torch.nn.Linear], component: str) -> None:
    if any(_is(path, target) for path in found):
        return
    names = sorted({path.rpartition(".")[2] for path in found})
    more = ", ..." if len(names) > _SHOWN else ""
    raise SpecError(
        f"No linear layer of the component {component!r} is called {target!r}.",
        subject=target,
        hint=f"Its linear layers: {', '.join(names[:_SHOWN])}{more}.",
    )
