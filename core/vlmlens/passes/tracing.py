"""Reading and editing activations in one forward pass: the only module that registers hooks.

What of a module's input or output is the activation is decided in `activation`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import torch

from vlmlens._display import AsHtml, brief, count
from vlmlens.passes.activation import (
    Arguments,
    Edit,
    activation_of,
    check_axis,
    input_of,
    part_of,
    replaced_activation,
    replaced_input,
)
from vlmlens.passes.compiling import uncompiled
from vlmlens.passes.skipping import passing_on
from vlmlens.passes.untraced import called_often, not_traced, silent
from vlmlens.sites import Site

if TYPE_CHECKING:
    from vlmlens.passes.batch import Batch, Logits
    from vlmlens.passes.model import Model

Rewrite: TypeAlias = Callable[[torch.nn.Module, Arguments], Arguments]
"""A function from a module and its arguments to those with which it is called instead."""

Visit: TypeAlias = Callable[[Site, torch.Tensor], None]
"""A function that is called with a site and its activation during the pass."""

Part: TypeAlias = Callable[[Any, Site], torch.Tensor]
"""Takes the wanted tensor from what a module gives; raises `SiteSilent` if there is none."""


@dataclass(slots=True)
class Trace(Mapping[str, torch.Tensor], AsHtml):
    """Raw activations of one forward pass, by site name.

    Args:
        batch: The batch of the pass.
        activations: Tensors by site name, as the modules returned them, `[..., width]`.
        sites: The traced sites by name.
        logits: See `ForwardOutput.logits`.
    """

    batch: Batch
    activations: dict[str, torch.Tensor]
    sites: Mapping[str, Site]
    logits: torch.Tensor | None = None

    def __getitem__(self, site: str) -> torch.Tensor:
        if site not in self.activations:
            raise not_traced(site, self.activations)
        return self.activations[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self.activations)

    def __len__(self) -> int:
        return len(self.activations)

    def __repr__(self) -> str:
        sites = count(len(self), "site")
        return brief(self, "", count(len(self.batch), "sample"), sites, *list(self)[:3])

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def select(self, column: str) -> list[torch.Tensor] | torch.Tensor:
        """A column of this pass: `trace.select("llm.block.3/last")`, `[samples, width]`.

        Raises:
            SelectorError: The column does not parse, or a sample has no such token.
            SiteNotFound: Its site was not traced. The error names the sites that were.
            SiteSilent: The batch has no rows on the site's axis: no sample has an image.
        """
        from vlmlens.tokens import Column, select

        parsed = Column.parse(column)
        if parsed.site not in self.sites:
            raise not_traced(parsed.site, self.sites)
        site = self.sites[parsed.site]
        check_axis(site, self.batch.layouts)
        return select(self[parsed.site], parsed.selector, self.batch.layouts[site.axis], site)


_DEPTH: ContextVar[int] = ContextVar("depth of passes", default=0)

_Side: TypeAlias = "tuple[str, str]"
"""The path of a module, and "in" or "out"."""


@dataclass(slots=True)
class _Hooks:
    """The hooks of one pass, and what they recorded."""

    module: torch.nn.Module
    visit: Visit
    wanted: Mapping[_Side, Sequence[Site]]
    edits: Mapping[_Side, Sequence[tuple[Site, Edit]]]
    part: Part | None
    stop_after: int | None = None
    rewrites: Mapping[_Side, Sequence[tuple[Site, Rewrite]]] = field(default_factory=dict)
    calls: Counter[_Side] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)
    depth: int = field(default_factory=_DEPTH.get)

    @contextmanager
    def registered(self) -> Iterator[None]:
        """Have the hooks, with the compiled blocks around them uncompiled."""
        sides = {**self.wanted, **self.edits, **self.rewrites}
        handles = [self._register(side) for side in sides]
        try:
            with uncompiled(self.module, [path for path, _ in sides]):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _register(self, side: _Side) -> Any:
        """Add the hook of one side of a module; the handle removes it.

        Before all other hooks: those by which transformers captures hidden states must see edits.
        """
        module = self.module.get_submodule(side[0])
        if side[1] == "out":
            return module.register_forward_hook(self._after(side), prepend=True)
        return module.register_forward_pre_hook(self._before(side), prepend=True, with_kwargs=True)

    def _after(self, side: _Side) -> Callable[[torch.nn.Module, Any, Any], Any]:
        def run(module: torch.nn.Module, args: Any, output: Any) -> Any:
            del module, args
            if self.depth != _DEPTH.get():
                return None
            call = self._next_call(side)
            for site, edit in self._edits(side, call):
                output = replaced_activation(output, site, edit, self.module)
            for site in self._sites(side, call):
                self._show(site, output, activation_of)
            self._stop()
            return output if side in self.edits else None

        return run

    def _before(self, side: _Side) -> Callable[[torch.nn.Module, Any, Any], Any]:
        def run(module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
            if self.depth != _DEPTH.get():
                return None
            call = self._next_call(side)
            arguments: Arguments = (args, kwargs)
            for site, edit in self._edits(side, call):
                arguments = replaced_input(arguments, site, edit, self.module)
            for site, rewrite in self.rewrites.get(side, ()):
                self.seen.add(site.name)
                arguments = rewrite(module, arguments)
            for site in self._sites(side, call):
                self._show(site, arguments, input_of)
            self._stop()
            return arguments if side in self.edits or side in self.rewrites else None

        return run

    def _next_call(self, side: _Side) -> int:
        self.calls[side] += 1
        return self.calls[side] - 1

    def _edits(self, side: _Side, call: int) -> Iterator[tuple[Site, Edit]]:
        for site, edit in self.edits.get(side, ()):
            if site.call in (None, call):
                self.seen.add(site.name)
                yield site, edit

    def _sites(self, side: _Side, call: int) -> Iterator[Site]:
        for site in self.wanted.get(side, ()):
            if site.call in (None, call):
                self.seen.add(site.name)
                yield site

    def _show(self, site: Site, value: Any, activation: Part) -> None:
        if self.part is not None:
            self.visit(site, self.part(value, site))
        else:
            self.visit(site, part_of(activation(value, site), site, self.module))

    def _stop(self) -> None:
        if len(self.seen) == self.stop_after:
            raise _Done

    def check(self, *, often: bool = False) -> None:
        """Raise an error if a site gave no activation, or several instead of one.

        Args:
            often: Whether several are fine.
        """
        sites = [site for group in self.wanted.values() for site in group]
        sites += [site for group in self.edits.values() for site, _ in group]
        for site in sites:
            calls = self.calls[site.path, site.side]
            if site.name not in self.seen:
                raise silent(site, calls)
            if site.call is None and calls > 1 and not often:
                raise called_often(site, calls)


@contextmanager
def hooked(
    module: torch.nn.Module,
    sites: Iterable[Site],
    visit: Visit,
    edits: Sequence[tuple[Site, Edit]] = (),
    *,
    stop: bool = False,
    part: Part | None = None,
    skip: Iterable[str] = (),
) -> Iterator[None]:
    """Run `visit` on the activations of `sites`, and `edits`, during one forward pass.

    All hooks are removed at the end of the `with` block, also after an error.

    Args:
        module: The model; site paths are relative to it.
        sites: What to read. Reads see the edits of the same module.
        visit: Called once per site, in forward order.
        edits: What to replace.
        stop: End the pass once every site has been seen. The rest of the model is not computed,
            and the rest of the `with` block is skipped. A module that would run a second time
            goes unnoticed, so run the first batch without `stop`.
        part: Which tensor of a module's output to read; None: the activation.
        skip: Paths of blocks to skip (`vlmlens.passes.skipping.needless`).

    Raises:
        SiteSilent: At the end of the block, unless another error occurred: a site gave no
            activation, or its module ran several times and the site does not say which call is
            meant.
    """
    wanted: dict[_Side, list[Site]] = {}
    for site in sites:
        wanted.setdefault((site.path, site.side), []).append(site)
    edited: dict[_Side, list[tuple[Site, Edit]]] = {}
    for site, edit in edits:
        edited.setdefault((site.path, site.side), []).append((site, edit))
    names = {site.name for group in wanted.values() for site in group}
    names |= {site.name for site, _ in edits}
    hooks = _Hooks(module, visit, wanted, edited, part, len(names) if stop else None)
    try:
        with hooks.registered(), passing_on(module, skip):
            yield
    except _Done:
        pass
    hooks.check()


def depth() -> int:
    """How many `passes_apart` are around; hooks and edits hold at the depth where they began."""
    return _DEPTH.get()


@contextmanager
def passes_apart() -> Iterator[None]:
    """Run other passes amid one that is hooked: the hooks of that one do nothing meanwhile."""
    before = _DEPTH.set(_DEPTH.get() + 1)
    try:
        yield
    finally:
        _DEPTH.reset(before)


@contextmanager
def edit_hooks(
    module: torch.nn.Module,
    edits: Sequence[tuple[Site, Edit]],
    rewrites: Sequence[tuple[Site, Rewrite]] = (),
    *,
    often: bool = False,
) -> Iterator[None]:
    """Replace activations during a pass, which other hooks may read, and may end early.

    Reads whose hooks were added before see the edited values.

    Args:
        module: The model; site paths are relative to it.
        edits: What to replace, in this order where it is the same site.
        rewrites: What to change of the arguments of modules.
        often: Whether modules may run several times.

    Raises:
        SiteSilent: At the end, unless the pass was ended early: a module did not run, or ran
            several times and its site does not say which call is meant.
    """
    by_side: dict[_Side, list[tuple[Site, Edit]]] = {}
    for site, edit in edits:
        by_side.setdefault((site.path, site.side), []).append((site, edit))
    changed: dict[_Side, list[tuple[Site, Rewrite]]] = {}
    for site, rewrite in rewrites:
        changed.setdefault((site.path, "in"), []).append((site, rewrite))
    hooks = _Hooks(module, _ignore, {}, by_side, None, rewrites=changed)
    with hooks.registered():
        yield
    hooks.check(often=often)


def trace_forward(
    vlm: Model,
    batch: Batch,
    patterns: Iterable[str | Site],
    *,
    logits: Logits,
) -> Trace:
    """The implementation of `ModelAdapter.trace`."""
    sites = {site.name: site for item in patterns for site in _resolved(vlm, item)}
    trace = Trace(batch, {}, sites)

    def keep(site: Site, activation: torch.Tensor) -> None:
        trace.activations[site.name] = activation

    with torch.inference_mode(), hooked(vlm.module, sites.values(), keep):
        trace.logits = vlm.forward(batch, logits=logits).logits
    return trace


def first_call(
    module: torch.nn.Module, path: str, run: Callable[[], object]
) -> tuple[tuple[Any, ...], Mapping[str, Any]] | None:
    """The arguments of a submodule's first call in a pass. The pass is stopped there.

    Args:
        module: The model.
        path: Path of the submodule.
        run: Starts a forward pass.

    Returns:
        The positional and keyword arguments; None if the pass ends without calling the submodule.
    """

    def stop(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        raise _Reached(args, kwargs)

    handle = module.get_submodule(path).register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with uncompiled(module, [path]):
            run()
    except _Reached as reached:
        return reached.args[0], reached.args[1]
    finally:
        handle.remove()
    return None


def end_pass() -> NoReturn:
    """End the forward pass that is running inside `hooked`, since nothing more is needed."""
    raise _Done


class _Done(BaseException):
    """Ends a pass that has given everything that was asked for."""


class _Reached(BaseException):
    """Stops a pass. It is no `Exception`, so that no error handler on the way catches it."""


def _ignore(site: Site, activation: torch.Tensor) -> None:
    del site, activation


def _resolved(vlm: Model, item: str | Site) -> list[Site]:
    return [item] if isinstance(item, Site) else vlm.sites.resolve(item)
