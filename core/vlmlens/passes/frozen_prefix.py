"""What lies before the trainable part of a model is computed once per batch, and kept.

The first batch decides what is kept (`frozen_plan`), and it is checked: a pass with the prefix must
give what a whole pass gives. Later batches of the same kind are only recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only

from vlmlens._display import brief, count
from vlmlens.errors import EditError, SpecError
from vlmlens.passes.edits import EdgeCut
from vlmlens.passes.flow import tensors_in
from vlmlens.passes.forwards import Forward
from vlmlens.passes.frozen_plan import Kept, Plan, planned, target_of
from vlmlens.passes.memory import is_out_of_memory
from vlmlens.passes.recording import instead, player, recorder
from vlmlens.sites import Site

if TYPE_CHECKING:
    from vlmlens.passes.batch import Batch
    from vlmlens.passes.model import Model

_ROUNDING = 8
"""A pass with the prefix may be this many eps of its type away from a whole one, relative to the
largest value: on some devices, the same pass twice does not give the same bits."""
_HINT = "Run one pass of `prefix.batch` inside `given`."


@dataclass(slots=True, eq=False)
class Form:
    """What was found out with first batches, for prefixes of the same model and sites.

    Batches that lack an input, such as those without images, are of another kind. Each kind is
    decided by its first batch.
    """

    plans: dict[frozenset[str], Plan] = field(default_factory=dict)


class FrozenPrefix:
    """What a pass of a batch computes before some sites, for many passes.

    Only what depends on the sites, or on parameters that want gradients, is computed inside
    `given`: gradients and the readout are those of a whole pass. It is made in passes without
    gradients: four for the first batch of its kind, else one, which ends where the sites begin.

    Args:
        vlm: The model, with the trainable part in it, in evaluation mode.
        batch: From `encode`.
        sites: Where, or inside which, something changes from pass to pass. Parameters that want
            gradients need not be named, nor edits that are active.
        form: The `form` of an earlier prefix; None: nothing is known.
        device: Where to keep tensors ("cpu"); None: where the model computes them.

    Raises:
        EditError: The batch is of `encode_shared`.
        SpecError: Nothing can change.
    """

    def __init__(
        self,
        vlm: Model,
        batch: Batch,
        sites: Sequence[Site] = (),
        *,
        form: Form | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if batch.passes:
            raise EditError(
                "A batch of `encode_shared` has no prefix.", hint="Make it with `encode`."
            )
        self._vlm = vlm
        self._batch = batch
        self._device = None if device is None else torch.device(device)
        self.form = Form() if form is None else form
        kind = _kind(batch)
        if kind not in self.form.plans:
            self.form.plans[kind] = self._decided([*sites, *_edited(vlm)])
        elif self.form.plans[kind].modules:
            self._record(self.form.plans[kind])
        self._plan = self.form.plans[kind]
        if not self._plan.modules:
            self._outputs: dict[str, list[Any]] = {}
        self._inputs = self._kept_inputs()

    @property
    def kept(self) -> Kept:
        """What is kept: only what later passes need, all that frozen modules give, or nothing."""
        return self._plan.kept

    @property
    def bytes(self) -> int:
        """The memory of all kept tensors, the needed inputs among them."""
        leaves = tree_leaves((self._outputs, self._inputs))
        return sum(leaf.bytes for leaf in leaves if isinstance(leaf, _Kept))

    @property
    def batch(self) -> Batch:
        """The batch for passes inside `given`: what they do not need of its inputs is zeros.

        Keep the prefix and not the batch: the inputs are made anew at each access.
        """
        return replace(self._batch, inputs=_given(self._inputs))

    @contextmanager
    def given(self) -> Iterator[None]:
        """Have a pass of `batch` inside compute only what can have changed.

        Raises:
            EditError: A module runs more often than it did: more than one pass, another batch.
        """
        with instead(self._vlm.module, {path: path for path in self._outputs}, self._player):
            yield

    def __repr__(self) -> str:
        modules = count(len(self._outputs), "frozen module")
        return brief(self, self.kept, modules, f"{self.bytes} bytes")

    def _decided(self, sites: Sequence[Site]) -> Plan:
        """The leanest plan that gives what a whole pass gives; the batch is recorded with it."""
        target = _target(self._vlm)
        _check_changes(self._vlm, sites)
        lean = Plan("nothing") if target is None else planned(self._vlm, self._batch, sites, target)
        if target is None or not lean.modules:
            return Plan("nothing")
        whole = target_of(self._vlm, self._batch, target)
        for plan in (lean, lean.whole()):
            self._record(plan)
            if self._is_exact(plan, whole, target):
                return plan
        return Plan("nothing")

    def _is_exact(self, plan: Plan, whole: torch.Tensor, target: Site) -> bool:
        self._plan = plan
        self._inputs = self._kept_inputs()
        try:
            with self.given():
                found = target_of(self._vlm, self.batch, target)
        except (RuntimeError, ValueError) as error:  # the model asks for values that are not kept
            if is_out_of_memory(error):
                raise
            return False
        if found.shape != whole.shape:
            return False
        near = _ROUNDING * torch.finfo(whole.dtype).eps * float(whole.abs().max())
        return float((found - whole).abs().max()) <= near

    def _record(self, plan: Plan) -> None:
        """Keep what the frozen modules of a plan give."""
        self._outputs = {path: [] for path in plan.modules}

        def wrap(path: str, forward: Forward) -> Forward:
            keep = partial(self._thinned, plan.modules[path])
            return recorder(self._outputs[path], forward, keep)

        with instead(self._vlm.module, {path: path for path in plan.modules}, wrap):
            target_of(self._vlm, self._batch, _last_needed(self._vlm, plan))

    def _thinned(self, wanted: tuple[int, frozenset[int]], output: Any) -> Any:
        leaves, structure = tree_flatten(output)
        whole = len(leaves) != wanted[0]
        kept = [
            _Kept.of(leaf, self._device, values=whole or number in wanted[1])
            if isinstance(leaf, torch.Tensor)
            else leaf
            for number, leaf in enumerate(leaves)
        ]
        return structure.unflatten(kept)

    def _player(self, path: str, forward: Forward) -> Forward:
        return player(path, self._outputs[path], forward, give=_given, hint=_HINT)

    def _kept_inputs(self) -> Mapping[str, Any]:
        def kept(name: str, value: torch.Tensor) -> _Kept:
            spare = name in self._plan.inputs and value.is_floating_point()
            return _Kept.of(value, self._device, values=not spare, copy=False)

        return {
            name: tree_map_only(torch.Tensor, partial(kept, name), value)
            for name, value in self._batch.inputs.items()
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """A tensor that is kept, or only how large it is.

    Args:
        shape: Its shape.
        dtype: Its type.
        device: Where it is needed.
        values: The tensor, wherever it is kept; None: any values will do.
    """

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    values: torch.Tensor | None

    @classmethod
    def of(
        cls, tensor: torch.Tensor, place: torch.device | None, *, values: bool, copy: bool = True
    ) -> _Kept:
        own = None
        if values:
            moved = tensor if place is None else tensor.to(place)
            own = moved.clone() if copy and moved is tensor else moved
        return cls(tensor.shape, tensor.dtype, tensor.device, own)

    @property
    def bytes(self) -> int:
        return 0 if self.values is None else self.values.numel() * self.values.element_size()

    def given(self) -> torch.Tensor:
        """A tensor of its own: models write into some."""
        if self.values is None:
            return torch.zeros(self.shape, dtype=self.dtype, device=self.device)
        if self.values.device == self.device:
            return self.values.clone()
        return self.values.to(self.device)


def _given(kept: Any) -> Any:
    return tree_map_only(_Kept, _Kept.given, kept)


def _kind(batch: Batch) -> frozenset[str]:
    """Which inputs and axes a batch has."""
    inputs = (name for name, value in batch.inputs.items() if tensors_in(value))
    return frozenset([*inputs, *(f"{axis} axis" for axis in batch.layouts)])


def _target(vlm: Any) -> Site | None:
    """The site from which logits are computed; None if there is none."""
    readout = vlm.readout()
    return None if readout is None else vlm.sites.resolve(readout.site)[0]


def _last_needed(vlm: Any, plan: Plan) -> Site:
    """Where a pass may end that records what a plan keeps."""
    if plan.end is None:
        found: Site = vlm.sites.resolve(vlm.readout().site)[0]
        return found
    block: Site = vlm.sites.owner(plan.end)
    return replace(block, side="in")


def _edited(vlm: Any) -> list[Site]:
    """The sites of active edits: edited modules must run."""
    found: list[Site] = []
    for edit in (edit for active in vlm.active_edits for edit in active.edits):
        if isinstance(edit, EdgeCut):
            found += [site for site, _ in vlm.sites.attentions(edit.site)]
        else:
            found += [edit.site] if isinstance(edit.site, Site) else vlm.sites.resolve(edit.site)
    return found


def _check_changes(vlm: Model, sites: Iterable[Site]) -> None:
    if not list(sites) and not any(each.requires_grad for each in vlm.module.parameters()):
        raise SpecError(
            "No parameter wants gradients and no site was given, so every pass is the same.",
            subject="sites",
            hint="Attach the part that is trained, or name the sites that change.",
        )
