"""What of a pass depends on trainable parameters, and what these computations need of the rest.

It is found by following the data of one batch (`flow`), not by the names of modules: so it holds
where a model takes several hidden states of the tower, adds something between blocks, runs the
tower once per image, or has a parameter outside of all its modules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.utils._pytree import tree_leaves

from vlmlens.passes.compiling import block_paths, uncompiled
from vlmlens.passes.flow import Flow, Marks, tensors_in
from vlmlens.passes.forwards import Forward
from vlmlens.passes.modes import differentiable
from vlmlens.passes.recording import copied, instead
from vlmlens.passes.tracing import hooked
from vlmlens.sites import Axis, Site

if TYPE_CHECKING:
    from vlmlens.passes.batch import Batch
    from vlmlens.passes.model import Model

Kept = Literal["lean", "blocks", "nothing"]
_TRAINED = "trained"
_INPUT = ""
_PLAIN = (torch.Tensor, torch.dtype, torch.device, int, float, str, type(None))


@dataclass(frozen=True, slots=True)
class Plan:
    """What is kept of a batch.

    Args:
        kept: "lean": of the frozen modules, only the tensors that others need; "blocks": all that
            they give; "nothing".
        modules: The outermost frozen modules by path; for each, how many leaves what it gives has,
            and which of them are kept. Of an output with another number, all are kept.
        inputs: The names of inputs of which floats are not needed.
        end: The first block of the language side that must be computed: everything that is kept
            has been computed when it begins; None: it is not known.
    """

    kept: Kept
    modules: Mapping[str, tuple[int, frozenset[int]]] = field(default_factory=dict)
    inputs: frozenset[str] = frozenset()
    end: str | None = None

    def whole(self) -> Plan:
        """The plan that keeps everything that the same modules give."""
        every = {path: (-1, frozenset[int]()) for path in self.modules}
        return Plan("blocks", every, frozenset(), self.end)


def planned(vlm: Model, batch: Batch, sites: Iterable[Site], target: Site) -> Plan:
    """The plan of a model for a batch; takes two passes.

    Args:
        vlm: The model, with the trainable part in it.
        batch: The batch.
        sites: Where else something changes from pass to pass.
        target: The site whose activation passes must give.
    """
    modules = _candidates(vlm)
    trained = _trained(vlm, modules, sites)
    first = _Dependence(vlm, trained)
    with following(vlm, modules, first.wrap, first.flow):
        target_of(vlm, batch, target)
    frozen = first.frozen()
    if not frozen:
        return Plan("nothing")
    second = _Needs(vlm, frozen)
    inputs = _mark_inputs(second.flow, batch)
    with following(vlm, modules, second.wrap, second.flow):
        reached = target_of(vlm, batch, target)
        needed = second.flow.of(reached) | second.flow.steering
    kept = {path: second.kept(path, needed) for path in frozen}
    spare = {name for name in inputs if (_INPUT, name) not in needed}
    return Plan("lean", kept, frozenset(spare), _end(first, frozen, vlm))


def target_of(vlm: Model, batch: Batch, target: Site) -> torch.Tensor:
    """The activation of a site in a pass without gradients, which ends there."""
    found: list[torch.Tensor] = []
    reading = hooked(vlm.module, [target], lambda _, given: found.append(given), stop=True)
    with differentiable(), torch.no_grad(), reading:
        vlm.forward(batch, logits="none")
    return found[0]


@contextmanager
def following(
    vlm: Model,
    modules: Iterable[str],
    wrap: Callable[[str, Forward], Forward],
    flow: Flow,
) -> Iterator[None]:
    """Follow the data of a pass inside, with calls of modules wrapped."""
    torch.clear_autocast_cache()  # else weights that were cast before have no marks
    inside = [f"{path}.x" for path in block_paths(vlm).values()]
    with uncompiled(vlm.module, inside), instead(vlm.module, {p: p for p in modules}, wrap), flow:
        yield


class _Dependence:
    """Which modules compute something that depends on what is trained."""

    def __init__(self, vlm: Model, trained: set[str]) -> None:
        self._module, self._trained = vlm.module, trained
        self._blocks = set(block_paths(vlm).values())
        self.flow = Flow(_TRAINED)
        owned = [value for value in vlm.module.parameters() if value.requires_grad]
        self.flow.mark(owned, {_TRAINED})
        self.begun: list[str] = []
        self.ended: set[str] = set()
        self.open: set[str] = set()
        """The modules that must be computed in each pass."""

    def wrap(self, path: str, forward: Forward) -> Forward:
        """A forward method that finds out whether its module is open."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.begun.append(path)
            met = self.flow.met
            depends = path in self._trained or bool(self.flow.of((args, kwargs)))
            with self.flow.paused(path in self._blocks):
                output = forward(*args, **kwargs)
            self.ended.add(path)
            if depends:
                self.flow.met += 1
                self.flow.mark(output, {_TRAINED})
            if depends or self.flow.met > met or not _is_plain(output):
                self.open.add(path)
            return output

        return run

    def frozen(self) -> list[str]:
        """The outermost modules that ran, and need not run again."""
        closed = self.ended - self.open
        outermost = [path for path in dict.fromkeys(self.begun) if _is_outermost(path, closed)]
        return [path for path in outermost if _is_costly(self._module.get_submodule(path))]


