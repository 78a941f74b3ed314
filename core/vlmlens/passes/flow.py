"""Which tensors of a pass are computed from which others: marks that spread with the data."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Marks: TypeAlias = "frozenset[Hashable]"
NONE: Marks = frozenset()
_BY_VALUE = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})

_MASKS = (torch.bool, torch.uint8)


class Flow(TorchDispatchMode):
    """Marks on tensors: what is computed from a marked tensor has its marks, too.

    A mark is on the memory of a tensor, so views of it and what is written into it share marks.
    Operations of torch are followed. Those of other libraries are not: call `pass_on` for modules.

    Args:
        wanting: The mark of tensors that want gradients; None: they get none.
    """

    def __init__(self, wanting: Hashable = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._wanting: Marks = NONE if wanting is None else frozenset({wanting})
        self._marks: dict[int, tuple[Any, Marks]] = {}
        self._paused = False
        self.met = 0
        """How many operations had a marked tensor among their arguments."""
        self.steering: Marks = NONE
        """Marks of tensors whose values decided what was computed, or of which shape."""

    def mark(self, value: Any, marks: Iterable[Hashable]) -> None:
        """Add marks to all tensors in a value."""
        added = frozenset(marks)
        for tensor in tensors_in(value):
            self._add(tensor, added)

    def of(self, value: Any) -> Marks:
        """The marks of all tensors in a value."""
        found = NONE
        for tensor in tensors_in(value):
            if tensor.requires_grad:
                found |= self._wanting
            known = self._marks.get(_key(tensor))
            if known is not None:
                found |= known[1]
        return found

    @contextmanager
    def paused(self, really: bool = True) -> Iterator[None]:
        """Nothing is followed inside, if so."""
        before, self._paused = self._paused, self._paused or really
        try:
            yield
        finally:
            self._paused = before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """See `TorchDispatchMode`: called for every operation."""
        del types
        given: Mapping[str, Any] = kwargs or {}
        if self._paused:
            return func(*args, **given)
        marks = self.of((args, given))
        output = func(*args, **given)
        if marks:
            self.met += 1
            if _BY_VALUE & set(func.tags):
                self.steering |= self.of(_deciding(func, args))
            self.mark((output, _written(func, args, given)), marks)
        return output

    def _add(self, tensor: torch.Tensor, marks: Marks) -> None:
        key = _key(tensor)
        reference, before = self._marks.get(key, (None, NONE))
        if reference is None:  # it keeps the number from being given to another tensor's memory
            reference = StorageWeakRef(tensor.untyped_storage())
        self._marks[key] = (reference, before | marks)


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors in nested tuples, lists, dicts and model outputs."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in tensors_in(item)]
    if value is None or isinstance(value, int | float | str):
        return []
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _key(tensor: torch.Tensor) -> int:
    storage: Any = tensor.untyped_storage()
    return int(storage._cdata)


def _deciding(func: Any, args: Sequence[Any]) -> Any:
    """The arguments whose values decide the shape of what an operation gives."""
    if func is not torch.ops.aten.index.Tensor:
        return args
    return [each for each in args[1] if each is not None and each.dtype in _MASKS]


def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments into which an operation writes."""
    wanted = func._schema.arguments
    found = [
        value
        for value, argument in zip(args, wanted, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    names = {each.name for each in wanted if each.alias_info and each.alias_info.is_write}
    return found + [value for name, value in kwargs.items() if name in names]
