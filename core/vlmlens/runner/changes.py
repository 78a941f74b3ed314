"""What an analysis changes in the model of a run, beside what the run itself did."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from vlmlens.runs.trust import with_whole_paths
from vlmlens.tuned.opening import open_tuned

if TYPE_CHECKING:
    from vlmlens.spec.model import RunSpec
    from vlmlens.tuned.record import Tuned

_SHOWN = 16


@dataclass(frozen=True)
class Changes:
    """Edits behind those of the run, and what was tuned in place of the run's own.

    Args:
        edits: The edits, as text.
        tuned: What is put into the model; None: what the run put in.
        merge_tuned: Whether LoRA of `tuned` is added to the weights.
    """

    edits: tuple[str, ...] = ()
    tuned: str | None = None
    merge_tuned: bool = True

    @classmethod
    def of(cls, spec: RunSpec) -> Changes:
        """The changes that a spec asks for, with whole paths."""
        whole = with_whole_paths(spec)
        return cls(tuple(whole.edits), whole.tuned, whole.merge_tuned)

    def __bool__(self) -> bool:
        return bool(self.edits) or self.tuned is not None

    @property
    def texts(self) -> list[str]:
        """The changes in words, the same for the same numbers; kept with results."""
        if self.opened is None:
            return list(self.edits)
        merged = "" if self.merge_tuned else ", not merged"
        return [f"tuned {self.opened.digest[:_SHOWN]}{merged}", *self.edits]

    @property
    def first(self) -> str:
        """One change as the user wrote it, for messages."""
        return self.edits[0] if self.edits else str(self.tuned)

    @property
    def told(self) -> str:
        """All changes as the user wrote them."""
        found = [] if self.tuned is None else [f"tuned = {self.tuned}"]
        return "; ".join([*found, *self.edits])

    @cached_property
    def opened(self) -> Tuned | None:
        """What was tuned; None if nothing is to be put in.

        Raises:
            CheckpointError: It is not there, or nothing that was tuned.
        """
        return None if self.tuned is None else open_tuned(self.tuned)

    def made_to(self, spec: RunSpec) -> RunSpec:
        """The spec of a run with these changes."""
        update: dict[str, object] = {}
        if self.edits:
            update["edits"] = [*spec.edits, *self.edits]
        if self.tuned is not None:
            update |= {"tuned": self.tuned, "merge_tuned": self.merge_tuned}
        return spec.model_copy(update=update) if update else spec


NO_CHANGES = Changes()
