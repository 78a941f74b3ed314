"""Reading and editing activations in one forward pass: the only module that registers hooks.

A module can return a tensor; a tuple or model output whose first tensor is the activation (a
decoder layer's hidden states, an attention's output); or a list of tensors, one per image, which
are read as one. Only `activation_of` unwraps them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import torch

from vlmlens._display import brief, count
from vlmlens.errors import SiteNotFound, SiteSilent, VlmlensError, did_you_mean
from vlmlens.passes.compiling import uncompiled
from vlmlens.passes.skipping import passing_on
from vlmlens.sites import Axis, Site

if TYPE_CHECKING:
    from vlmlens.passes.batch import Batch, Logits
    from vlmlens.passes.model import Model

Edit: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""A function from an activation to the tensor of the same shape that replaces it."""

Visit: TypeAlias = Callable[[Site, torch.Tensor], None]
"""A function that is called with a site and its activation during the pass."""

Part: TypeAlias = Callable[[Any, Site], torch.Tensor]
"""Takes the wanted tensor from a module's output; raises `SiteSilent` if there is none."""


@dataclass(slots=True)
class Trace(Mapping[str, torch.Tensor]):
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
            raise _not_traced(site, self.activations)
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
            raise _not_traced(parsed.site, self.sites)
        site = self.sites[parsed.site]
        check_axis(site, self.batch.layouts)
        return select(self[parsed.site], parsed.selector, self.batch.layouts[site.axis], site)


@dataclass(slots=True)
class _Hooks:
    """The hooks of one pass, and what they recorded."""

    visit: Visit
    wanted: Mapping[str, Sequence[Site]]
    edits: Mapping[str, Sequence[tuple[Site, Edit]]]
    part: Part
    stop_after: int | None = None
    calls: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)

    def hook(self, path: str) -> Callable[[torch.nn.Module, Any, Any], Any]:
        """The forward hook of one module."""

        def run(module: torch.nn.Module, args: Any, output: Any) -> Any:
            del module, args
            call = self.calls[path]
            self.calls[path] += 1
            edited = self._edited(path, call, output)
            for site in self.wanted.get(path, ()):
                if site.call in (None, call):
                    self.seen.add(site.name)
                    self.visit(site, self.part(edited, site))
            if len(self.seen) == self.stop_after:
                raise _Done
            return edited if path in self.edits else None

        return run

    def _edited(self, path: str, call: int, output: Any) -> Any:
        for site, edit in self.edits.get(path, ()):
            if site.call in (None, call):
                self.seen.add(site.name)
                output = replaced_activation(output, site, edit)
        return output

    def check(self) -> None:
        """Raise an error if a site gave no activation, or several instead of one."""
        sites = [site for group in self.wanted.values() for site in group]
        sites += [site for group in self.edits.values() for site, _ in group]
        for site in sites:
            calls = self.calls[site.path]
            if site.name not in self.seen:
                raise _silent(site, calls)
            if site.call is None and calls > 1:
                raise _called_often(site, calls)


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
    wanted: dict[str, list[Site]] = {}
    for site in sites:
        wanted.setdefault(site.path, []).append(site)
    by_path: dict[str, list[tuple[Site, Edit]]] = {}
    for site, edit in edits:
        by_path.setdefault(site.path, []).append((site, edit))
    names = {site.name for group in wanted.values() for site in group}
    names |= {site.name for site, _ in edits}
    hooks = _Hooks(visit, wanted, by_path, part or activation_of, len(names) if stop else None)
    # Before all other hooks: those by which transformers captures hidden states must see edits.
    handles = [
        module.get_submodule(path).register_forward_hook(hooks.hook(path), prepend=True)
        for path in {**wanted, **by_path}
    ]
    try:
        with uncompiled(module, {**wanted, **by_path}), passing_on(module, skip):
            yield
    except _Done:
        pass
    finally:
        for handle in handles:
            handle.remove()
    hooks.check()


