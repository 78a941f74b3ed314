"""Cutting edges without renormalising: what cut keys gave is lost, and no other key gets more.

Softmax gives each key its share before anything is cut. The shares of the cut keys are set to zero
where the attention module computes them: behind torch's softmax; or torch's scaled dot-product
attention is computed again with the values of these keys zero. Both are watched while the module
runs, so masks and the cache of keys and values stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from vlmlens.passes.attending import OPERANDS, SCALED_DOT_PRODUCT, SOFTMAX
from vlmlens.passes.compiling import uncompiled
from vlmlens.passes.edges import Cells, Cutting, check_own_keys, refused
from vlmlens.passes.forwards import Forward, replaced_forward
from vlmlens.passes.tracing import depth

_Attend = Callable[[torch.Tensor], torch.Tensor]
"""Scaled dot-product attention, from values `[..., keys, width]`."""


class Dropping(Cutting):
    """A cut that does not renormalise, in one pass, or in the passes of one text."""

    def by_head(self, value: torch.Tensor) -> torch.Tensor:
        """`[samples, heads, queries, ...]`: modules may hold some of these as one dimension.

        Raises:
            EditError: Its heads are not known, or the tensor has no such form.
        """
        samples, heads, last = len(self.batch), self.place.count, value.shape[-1]
        if heads is None:
            raise refused(self.place, "how many heads it has is not known")
        if value.numel() % (samples * heads * last):
            raise refused(self.place, f"its attention has the shape {tuple(value.shape)}")
        return value.reshape(samples, heads, -1, last)

    def heads(self) -> torch.Tensor:
        """int64 `[k]`: the numbers of its heads."""
        own = self.place.heads
        return torch.tensor(range(self.place.count or 0) if own is None else own)


class _Watching(TorchFunctionMode):
    """Changes the result of softmax or of scaled dot-product attention inside a module's call.

    Args:
        droppings: The cuts at this module.
    """

    def __init__(self, droppings: Sequence[Dropping]) -> None:
        super().__init__()
        self._droppings = droppings
        self._calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """See `TorchFunctionMode`: called for every function of torch."""
        del types
        given = dict(kwargs or {})
        if func is SCALED_DOT_PRODUCT:
            self._calls += 1
            given |= dict(zip(OPERANDS, args[:3], strict=False))
            value = given.pop("value")
            query, key, rest = given.pop("query"), given.pop("key"), args[3:]
            return self._of_attention(lambda v: func(query, key, v, *rest, **given), value)
        found = func(*args, **given)
        if func in SOFTMAX:
            self._calls += 1
            return self._of_weights(found)
        return found

    def check(self) -> None:
        """Raise an `EditError` unless attention was computed once, as far as can be seen."""
        if self._calls != 1:
            raise refused(
                self._droppings[0].place,
                f"it calls torch's softmax or scaled dot-product attention {self._calls} times, "
                "not once",
            )

    def _of_weights(self, weights: torch.Tensor) -> torch.Tensor:
        """Weights of attention `[..., queries, keys]` without the cut edges."""
        whole = self._droppings[0].by_head(weights)
        found = whole.clone()
        for each, cells in self._cells(whole.shape[2], whole.shape[3]):
            heads = each.heads()[:, None, None]
            for i, queries, keys in cells:
                each.closed[i] |= bool(whole[i, heads, queries[:, None], keys].any())
                found[i, heads, queries[:, None], keys] = 0
        return found.reshape(weights.shape)

    def _of_attention(self, attend: _Attend, value: torch.Tensor) -> torch.Tensor:
        """The output of attention `[..., queries, width]` without what cut keys give.

        Which keys a query lacks depends on the cuts that it is in. For each set of cuts, attention
        is computed with the values of all their keys zero.
        """
        before = attend(value)
        whole = self._droppings[0].by_head(before)
        cuts = self._cells(whole.shape[2], value.shape[-2])
        member = torch.zeros(whole.shape[:3], dtype=torch.int64)
        for number, (each, cells) in enumerate(cuts):
            for i, queries, _ in cells:
                member[i, each.heads()[:, None], queries] += 1 << number
        found = whole
        alone = {1 << number: cut for number, cut in enumerate(cuts)}
        for code in sorted({*alone, *member.unique().tolist()} - {0}):
            chosen = [cells for bit, (_, cells) in alone.items() if code & bit]
            less = self._droppings[0].by_head(attend(_zeroed(value, chosen, len(whole))))
            if code in alone:
                _note(*alone[code], whole, less)
            found = torch.where((member == code)[..., None].to(less.device), less, found)
        return found.reshape(before.shape)

    def _cells(self, queries: int, keys: int) -> list[tuple[Dropping, list[Cells]]]:
        return [(each, list(each.cells(queries, keys))) for each in self._droppings]


def _zeroed(value: torch.Tensor, cuts: Sequence[Sequence[Cells]], samples: int) -> torch.Tensor:
    """Values with those of the keys of some cuts zero."""
    found = value.reshape(samples, -1, *value.shape[-2:]).clone()
    for cells in cuts:
        for i, _, keys in cells:
            found[i, :, keys] = 0
    return found.reshape(value.shape)


def _note(
    each: Dropping, cells: Sequence[Cells], before: torch.Tensor, after: torch.Tensor
) -> None:
    """Remember for which samples a cut changed the output of attention."""
    heads = each.heads()[:, None]
    for i, queries, _ in cells:
        each.closed[i] |= bool((before[i, heads, queries] != after[i, heads, queries]).any())


@contextmanager
def dropped(module: torch.nn.Module, droppings: Sequence[Dropping]) -> Iterator[None]:
    """Apply cuts that do not renormalise to the passes inside.

    Args:
        module: The model.
        droppings: The cuts.

    Raises:
        EditError: A module computes attention in a way that is not known.
    """
    paths = list(dict.fromkeys(each.place.site.path for each in droppings))
    with ExitStack() as stack:
        stack.enter_context(uncompiled(module, paths))
        for path in paths:
            own = [each for each in droppings if each.place.site.path == path]
            stack.enter_context(_watched(module.get_submodule(path), own))
        yield


@contextmanager
def _watched(attention: torch.nn.Module, droppings: Sequence[Dropping]) -> Iterator[None]:
    """Watch the calls of an attention module, except those of passes amid this one."""
    began = depth()

    def wrap(plain: Forward) -> Forward:
        @wraps(plain)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if depth() != began:
                return plain(*args, **kwargs)
            check_own_keys(droppings[0].place, kwargs)
            with _Watching(droppings) as watching:
                found = plain(*args, **kwargs)
            watching.check()
            return found

        return forward

    with replaced_forward(attention, wrap):
        yield