class _Needs:
    """Which tensors that frozen modules give are needed by the rest of the pass."""

    def __init__(self, vlm: Model, frozen: Sequence[str]) -> None:
        self._frozen, self._blocks = set(frozen), set(block_paths(vlm).values())
        self.flow = Flow()
        self._calls = 0
        self._leaves: dict[str, Counter[int]] = {path: Counter() for path in frozen}
        self._fixed: set[tuple[str, int]] = set()

    def wrap(self, path: str, forward: Forward) -> Forward:
        """A forward method whose output has marks."""
        return self._source(path, forward) if path in self._frozen else self._link(path, forward)

    def kept(self, path: str, needed: Marks) -> tuple[int, frozenset[int]]:
        """See `Plan.modules`."""
        counts = set(self._leaves[path])
        if len(counts) != 1:
            return -1, frozenset()
        (count,) = counts
        wanted = needed | self._fixed
        return count, frozenset(leaf for leaf in range(count) if (path, leaf) in wanted)

    def _source(self, path: str, forward: Forward) -> Forward:
        def run(*args: Any, **kwargs: Any) -> Any:
            self._calls += 1
            with self.flow.paused():
                output = copied(forward(*args, **kwargs))
            leaves = tree_leaves(output)
            self._leaves[path][len(leaves)] += 1
            for number, leaf in enumerate(leaves):
                self.flow.mark(leaf, {(path, number)})
                if isinstance(leaf, torch.Tensor) and not leaf.is_floating_point():
                    self._fixed.add((path, number))  # Python may read it: lengths, indices
            return output

        return run

    def _link(self, path: str, forward: Forward) -> Forward:
        """Marks pass through a module without frozen ones, whatever kernels it calls."""

        def run(*args: Any, **kwargs: Any) -> Any:
            calls, marks = self._calls, self.flow.of((args, kwargs))
            with self.flow.paused(path in self._blocks):
                output = forward(*args, **kwargs)
            if calls == self._calls:
                self.flow.mark(output, marks)
            return output

        return run


def _candidates(vlm: Model) -> list[str]:
    """Paths of all modules with parameters that are not inside a block.

    Of those without, some are given activations only for their type: rotary embeddings.
    """
    blocks = tuple(f"{path}." for path in block_paths(vlm).values())
    return [
        path
        for path, module in vlm.module.named_modules()
        if not path.startswith(blocks) and next(module.parameters(), None) is not None
    ]


def _trained(vlm: Model, modules: Iterable[str], sites: Iterable[Site]) -> set[str]:
    """The modules with something in them that changes from pass to pass.

    A site with trainable parameters below it is known by these.
    """
    named = vlm.module.named_parameters(remove_duplicate=False)
    owners = {name.rpartition(".")[0] for name, value in named if value.requires_grad}
    others = {site.path for site in sites if not any(_within(owner, site.path) for owner in owners)}
    return {
        path
        for path in modules
        if any(_within(changed, path) for changed in owners | others)
        or any(_within(path, other) for other in others)
    }


def _within(path: str, around: str) -> bool:
    return not around or f"{path}.".startswith(f"{around}.")


def _is_outermost(path: str, among: set[str]) -> bool:
    parts = path.split(".") if path else []
    around = (".".join(parts[:length]) for length in range(len(parts)))
    return path in among and not any(each in among for each in around)


def _is_costly(module: torch.nn.Module) -> bool:
    """Whether a module multiplies matrices; norms and look-ups are run again."""
    return any(
        parameter.ndim > 1
        for each in module.modules()
        if not isinstance(each, torch.nn.Embedding)
        for parameter in each.parameters(recurse=False)
    )


def _is_plain(output: Any) -> bool:
    return all(isinstance(leaf, _PLAIN) for leaf in tree_leaves(output))


def _mark_inputs(flow: Flow, batch: Batch) -> list[str]:
    """Mark the inputs of floats by their names."""
    found = []
    for name, value in batch.inputs.items():
        floats = [tensor for tensor in tensors_in(value) if tensor.is_floating_point()]
        if floats:
            flow.mark(floats, {(_INPUT, name)})
            found.append(name)
    return found


def _end(first: _Dependence, frozen: Iterable[str], vlm: Model) -> str | None:
    """See `Plan.end`."""
    sides = (Axis.LLM, Axis.ENCODER)
    blocks = {
        s.path for s in vlm.sites.canonical.values() if s.index is not None if s.axis in sides
    }
    ends = [path for path in first.begun if path in blocks and path in first.open]
    if not ends:
        return None
    since = first.begun[first.begun.index(ends[0]) :]
    return None if set(since) & set(frozen) else ends[0]
