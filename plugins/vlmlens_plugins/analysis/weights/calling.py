"""Running an attention module alone, on rows of one's choice, called as a pass calls it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from vlmlens.abc import ModelAdapter
from vlmlens.errors import SiteSilent
from vlmlens.passes.activation import Arguments, activation_of, input_of, replaced_input
from vlmlens.passes.attending import OPERANDS, SCALED_DOT_PRODUCT, SOFTMAX
from vlmlens.passes.batch import Batch
from vlmlens.passes.tracing import edit_hooks
from vlmlens.sites import Site
from vlmlens.sites.anatomy import Heads

_PRODUCTS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm)
_OTHER_ROWS = ("encoder_hidden_states", "key_value_states", "cross_attention_states")
_BLOCK = re.compile(r"(?P<stack>.+)\.block\.(?P<number>\d+)")


class Unreadable(Exception):
    """Why the matrices of a module cannot be read, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Call:
    """How a pass calls an attention module.

    Args:
        arguments: Positional and keyword arguments.
        block: What the block around it is given; None if there is none.
    """

    arguments: Arguments
    block: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Operands:
    """What an attention module makes of its rows, and what it gives.

    Args:
        query: `[heads, rows, size]`; key and value likewise, per query head.
        key: See `query`.
        value: See `query`.
        written: `[rows, width]`: what the output projection gives.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    written: torch.Tensor


def block_of(vlm: ModelAdapter, site: Site) -> Site | None:
    """The block around a module, if its name says which."""
    found = _BLOCK.match(site.name)
    return None if found is None else vlm.sites.canonical.get(found[0])


def calls(vlm: ModelAdapter, batch: Batch, sites: Iterable[Site]) -> dict[str, Call]:
    """How one pass calls some attention modules, by name; those that do not run are left out."""
    given: dict[str, Arguments] = {}
    rewrites = []
    wanted = list(sites)
    blocks = {site.name: block_of(vlm, site) for site in wanted}
    for site in [*wanted, *(block for block in blocks.values() if block is not None)]:

        def record(module: torch.nn.Module, arguments: Arguments, site: Site = site) -> Arguments:
            del module
            if site.name not in given:
                own = input_of(arguments, site).clone()
                given[site.name] = replaced_input(arguments, site, lambda _: own, vlm.module)
            return arguments

        rewrites.append((site, record))
    with _unedited(vlm), suppress(SiteSilent), edit_hooks(vlm.module, [], rewrites, often=True):
        vlm.forward(batch)
    found = {}
    for site in wanted:
        block = blocks[site.name]
        if site.name in given:
            around = given.get(block.name) if block is not None else None
            start = input_of(around, block) if around is not None and block is not None else None
            found[site.name] = Call(given[site.name], start)
    return found


@contextmanager
def _unedited(vlm: ModelAdapter) -> Iterator[None]:
    """Without the edits that hold: they change activations, and weights are what is read."""
    held = vlm.active_edits[:]
    vlm.active_edits.clear()
    try:
        yield
    finally:
        vlm.active_edits.extend(held)


@contextmanager
def in_float32(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Let modules compute in float32; behind it they have their own weights again, bit for bit.

    Raises:
        Unreadable: Their weights are elsewhere.
    """
    changed = []
    weights = chain.from_iterable((*each.parameters(), *each.buffers()) for each in modules)
    try:
        for tensor in weights:
            if tensor.is_meta:
                raise Unreadable("its weights are not in memory")
            if tensor.is_floating_point() and tensor.element_size() < 4:
                changed.append((tensor, tensor.data))
                tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, data in changed:
            tensor.data = data


