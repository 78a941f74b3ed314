"""Editing: edits as data, applied to the passes of a model and to its writing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from vlmlens.errors import EditError, EditWithoutEffect, SelectorError
from vlmlens.passes.activation import check_axis
from vlmlens.passes.dropping import Dropping, dropped
from vlmlens.passes.edges import CutPlace, Cutting, check_cuts, cut_places
from vlmlens.passes.edits import EdgeCut, Edit, EditedRows, Spread
from vlmlens.passes.growing import GrowingPlaces, Places, fixed_places
from vlmlens.passes.others import Others
from vlmlens.passes.replay import Replay
from vlmlens.passes.tracing import depth, edit_hooks, passes_apart
from vlmlens.rows.uploads import uploaded
from vlmlens.sites import Site
from vlmlens.tokens import Selector

if TYPE_CHECKING:
    from vlmlens.passes.batch import Batch
    from vlmlens.passes.model import EncodingModel
    from vlmlens.samples import Sample

Donors: TypeAlias = "Sequence[Sample] | Mapping[str, Sample] | Replay"
"""The donor of each sample: by the sample's id, or in the order of the batch; or the replay of a
batch of donors, whose rows are then computed once for all edits."""


@dataclass
class Editing:
    """Some edits of a model, for as many passes as one likes.

    Args:
        vlm: The model.
        edits: The edits. Those of the same site are applied in this order.
        others: The samples to which edits compare (`mean`, `noise`, `resample`), or what was
            measured of them.
        donors: The samples from which rows are taken (`patch`).

    Raises:
        SiteError: A pattern is malformed, or matches nothing.
    """

    vlm: EncodingModel
    edits: Sequence[Edit | EdgeCut]
    others: Sequence[Sample] | Others = ()
    donors: Donors = ()
    placed: list[tuple[Edit, Site]] = field(init=False)
    """Each edit of rows with each site that it names."""
    _cuts: list[CutPlace] = field(init=False)
    _others: Others = field(init=False)
    _depth: int = field(default_factory=depth, init=False)
    _inside: bool = field(default=False, init=False)
    passes: int = field(default=0, init=False)
    """How many passes, and writings, it was applied to."""

    def __post_init__(self) -> None:
        rows = [edit for edit in self.edits if isinstance(edit, Edit)]
        self.placed = [(edit, site) for edit in rows for site in self._sites(edit)]
        cuts = [edit for edit in self.edits if isinstance(edit, EdgeCut)]
        self._cuts = [place for cut in cuts for place in cut_places(cut, self.vlm.sites)]
        given = self.others
        self._others = given if isinstance(given, Others) else Others(self.vlm, given)

    def describe(self) -> list[dict[str, Any]]:
        """Everything that determines what the edits do, as JSON-ready data."""
        return [edit.describe() for edit in self.edits]

    @contextmanager
    def applied(self, batch: Batch, *, writing: bool = False) -> Iterator[None]:
        """Apply the edits to one pass of a batch, or to all passes of its writing.

        Args:
            batch: The batch.
            writing: Whether the model generates: modules then run once per new token.

        Raises:
            EditError: An edit cannot be applied to this batch.
            SelectorError: A sample has none of the rows.
            EditWithoutEffect: At the end, unless the pass was ended early: an edit met no row, or
                changed no value of a sample.
            SiteSilent: Likewise: an edited module did not run.
        """
        if self._inside or depth() != self._depth:  # a method of a base class, or a donor's pass
            yield
            return
        with passes_apart():
            hooks = [(s, self._prepared(e, s, batch, writing)) for e, s in self.placed]
            cuts = [_cutting(place, batch, writing) for place in self._cuts]
        self._inside = True
        self.passes += 1
        try:
            drops = [cut for cut in cuts if isinstance(cut, Dropping)]
            rewrites = [(cut.place.site, cut) for cut in cuts if not isinstance(cut, Dropping)]
            module = self.vlm.module
            with edit_hooks(module, hooks, rewrites, often=writing), dropped(module, drops):
                yield
        finally:
            self._inside = False
        for _, applied in hooks:
            if isinstance(applied, _Applied):
                applied.check()
        check_cuts(cuts)

    def _sites(self, edit: Edit) -> list[Site]:
        if isinstance(edit.site, Site):
            return [edit.site]
        return self.vlm.sites.resolve(edit.site)

    def _prepared(
        self, edit: Edit, site: Site, batch: Batch, writing: bool
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """What replaces the activations of a site."""
        if writing and site.call is not None:
            raise EditError(
                f"{edit.text!r} names one call of a module that is called for each new token.",
                subject=edit.text,
                hint="Name the module without #k.",
            )
        if edit.selector is None:
            return edit.operation.function  # type: ignore[attr-defined,no-any-return]
        check_axis(site, batch.layouts)
        layout, selector = batch.layouts[site.axis], edit.selector
        if writing:
            places = GrowingPlaces(selector, layout, site).of
        else:
            places = partial(fixed_places, selector, layout, site)
        spread, donors = None, None
        if edit.operation.needs == "spread":
            spread = self._spread(edit, site)
        if edit.operation.needs == "donor":
            donors = self._donated(edit, site, selector, batch)
        return _Applied(edit, site, selector, batch, places, spread, donors)

    def _spread(self, edit: Edit, site: Site) -> Spread:
        """The spread of the rows at an edited place, measured for all edits together."""
        places = {
            (where.name, str(each.selector)): (where, each.selector)
            for each, where in self.placed
            if each.operation.needs == "spread" and each.selector is not None
        }
        return self._others.spreads(places, edit.text)[site.name, str(edit.selector)]

    def _donated(
        self, edit: Edit, site: Site, selector: Selector, batch: Batch
    ) -> list[torch.Tensor]:
        """Per sample, the donor's rows."""
        named = (edit.operation.donor(sample, self._others.samples) for sample in batch.samples)
        if isinstance(self.donors, Replay) and not any(named):
            if len(self.donors.batch) != len(batch):
                raise EditError(
                    f"{edit.text!r}: {len(self.donors.batch)} donors for {len(batch)} samples.",
                    subject=edit.text,
                    hint="Give one donor for each sample.",
                )
            return self.donors.rows(site, selector)
        donors = [self._donor(edit, i, sample, batch) for i, sample in enumerate(batch.samples)]
        return self._others.rows(self.vlm.encode(donors), [(site, selector)])[0]

    def _donor(self, edit: Edit, number: int, sample: Sample, batch: Batch) -> Sample:
        found = edit.operation.donor(sample, self._others.samples)
        if found is None:
            donors = self.donors
            if isinstance(donors, Mapping):
                found = donors.get(sample.id)
            elif not isinstance(donors, Replay) and len(donors) == len(batch):
                found = donors[number]
        if found is None:
            raise EditError(
                f"{edit.text!r} has no donor for the sample {sample.id!r}.",
                subject=edit.text,
                hint="Pass donors=[...], one sample for each of the batch, or by id.",
            )
        return found


