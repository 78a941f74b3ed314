"""What is done at each place: SAEs are made or opened, judged, shown, and tried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vlmlens.abc import AnalysisContext, ModelAdapter
from vlmlens.errors import CompositionError
from vlmlens.results import Figure
from vlmlens.samples import Sample
from vlmlens.tokens import TokenLayout
from vlmlens_plugins.analysis._tasks import rows_by_task
from vlmlens_plugins.analysis.sae.effects import Effects, Trial, aims, effects, why_not
from vlmlens_plugins.analysis.sae.held import Split, split
from vlmlens_plugins.analysis.sae.judging import Judged, Material, judge, with_loss
from vlmlens_plugins.analysis.sae.making import Made, Making, opened
from vlmlens_plugins.analysis.sae.options import SaeOptions
from vlmlens_plugins.analysis.sae.pages import Looking, asked_for, pages, write_pages
from vlmlens_plugins.analysis.sae.places import Place
from vlmlens_plugins.analysis.sae.sources import Sources
from vlmlens_plugins.sae import Rows, row_layouts

_SHARES = (55, 15, 10, 5, 15)
"""Of the progress at a place: making, judging, the loss of answers, pages, effects."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found at a place.

    Args:
        place: The place.
        split: Samples to learn from and to judge.
        made: The SAEs; the first one is shown and tried out.
        judged: How they do beside what nobody trained.
        shown: Pages of features of the first SAE; None: none are shown.
        tried: What its features do to the answers; None: none were tried out.
    """

    place: Place
    split: Split
    made: Sequence[Made]
    judged: Judged
    shown: Figure | None
    tried: Effects | None = None

    @property
    def first(self) -> Made:
        """The SAE that is shown and tried out."""
        return self.made[0]


class Reading:
    """All places of an analysis, one after the other.

    Args:
        context: The context of the analysis.
        vlm: The model, if there is one.
        places: The places.
        options: The analysis's options.
        folder: Where SAEs and pages are saved.
    """

    def __init__(
        self,
        context: AnalysisContext,
        vlm: ModelAdapter | None,
        places: Sequence[Place],
        options: SaeOptions,
        folder: Path,
    ) -> None:
        self._context, self._vlm, self._options = context, vlm, options
        self._folder, self._places = folder, places
        self._sources = Sources(context, vlm, places, options)

    def check(self, place: Place) -> None:
        """Look at some rows of a place, so that nothing is trained elsewhere in vain.

        Raises:
            DataError: There are too few rows.
            SpecError: Features are asked for that the SAE will not have.
            CompositionError: The loss of answers is asked for, and there are none to follow.
        """
        divided = self._split(place)
        self._asked(place, divided)
        rows, target = self._sources.whole(place, divided.learn)
        if not self._options.file:
            self._making(place, divided, rows, target).check(
                self._options, self._options.features or ()
            )

    def at(self, place: Place) -> Found:
        """Everything at one place."""
        context, options = self._context, self._options
        divided = self._split(place)
        rows, target = self._sources.whole(place, divided.learn)
        made = self._made(place, divided, rows, target)
        asked_for(options.features or (), made[0].sae.features)
        judged = judge(
            {one.name: one.sae for one in made},
            self._material(place, divided, rows, target),
            by=options.by,
            judged=options.judged,
            draws=options.draws,
            seed=context.seed,
            progress=self._part(place, 1),
        )
        asked = self._asked(place, divided)
        if asked:
            judged = with_loss(
                judged, context, asked, draws=options.draws, progress=self._part(place, 2)
            )
        shown = self._shown(place, divided, rows, made[0], judged)
        tried = self._tried(place, divided, rows, made[0], judged)
        self._part(place, 4)(1, 1)
        return Found(place, divided, made, judged, shown, tried)

    def _split(self, place: Place) -> Split:
        context = self._context
        return split(context.samples, place.column, self._options.held_out, context.seed)

    def _made(self, place: Place, divided: Split, rows: Rows, target: Rows | None) -> list[Made]:
        progress = self._part(place, 0)
        if self._options.file:
            return opened(self._options.file, place, self._places, progress)
        return self._making(place, divided, rows, target).trained(self._options, progress)

    def _making(self, place: Place, divided: Split, rows: Rows, target: Rows | None) -> Making:
        fed, fed_target = self._sources.trained_on(place, divided.learn)
        return Making(
            self._context, self._vlm, place, divided, rows, target, fed, fed_target, self._folder
        )

    def _material(self, place: Place, divided: Split, rows: Rows, target: Rows | None) -> Material:
        embeddings, embedded = self._sources.embeddings()
        return Material(
            rows, self._context.samples, divided, target, self._layouts(place, rows),
            embeddings, embedded,
        )  # fmt: skip

    def _layouts(
        self, place: Place, rows: Rows
    ) -> Callable[[Sequence[int]], Sequence[TokenLayout]] | None:
        vlm, samples = self._vlm, self._context.samples
        if vlm is None:
            return None

        def layouts(numbers: Sequence[int]) -> Sequence[TokenLayout]:
            counts = [len(part) for part in rows.read(numbers)]
            return row_layouts(vlm, place.column, [samples[i] for i in numbers], counts)

        return layouts

    def _asked(self, place: Place, divided: Split) -> list[Sample]:
        """Held-out samples whose answers are followed: some of each task, with all their questions.

        Raises:
            CompositionError: The options insist on it, and there is no answer to follow.
        """
        wanted, vlm, samples = self._options.loss, self._vlm, self._context.samples
        if wanted == "off" or vlm is None or not place.edited:
            reason = "" if wanted != "on" else "rows of one column of a model are replaced"
        elif vlm.choice_scores(()) is not None:
            reason = "this model writes no answers" if wanted == "on" else ""
        else:
            numbers = [each for number in divided.held for each in divided.alike[number]]
            known = [samples[i] for i in numbers if samples[i].label is not None]
            tasks = rows_by_task(known)
            found = [known[i] for own in tasks.values() for i in own[: self._options.samples]]
            reason = "no held-out sample has a label" if wanted == "on" and not found else ""
            if not reason:
                return found
        if reason:
            raise CompositionError(
                f"The loss of the answers cannot be measured: {reason}.",
                subject="loss",
                hint="Leave it to loss=auto, or switch it off.",
            )
        return []

    def _shown(
        self, place: Place, divided: Split, rows: Rows, first: Made, judged: Judged
    ) -> Figure | None:
        if not self._options.pages and self._options.features is None:
            return None
        basis = judged.bases[first.name]
        figure = pages(
            Looking(
                first.sae,
                place.column,
                rows,
                basis.learn,
                basis.held,
                self._context.samples,
                divided,
                self._options,
                self._context.seed,
                self._vlm,
                None if basis.image_share is None else np.asarray(basis.image_share),
                self._context.warn,
                place.name,
            )
        )
        if self._options.file is None:
            write_pages(first.folder.with_name(f"{first.folder.name}.features"), figure.pages)
        return figure

    def _tried(
        self, place: Place, divided: Split, rows: Rows, first: Made, judged: Judged
    ) -> Effects | None:
        options, context = self._options, self._context
        if not options.effects or not place.edited:
            return None
        if reason := why_not(self._vlm, place.column, context.samples):
            context.warn(f"What features of {place.name} do to answers is not tried: {reason}.")
            return None
        basis = judged.bases[first.name]
        chosen = aims(
            basis.learn, first.sae.norms.double().numpy(), context.samples, divided.alike,
            options.by, options.effects, options.features,
        )  # fmt: skip
        heard = replace(context, progress=self._part(place, 4))
        trial = Trial(
            heard, first.sae, first.folder, place.column, rows, basis.learn, basis.held, divided,
            options,
        )  # fmt: skip
        return effects(trial, chosen)

    def _part(self, place: Place, step: int) -> Callable[[int, int], None]:
        """Progress of a step at a place, as a share of all places."""
        whole = sum(_SHARES)
        begun = whole * list(self._places).index(place) + sum(_SHARES[:step])
        total = whole * len(self._places)

        def tell(done: int, of: int) -> None:
            self._context.progress(begun + _SHARES[step] * done // max(1, of), total)

        return tell
