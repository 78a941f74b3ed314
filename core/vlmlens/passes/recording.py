"""Recording what modules give in one pass, and having them give it again in others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from vlmlens.errors import EditError
from vlmlens.passes.forwards import Forward, replaced_forward
from vlmlens.passes.tracing import depth


@contextmanager
def instead(
    module: torch.nn.Module, paths: Mapping[str, str], wrap: Callable[[str, Forward], Forward]
) -> Iterator[None]:
    """Run something else in place of the forward methods of modules.

    Args:
        module: The model.
        paths: Paths of the modules, by the name that `wrap` is given.
        wrap: Makes the other method from the present one.
    """
    with ExitStack() as stack:
        for name, path in paths.items():
            stack.enter_context(replaced_forward(module.get_submodule(path), partial(wrap, name)))
        yield


def copied(output: Any) -> Any:
    """The same output in tensors of its own: models write into some of them."""
    return tree_map_only(torch.Tensor, torch.clone, output)


def recorder(kept: list[Any], forward: Forward, keep: Callable[[Any], Any] = copied) -> Forward:
    """A forward method that keeps what each call gives.

    Args:
        kept: Where to; one entry per call.
        forward: The module's own method.
        keep: What is kept of an output.
    """
    at = depth()

    def run(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        if depth() == at:
            kept.append(keep(output))
        return output

    return run


def player(
    name: str,
    kept: list[Any],
    forward: Forward,
    *,
    give: Callable[[Any], Any] = copied,
    hint: str,
) -> Forward:
    """A forward method that computes nothing, and gives what was kept of the call of its number.

    Args:
        name: The module, for the message.
        kept: What `recorder` kept.
        forward: The module's own method, for passes amid the one that is meant.
        give: From what was kept to an output.
        hint: What to do if the module runs more often than it did.
    """
    at, calls = depth(), count()

    def run(*args: Any, **kwargs: Any) -> Any:
        if depth() != at:
            return forward(*args, **kwargs)
        call = next(calls)
        if call >= len(kept):
            raise EditError(
                f"{name} ran {len(kept)} times in the recorded pass, and more often now.",
                subject=name,
                hint=hint,
            )
        return give(kept[call])

    return run