def _cutting(place: CutPlace, batch: Batch, writing: bool) -> Cutting:
    kind = Cutting if place.cut.renormalise else Dropping
    return kind(place, batch, writing)


@dataclass
class _Applied:
    """One edit at one site, in one pass or in the passes of one text; called with activations."""

    edit: Edit
    site: Site
    selector: Selector
    batch: Batch
    places: Callable[[torch.Tensor], list[Places]]
    spread: Spread | None
    donors: Sequence[torch.Tensor] | None
    met: list[bool] = field(init=False)
    changed: torch.Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.met = [False] * len(self.batch)

    def __call__(self, activation: torch.Tensor) -> torch.Tensor:
        """The activation with the selected rows changed."""
        found = [(i, one) for i, one in enumerate(self._found(activation)) if len(one.rows)]
        if not found:
            return activation
        flat = activation.reshape(-1, activation.shape[-1])
        numbers = torch.cat([torch.from_numpy(one.rows) for _, one in found])
        index = uploaded(numbers, flat.device)
        before = flat.index_select(0, index).split([len(one.rows) for _, one in found])
        after = [self._change(i, one, rows) for (i, one), rows in zip(found, before, strict=True)]
        self._note([i for i, _ in found], before, after)
        return flat.index_copy(0, index, torch.cat(after)).reshape(activation.shape)

    def _found(self, activation: torch.Tensor) -> list[Places]:
        try:
            return self.places(activation)
        except SelectorError as error:
            raise SelectorError(
                f"{self.edit.text!r} cannot be applied to every sample. {error.message}",
                subject=self.edit.text,
                hint=error.hint,
            ) from error

    def _change(self, i: int, places: Places, rows: torch.Tensor) -> torch.Tensor:
        sample, donor = self.batch.samples[i], self._donor(i, places)
        about = EditedRows(self.site, self.selector, sample, places.positions, self.spread, donor)
        after = self.edit.operation.change(rows, about)
        if after.shape != rows.shape:
            raise EditError(
                f"{self.edit.text!r} made {tuple(after.shape)} of {tuple(rows.shape)}.",
                subject=self.edit.text,
                hint="An operation must return as many rows of the same width.",
            )
        return after.to(rows.device, rows.dtype)

    def _donor(self, i: int, places: Places) -> torch.Tensor | None:
        if self.donors is None:
            return None
        donor = self.donors[i]
        if len(donor) != len(places.rows):
            raise EditError(
                f"{self.edit.text!r}: the sample {self.batch.samples[i].id!r} has "
                f"{len(places.rows)} such rows, its donor {len(donor)}.",
                subject=self.edit.text,
                hint="Donor and sample need equally many: the same prompt, an image of equal size.",
            )
        return donor

    def _note(
        self,
        numbers: Sequence[int],
        before: Sequence[torch.Tensor],
        after: Sequence[torch.Tensor],
    ) -> None:
        """Remember which samples had rows, and whether a value changed."""
        flags = [(a != b).any() for a, b in zip(before, after, strict=True)]
        if self.changed is None:
            self.changed = torch.zeros(len(self.met), dtype=torch.bool, device=before[0].device)
        for i, flag in zip(numbers, flags, strict=True):
            self.met[i] = True
            self.changed[i] |= flag

    def check(self) -> None:
        """Raise `EditWithoutEffect` if the edit met no row, or changed no value of a sample."""
        ids = [sample.id for sample in self.batch.samples]
        missed = [i for i, met in zip(ids, self.met, strict=True) if not met]
        if missed:
            raise EditWithoutEffect(
                f"{self.edit.text!r} met no row of the sample {missed[0]!r} at {self.site.name!r}.",
                subject=self.edit.text,
                hint="Rows of the answer exist only while the model writes, or with answers.",
            )
        changed = [] if self.changed is None else self.changed.tolist()
        same = [i for i, differs in zip(ids, changed, strict=True) if not differs]
        if same and self.edit.strict:
            raise EditWithoutEffect(
                f"{self.edit.text!r} changed no value of the sample {same[0]!r} at "
                f"{self.site.name!r}.",
                subject=self.edit.text,
                hint="The rows were like that already. Choose other rows or another operation.",
            )
