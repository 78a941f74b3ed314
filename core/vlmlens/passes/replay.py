"""Replay: many edited passes of one batch, in which only what an edit can change is computed.

One pass of the batch is recorded: what each block and the projector gave. In an edited pass, those
before the first edited one give that back and compute nothing. The numbers are those of a whole
pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from vlmlens._display import brief
from vlmlens._display import count as number_of
from vlmlens.errors import EditError
from vlmlens.passes.activation import activation_of, part_of
from vlmlens.passes.edits import EdgeCut, Edit
from vlmlens.passes.forwards import Forward
from vlmlens.passes.others import Others, rows_of
from vlmlens.passes.recording import instead, player, recorder
from vlmlens.sites import Axis, Site
from vlmlens.tokens import Selector

if TYPE_CHECKING:
    from vlmlens.passes.batch import Batch, Logits
    from vlmlens.passes.model import EncodingModel

_ORDER = (Axis.VISION, Axis.PROJECTOR, Axis.ENCODER, Axis.LLM)
_PROJECTOR = "projector"
_BEHIND = ("llm.norm", "llm.head")
_HINT = "Leave the replay out: use `edited` and `forward`."


@dataclass(slots=True)
class Replay:
    """What the blocks of a model gave in one pass of a batch. Made by `ModelAdapter.replay`.

    It keeps the output of every block: rows x width x blocks values. Its passes run under the edits
    that are active when it is made, which must still be active when it is used.

    Args:
        vlm: The model.
        batch: The batch, from `encode`.
        kind: Which logits its passes give.
    """

    vlm: EncodingModel
    batch: Batch
    kind: Logits = "last"
    _logits: torch.Tensor | None = field(default=None, init=False)
    _active: list[Any] = field(init=False)
    _blocks: dict[str, Site] = field(init=False)
    _outputs: dict[str, list[Any]] = field(init=False)
    _rows: dict[tuple[str, str], list[torch.Tensor]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.batch.passes:
            raise EditError(
                "A batch of `encode_shared` cannot be replayed.", hint="Make it with `encode`."
            )
        vlm: Any = self.vlm
        self._active = list(vlm.active_edits)
        self._blocks = _blocks(self.vlm)
        self._outputs = {name: [] for name in self._blocks}
        with self._instead(self._blocks, self._recorder):
            self._logits = self.vlm.forward(self.batch, logits=self.kind).logits

    @property
    def logits(self) -> torch.Tensor | None:
        """The logits of the recorded pass, as `ForwardOutput.logits`."""
        return self._logits

    def edited(
        self,
        edits: Sequence[Any],
        *,
        others: Any = (),
        donors: Any = (),
    ) -> torch.Tensor | None:
        """The logits of a pass under edits; equal to those of a whole pass.

        Args:
            edits: See `ModelAdapter.edited`.
            others: The samples to which edits compare, or what was measured of them.
            donors: Whose rows `patch` takes: samples, or the replay of a batch of them, one for
                each sample of this batch.
        """
        vlm: Any = self.vlm
        with vlm.edited(edits, others=others, donors=donors):
            made = vlm.active_edits[-1].edits if edits else ()
            with self.before(self._edited_sites(made)):
                logits: torch.Tensor | None = vlm.forward(self.batch, logits=self.kind).logits
        return logits

    def rows(self, site: Site, selector: Selector) -> list[torch.Tensor]:
        """Per sample, the selected rows `[k, width]` in the recorded pass; kept for later calls.

        Nothing is computed for the output of a block, else the block around the site.
        """
        key = (site.name, str(selector))
        if key not in self._rows:
            output = self._recorded_output(site)
            if output is not None:
                activation = part_of(activation_of(output, site), site, self.vlm.module)
                self._rows[key] = rows_of(activation, site, selector, self.batch)
            else:
                with self._as_recorded(), self.before([site]):
                    found = Others(self.vlm, ()).rows(self.batch, [(site, selector)])
                self._rows[key] = found[0]
        return self._rows[key]

    def _recorded_output(self, site: Site) -> Any:
        """What a site gave in the recorded pass; None if that is not known."""
        kept = self._outputs.get(site.name, [])
        known = site == self._blocks.get(site.name) and len(kept) == 1 and not self._active
        return kept[0] if known else None

    @contextmanager
    def before(self, sites: Iterable[Site]) -> Iterator[None]:
        """Have the blocks whose output does not depend on these sites give back what they gave.

        Args:
            sites: Everything that will be edited, or read, in the passes inside.
        """
        wanted = list(sites)
        given = {name: site for name, site in self._blocks.items() if self._same(site, wanted)}
        for name in self._edited_inside():
            given.pop(name, None)
        with self._instead(given, self._player):
            yield

    def computed(self, sites: Iterable[Site]) -> int:
        """How many blocks a pass computes, if these sites are edited."""
        wanted = list(sites)
        return sum(not self._same(site, wanted) for site in self._blocks.values())

    def __repr__(self) -> str:
        return brief(self, repr(self.batch), number_of(len(self._blocks), "block"))

    def _edited_sites(self, edits: Iterable[Edit | EdgeCut]) -> list[Site]:
        found: list[Site] = []
        for edit in edits:
            if isinstance(edit, EdgeCut):
                found += [site for site, _ in self.vlm.sites.attentions(edit.site)]
            elif isinstance(edit.site, Site):
                found.append(edit.site)
            else:
                found += self.vlm.sites.resolve(edit.site)
        return found

    @contextmanager
    def _as_recorded(self) -> Iterator[None]:
        """The edits that were active in the recorded pass hold inside, and no others."""
        vlm: Any = self.vlm
        before = list(vlm.active_edits)
        vlm.active_edits[:] = [replace(each) for each in self._active]
        try:
            yield
        finally:
            vlm.active_edits[:] = before

    def _edited_inside(self) -> list[str]:
        """The blocks inside which an active edit has a module, which must run."""
        vlm: Any = self.vlm
        active = (edit for each in vlm.active_edits for edit in each.edits)
        owners = [(s, self.vlm.sites.owner(s.path)) for s in self._edited_sites(active)]
        return [owner.name for site, owner in owners if owner and owner.path != site.path]

    def _same(self, block: Site, sites: Iterable[Site]) -> bool:
        return all(_precedes(block, site, self.vlm.sites.owner(site.path)) for site in sites)

    def _recorder(self, name: str, forward: Forward) -> Forward:
        return recorder(self._outputs[name], forward)

    def _player(self, name: str, forward: Forward) -> Forward:
        return player(name, self._outputs[name], forward, hint=_HINT)

    def _instead(
        self, blocks: Mapping[str, Site], wrap: Callable[[str, Forward], Forward]
    ) -> AbstractContextManager[None]:
        paths = {name: site.path for name, site in blocks.items()}
        return instead(self.vlm.module, paths, wrap)


def _blocks(vlm: EncodingModel) -> dict[str, Site]:
    """The blocks of all stacks, and a projector that contains none."""
    known = vlm.sites.canonical
    found = {
        name: site
        for name, site in known.items()
        if site.index is not None and name.endswith(f".block.{site.index}")
    }
    projector = known.get(_PROJECTOR)
    if projector and not any(s.path.startswith(f"{projector.path}.") for s in known.values()):
        found[_PROJECTOR] = projector
    return found


def _precedes(block: Site, site: Site, owner: Site | None) -> bool:
    """Whether a block gives the same, whatever happens at a site.

    Args:
        block: A block of a stack, or the projector.
        site: What is edited.
        owner: The canonical site that contains it.
    """
    if owner is None or owner.axis not in _ORDER or block.axis not in _ORDER:
        return False
    if owner.axis is not block.axis:
        return _ORDER.index(block.axis) < _ORDER.index(owner.axis)
    if owner.name in _BEHIND:
        return True
    if owner.name == block.name:
        return owner.path == site.path and site.side == "out"
    if _stack(owner) != _stack(block) or owner.index is None or block.index is None:
        return False
    return block.index < owner.index


def _stack(site: Site) -> str:
    return site.name.rpartition(".")[0]