class Alone:
    """An attention module that is run alone, each row by itself at one position.

    Args:
        vlm: The model.
        site: The module.
        heads: Its heads.
        call: How a pass calls it.
    """

    def __init__(self, vlm: ModelAdapter, site: Site, heads: Heads, call: Call) -> None:
        self._vlm, self._site, self._heads = vlm, site, heads
        self._module = vlm.module.get_submodule(site.path)
        if any(call.arguments[1].get(name) is not None for name in _OTHER_ROWS):
            raise Unreadable("it reads the rows of another stack (cross-attention)")
        own = input_of(call.arguments, site)
        self._arguments = at_one_position(call.arguments, own)
        self.rows = own.shape[:-1].numel()
        self.width = own.shape[-1]
        self.device = own.device
        projection = vlm.module.get_submodule(heads.projection)
        self._projects = any(True for _ in projection.parameters())
        self._output = Site(heads.projection, heads.projection, site.axis)
        self._input = Site(f"{heads.projection}:in", heads.projection, site.axis, side="in")

    def respond(self, rows: torch.Tensor) -> Operands:
        """What the module makes of some rows.

        Args:
            rows: `[rows, width]`, as many as in the pass.

        Raises:
            Unreadable: It does not compute attention in a way that is known.
        """
        with _Watching() as watching:
            written = self._run(rows, [])
        query, key, value = (self._by_head(part) for part in watching.operands())
        return Operands(query, key, value, written)

    def write(self, mixed: torch.Tensor) -> torch.Tensor:
        """`[rows, width]`: what the module writes where its heads give these rows.

        Args:
            mixed: `[rows, heads * size]`.
        """

        def exchange(before: torch.Tensor) -> torch.Tensor:
            if before.numel() != mixed.numel():
                raise Unreadable(f"its heads give the shape {tuple(before.shape)}")
            return mixed.to(before.device).reshape(before.shape)

        return self._run(torch.zeros(self.rows, self.width), [(self._input, exchange)])

    def _run(self, rows: torch.Tensor, edits: list[Any]) -> torch.Tensor:
        seen: list[torch.Tensor] = []

        def look(output: torch.Tensor) -> torch.Tensor:
            seen.append(output)
            return output

        args, kwargs = replaced_input(
            self._arguments,
            self._site,
            lambda before: rows.to(before.device).reshape(before.shape),
            self._vlm.module,
        )
        with edit_hooks(self._vlm.module, [*edits, (self._output, look)]):
            output = self._module(*args, **kwargs)
        found = seen[0] if self._projects else activation_of(output, self._site)
        if found.shape[:-1].numel() != self.rows:
            raise Unreadable(f"it gives the shape {tuple(found.shape)}")
        return found.reshape(self.rows, found.shape[-1])

    def _by_head(self, calls: Sequence[torch.Tensor]) -> torch.Tensor:
        """`[heads, rows, size]`, of `[samples, heads, rows, size]` in one or several calls."""
        count = self._heads.count
        parts = []
        for part in calls:
            whole = part.unflatten(0, (-1, min(count, len(part)))) if part.ndim == 3 else part
            if whole.ndim != 4 or count % whole.shape[1]:
                raise Unreadable(f"its attention has the shape {tuple(part.shape)}")
            whole = whole.repeat_interleave(count // whole.shape[1], 1)
            parts.append(whole.transpose(0, 1).flatten(1, 2))
        joined = torch.cat(parts, 1)
        if joined.shape[1] != self.rows:
            raise Unreadable(f"it attends to {joined.shape[1]} rows and is given {self.rows}")
        return joined


def at_one_position(arguments: Arguments, own: torch.Tensor) -> Arguments:
    """Arguments in which all that goes with a row (position, mask, kind) is that of the first row.

    There, rotary positions turn nothing.

    Args:
        arguments: Of the call.
        own: The rows among them, `[..., rows, width]`.
    """
    count = own.shape[-2]

    def placed(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value if value is own else _repeated(value, count)
        if type(value) in (tuple, list):
            return type(value)(placed(each) for each in value)
        if type(value) is dict:
            return {name: placed(each) for name, each in value.items()}
        return value

    args, kwargs = arguments
    return placed(tuple(args)), placed(dict(kwargs))


def _repeated(value: torch.Tensor, rows: int) -> torch.Tensor:
    """A tensor with the first row in place of every row; floats in float32."""
    exact = value.float() if value.is_floating_point() else value
    order = [-2, -1, *range(value.ndim - 2)]
    for dim in order:
        if value.ndim >= -dim and value.ndim > dim and value.shape[dim] == rows:
            return exact.narrow(dim, 0, 1).expand(value.shape)
    return exact


class _Watching(TorchFunctionMode):
    """Keeps queries, keys and values of the attention that a module computes."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[list[torch.Tensor]] = []
        self._product: tuple[Any, ...] = ()
        self._weights: torch.Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """See `TorchFunctionMode`: called for every function of torch."""
        del types
        given = dict(kwargs or {})
        output = func(*args, **given)
        if func is SCALED_DOT_PRODUCT:
            named = {**dict(zip(OPERANDS, args[:3], strict=False)), **given}
            self._found.append([named[name] for name in OPERANDS])
        elif func in SOFTMAX:
            self._weights = output
        elif func in _PRODUCTS:
            self._see_product(args, output)
        return output

    def operands(self) -> list[list[torch.Tensor]]:
        """Queries, keys and values, each in one or several calls.

        Raises:
            Unreadable: There was none.
        """
        if not self._found:
            raise Unreadable("it calls neither torch's softmax nor scaled dot-product attention")
        return [list(part) for part in zip(*self._found, strict=True)]

    def _see_product(self, args: Sequence[Any], output: torch.Tensor) -> None:
        """Remember a product; one of the weights ends an attention, and has the one before it."""
        weights, before = self._weights, self._product
        if weights is not None and before and args[0].shape == weights.shape == before[2].shape:
            self._found.append([before[0], before[1].transpose(-1, -2), args[1]])
            self._weights = None
        self._product = (args[0], args[1], output)
