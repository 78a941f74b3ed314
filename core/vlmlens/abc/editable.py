"""Editable: a model whose passes and whose writing can be edited, whatever its adapter does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from vlmlens.abc.edit_texts import read_edit
from vlmlens.errors import CompositionError

if TYPE_CHECKING:
    import torch

    from vlmlens.passes.batch import Batch, Logits
    from vlmlens.passes.editing import Donors, Editing
    from vlmlens.passes.edits import EdgeCut, Edit
    from vlmlens.passes.others import Others
    from vlmlens.passes.replay import Replay
    from vlmlens.passes.soft_prompt import SoftPrompt
    from vlmlens.samples import Sample

Rows: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
"""A function from rows of an activation to those that replace them."""

Edits: TypeAlias = "Sequence[str | Edit | EdgeCut] | Mapping[str, Rows]"
"""Edits as text (`llm.block.3/image = zero`, one or several) or as objects; or functions by site
(`llm.block.3`: of the whole activation) or column (`llm.block.3/last`: of the rows of a sample)."""


class Editable:
    """The base of `ModelAdapter` that is about edits.

    Edits hold for `forward` and for `generate`: those that a subclass defines are wrapped, so that
    an adapter need not know of edits. What `encode_shared` returns is computed in several passes,
    so nothing is shared under edits, nor with virtual tokens.
    """

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name, wrap in _WRAPS.items():
            own = vars(cls).get(name)
            if inspect.isfunction(own) and not getattr(own, "__isabstractmethod__", False):
                setattr(cls, name, wrap(own))

    soft_prompt: SoftPrompt | None = None
    """The virtual tokens of every prompt: `encode` makes room for them, and every pass has their
    vectors there; see `prompted`."""

    @contextmanager
    def prompted(self, prompt: SoftPrompt) -> Iterator[Self]:
        """Have virtual tokens in every prompt that is encoded inside the `with` block.

        Batches are of the soft prompt that the model had when they were encoded. `describe` says
        which it is.

        Raises:
            CompositionError: The model reads no prompts, or has virtual tokens already.
        """
        from vlmlens.passes.soft_prompt import check_model, check_width

        model: Any = self
        check_model(model)
        check_width(prompt.vectors.shape[1], model)
        self.soft_prompt = prompt
        try:
            with self.holding(prompt.describe):
                yield self
        finally:
            self.soft_prompt = None

    @cached_property
    def active_edits(self) -> list[Editing]:
        """The edits that hold now: those of `edited`, outermost first."""
        return []

    @contextmanager
    def edited(
        self, edits: Edits, *, others: Sequence[Sample] | Others = (), donors: Donors = ()
    ) -> Iterator[Self]:
        """Edit activations in every pass inside the `with` block, while generating, too.

        Inner blocks edit what outer ones made.

        Args:
            edits: What to replace: `["llm.block.3/image = zero"]`.
            others: The samples to which edits compare: `mean` and `noise` need their rows,
                `resample` takes rows of one of them.
            donors: Whose rows `patch` takes: a sample for each of the batch, or by id.

        Yields:
            The model itself.

        Raises:
            EditError: An edit does not parse, or an intervention belongs to another place.
            SiteError, SelectorError: Its site or its selector does not exist.
            PluginError: There is no such intervention.
        """
        made = self.edit_always(edits, others=others, donors=donors)
        try:
            yield self
        finally:
            if made is not None:
                self.active_edits.remove(made)

    def edit_always(
        self, edits: Edits, *, others: Sequence[Sample] | Others = (), donors: Donors = ()
    ) -> Editing | None:
        """Edit activations in every pass from now on, as a run with edits does; see `edited`.

        Returns:
            What to remove from `active_edits` to end it; None if there are no edits.
        """
        from vlmlens.passes.editing import Editing
        from vlmlens.passes.edits import function_edits

        if not edits:
            return None
        if isinstance(edits, Mapping):
            opened: Sequence[Edit | EdgeCut] = function_edits(edits)
        else:
            several = [edits] if isinstance(edits, str) else edits
            opened = [read_edit(edit) if isinstance(edit, str) else edit for edit in several]
        model: Any = self
        made = Editing(model, opened, others, donors)
        _check_places(made, model)
        self.active_edits.append(made)
        return made

    @cached_property
    def holds(self) -> list[Callable[[], Mapping[str, Any]]]:
        """What was tuned and is in the model now: each says what it is, for the fingerprint."""
        return []

    @contextmanager
    def holding(self, described: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
        """Say in `describe`, inside the `with` block, that the model holds something tuned.

        Args:
            described: Gives what is said of it, JSON-ready: "kind", "component", "digest" and
                "merged".
        """
        self.holds.append(described)
        try:
            yield
        finally:
            self.holds.remove(described)

    def replay(self, batch: Batch, *, logits: Logits = "last") -> Replay:
        """One pass of a batch, recorded for many edited passes, which compute only what changes.

        `vlm.replay(batch).edited(["llm.block.20/image = zero"])` gives the logits of that edited
        pass; blocks before the first edited one do not run again. They equal those of a whole pass,
        bit for bit in float32 on the CPU.

        Args:
            batch: From `encode`.
            logits: Which logits the passes give.
        """
        from vlmlens.passes.replay import Replay

        model: Any = self
        return Replay(model, batch, logits)

    @contextmanager
    def edits_applied(self, batch: Batch, *, writing: bool = False) -> Iterator[None]:
        """Apply the active edits to a pass of a batch; `forward` and `generate` do so themselves.

        Args:
            batch: The batch.
            writing: Whether the model generates.
        """
        with ExitStack() as stack:
            for each in reversed(self.active_edits):  # hooks that are added last run first
                stack.enter_context(each.applied(batch, writing=writing))
            stack.enter_context(self._with_prompt(batch, writing=writing))
            yield

    def _with_prompt(self, batch: Batch, *, writing: bool) -> AbstractContextManager[None]:
        """What has the virtual tokens in a pass; edits see them."""
        from vlmlens.passes.soft_prompt import check_no_room

        model: Any = self
        if self.soft_prompt is None:
            check_no_room(batch)
            return nullcontext()
        return self.soft_prompt.applied(model, batch, writing=writing)


def _check_places(made: Editing, vlm: Any) -> None:
    from vlmlens.abc.intervention import Intervention
    from vlmlens.passes.edits import EditPlace

    for edit, site in made.placed:
        if isinstance(edit.operation, Intervention) and edit.selector is not None:
            place = EditPlace(site, edit.selector, edit.text, vlm.describe)
            edit.operation.check_place(place)


def _forward(own: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(own)
    def forward(self: Any, batch: Any, **arguments: Any) -> Any:
        with self.edits_applied(batch):
            return own(self, batch, **arguments)

    return forward


def _generate(own: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(own)
    def generate(self: Any, batch: Any, *, edits: Any = (), **arguments: Any) -> Any:
        with self.edited(edits), self.edits_applied(batch, writing=True):
            return own(self, batch, **arguments)

    return generate


def _encode(own: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(own)
    def encode(self: Any, samples: Any, **arguments: Any) -> Any:
        batch = own(self, samples, **arguments)
        if self.soft_prompt is not None:
            self.soft_prompt.check_made(batch)
        return batch

    return encode


def _encode_shared(own: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(own)
    def encode_shared(self: Any, groups: Any, **arguments: Any) -> Any:
        alone = self.active_edits or self.soft_prompt is not None
        return None if alone else own(self, groups, **arguments)

    return encode_shared


def _choice_scores(own: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(own)
    def choice_scores(self: Any, samples: Any) -> Any:
        compares = self.active_edits and own(self, ()) is not None
        if samples and compares:
            raise CompositionError(
                "This family compares choices with the image outside of its passes, where edits "
                "cannot be applied.",
                subject=self.active_edits[0].edits[0].text,
                hint="Leave the edits out, or choose another analysis.",
            )
        return own(self, samples)

    return choice_scores


def _describe(own: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(own)
    def describe(self: Any) -> Any:
        said = own(self)
        active: list[Editing] = self.active_edits
        if active and "edits" not in said:
            said = {**said, "edits": [edit for each in active for edit in each.describe()]}
        if self.holds and "tuned" not in said:
            tuned = [dict(each()) for each in self.holds]
            said = {**said, "tuned": tuned[0] if len(tuned) == 1 else tuned}
        return said

    return describe


_WRAPS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "encode": _encode,
    "forward": _forward,
    "generate": _generate,
    "encode_shared": _encode_shared,
    "choice_scores": _choice_scores,
    "describe": _describe,
}
