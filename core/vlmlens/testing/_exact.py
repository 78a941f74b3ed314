"""A model that computes in float64 throughout, so that small differences of passes are exact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.passes.batch import Batch

_TYPES = {torch.float32: torch.float64}
_METHODS = {torch.Tensor.float: torch.Tensor.double}


def make_exact(vlm: ModelAdapter) -> ModelAdapter:
    """The same model, with weights in float64; to be run inside `exact`."""
    module: Any = vlm.module
    module.double()
    if hasattr(module, "set_experts_implementation"):
        module.set_experts_implementation("eager")  # the grouped kernels know no float64
    return vlm


def exact_batch(batch: Batch) -> Batch:
    """A batch with its inputs in float64."""
    inputs = {name: _double(value) for name, value in batch.inputs.items()}
    return replace(batch, inputs=inputs)


@contextmanager
def exact() -> Iterator[None]:
    """Where modules ask for float32, as many norms do, they get float64."""
    with _Exact():
        yield


class _Exact(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """See `TorchFunctionMode`: called for every function of torch."""
        del types
        given = {name: _wide(item) for name, item in (kwargs or {}).items()}
        return _METHODS.get(func, func)(*map(_wide, args), **given)


def _wide(item: Any) -> Any:
    return _TYPES.get(item, item) if isinstance(item, torch.dtype) else item


def _double(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, list | tuple):
        return type(value)(map(_double, value))
    if isinstance(value, Mapping):
        return {name: _double(item) for name, item in value.items()}
    return value