def trace_forward(
    vlm: Model,
    batch: Batch,
    patterns: Iterable[str | Site],
    *,
    logits: Logits,
    edits: Mapping[str, Edit],
) -> Trace:
    """The implementation of `ModelAdapter.trace`."""
    sites = {site.name: site for item in patterns for site in _resolved(vlm, item)}
    pairs = [(site, edit) for pattern, edit in edits.items() for site in vlm.sites.resolve(pattern)]
    trace = Trace(batch, {}, sites)

    def keep(site: Site, activation: torch.Tensor) -> None:
        trace.activations[site.name] = activation

    with torch.inference_mode(), hooked(vlm.module, sites.values(), keep, pairs):
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


def activation_of(output: Any, site: Site) -> torch.Tensor:
    """The activation in a module's output.

    That is the tensor itself, or the first tensor in a tuple, list or model output. A list of
    `[rows, width]` tensors of equal width (one per image) is concatenated.

    Raises:
        SiteSilent: The output contains no tensor.
    """
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if _in_pieces(output):
        return torch.cat(output)
    if isinstance(output, (tuple, list)):
        for item in output:
            if isinstance(item, torch.Tensor):
                return item
    raise SiteSilent(
        f"The site {site.name!r} gave {type(output).__name__}, which holds no tensor.",
        subject=site.name,
        hint="Choose a module inside or around it.",
    )


def check_axis(site: Site, known: Iterable[Axis]) -> None:
    """Raise an error if a batch has no layout for a site's axis."""
    if site.axis not in set(known):
        raise SiteSilent(
            f"The site {site.name!r} lies on the {site.axis.value} axis, which this batch lacks.",
            subject=site.name,
            hint="Samples without an image have no vision side.",
        )


def replaced_activation(output: Any, site: Site, edit: Edit) -> Any:
    """A module's output with its activation edited, in its original form (tensor, tuple, ...).

    Raises:
        VlmlensError: The edit changes the shape.
    """
    before = activation_of(output, site)
    after = edit(before)
    if after.shape != before.shape:
        raise VlmlensError(
            f"The edit at {site.name!r} changed the shape from {tuple(before.shape)} to "
            f"{tuple(after.shape)}.",
            subject=site.name,
            hint="An edit must return a tensor of the same shape.",
        )
    if output is before:
        return after
    if _in_pieces(output):
        return list(after.split([len(piece) for piece in output]))
    if isinstance(output, Mapping):
        key = next(name for name, value in output.items() if value is before)
        output[key] = after  # type: ignore[index]
        return output
    return type(output)(after if item is before else item for item in output)


def _in_pieces(output: Any) -> bool:
    if not isinstance(output, list) or not output:
        return False
    return (
        all(isinstance(piece, torch.Tensor) and piece.ndim == 2 for piece in output)
        and len({piece.shape[-1] for piece in output}) == 1
    )


def _resolved(vlm: Model, item: str | Site) -> list[Site]:
    return [item] if isinstance(item, Site) else vlm.sites.resolve(item)


class _NotTraced(SiteNotFound, KeyError):
    """A KeyError too, as mappings raise it: `trace.get` and `in` rest on that."""


def _not_traced(name: str, traced: Iterable[str]) -> SiteNotFound:
    return _NotTraced(
        f"The site {name!r} was not traced in this pass.",
        subject=name,
        hint=f"{did_you_mean(name, traced)} Pass the site to `trace`. A column needs the full name "
        "of one site, not a pattern.".strip(),
    )


def _silent(site: Site, calls: int) -> SiteSilent:
    if calls:
        return SiteSilent(
            f"The site {site.name!r} asks for call {site.call} of {site.path}, which ran "
            f"{calls} times in this pass.",
            subject=site.name,
            hint=f"Calls are numbered 0 to {calls - 1}.",
        )
    return SiteSilent(
        f"The site {site.name!r} ({site.path}) gave no activation: its module did not run.",
        subject=site.name,
        hint="Either the model calls one of its children or a function instead: choose a site "
        "around or inside it. Or it is the unembedding, which runs only if logits are asked for.",
    )


def _called_often(site: Site, calls: int) -> SiteSilent:
    return SiteSilent(
        f"The module of {site.name!r} ({site.path}) ran {calls} times in this pass.",
        subject=site.name,
        hint=f"Choose one call: {site.name}#0 to {site.name}#{calls - 1}.",
    )
