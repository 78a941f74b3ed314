"""Steering: what a learnt direction does to the answers it is about, and to all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options
from vlmlens.errors import CompositionError, SpecError
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._sweeps import CellOptions, sweep
from vlmlens_plugins.analysis._sweeps.sweeping import Onward, answer_tokens, check_writes
from vlmlens_plugins.analysis.steering import learning, report
from vlmlens_plugins.analysis.steering.aims import Aim, Parts, chosen_aim, mark_of, split
from vlmlens_plugins.analysis.steering.cost import check_passes
from vlmlens_plugins.analysis.steering.figures import figures
from vlmlens_plugins.analysis.steering.files import Direction, open_direction, save_direction
from vlmlens_plugins.analysis.steering.measuring import (
    control_cells,
    control_name,
    strength_cells,
)
from vlmlens_plugins.analysis.steering.options import SteeringOptions
from vlmlens_plugins.analysis.steering.rows import mean_rows
from vlmlens_plugins.analysis.steering.steered import Steered
from vlmlens_plugins.analysis.steering.tables import tables

_MOST_SITES = 8
_IN_FILE = ("attribute", "towards", "away", "method", "sites", "rows", "learn", "C")


class Steering(Analysis):
    """Learns a direction in half of the groups of samples, and tests it in the other half."""

    Options: ClassVar[type[Options]] = SteeringOptions
    options: SteeringOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        del columns
        if Selector.parse(self.options.rows).pool is not None:
            raise SpecError(
                f"rows={self.options.rows!r} pools rows, but a direction is added to single ones.",
                subject="rows",
                hint="Leave the pooling out: the direction is learnt from the mean of the rows.",
            )
        self._parts(samples, self._given(), 0)

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`."""
        del samples, columns
        check_writes(skeleton, "steering")
        given = self._given()
        if given is None:
            site_names(skeleton, self.options.sites)
        else:
            check_site(skeleton, given)

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        warnings: list[str] = []

        def warn(message: str) -> None:
            warnings.append(message)
            context.warn(message)

        heard = replace(context, warn=warn, progress=Onward(context.progress))
        return replace(self._result(heard), warnings=warnings)

    def _result(self, context: AnalysisContext) -> Result:
        vlm, given = context.model(), self._given()
        aim, parts = self._parts(context.samples, given, context.seed)
        parts = _comparable(context, vlm, parts)
        sites = site_names(vlm, self.options.sites) if given is None else [given.site]
        kinds = ["random", "shuffled"] if given is None else ["random"]
        check_passes(
            self.options,
            parts,
            sites=len(sites),
            kinds=len(kinds),
            batch_size=context.batch_size,
        )
        if given is None:
            directions, named = self._learn(context, aim, parts, sites)
        else:
            check_site(vlm, given)
            _warn_of_origin(context, vlm, given)
            directions, named = [given], {given.site: given.vector.tolist()}
            named |= self._random(given.site, given.norm, len(given.vector), context.seed)
        steered = self._steer(context, aim, parts, directions, kinds, named)
        saved = self._save(context, directions) if given is None else []
        return Result(
            analysis="steering",
            title="What a direction does to the answers",
            findings=report.findings(steered),
            tables=tables(steered, vlm, saved),
            figures=figures(steered),
            options=self.options.model_dump(mode="json"),
            notes=report.notes(steered, given, saved),
            overview=report.overview(steered),
        )

    def _given(self) -> Direction | None:
        """The direction that the options name, if they do."""
        chosen = self.options
        if chosen.direction is None:
            return None
        for name in _IN_FILE:
            if getattr(chosen, name) != type(chosen)().model_dump()[name]:
                raise SpecError(
                    f"{name} is given together with a direction, which was learnt already.",
                    subject=name,
                    hint=f"Leave {name} out, or leave `direction` out to learn a new one.",
                )
        return open_direction(chosen.direction)

    def _parts(
        self, samples: Sequence[Sample], given: Direction | None, seed: int
    ) -> tuple[Aim, Parts]:
        if given is None:
            aim = chosen_aim(samples, self.options)
            return aim, split(samples, aim, self.options, seed)
        of_file = {
            "attribute": given.aim.attribute,
            "towards": given.aim.towards,
            "away": list(given.aim.away),
            "answer": self.options.answer or given.aim.answer,
        }
        aim = chosen_aim(samples, self.options.model_copy(update=of_file))
        return aim, split(samples, aim, self.options, seed, known=given.groups)

    def _learn(
        self, context: AnalysisContext, aim: Aim, parts: Parts, sites: Sequence[str]
    ) -> tuple[list[Direction], dict[str, list[float]]]:
        """The directions, and by name all that cells add: theirs and the controls'."""
        chosen, rows = self.options, self.options.rows
        columns = {site: f"{site}/{rows}" for site in sites}
        read = mean_rows(context, parts.learn, list(columns.values()), parts.prefix)
        groups = tuple(sorted({mark_of(sample.split_group) for sample in parts.learn}))
        origin = {
            "model": context.model().describe(),
            "options": chosen.model_dump(mode="json"),
            "seed": context.seed,
            "samples": len(parts.learn),
        }
        found, named = [], {}
        for site, column in columns.items():
            vector = self._learned(
                read[column], np.array(parts.positive), parts, context.seed, site
            )
            made = Direction(
                vector.astype(np.float32), site, rows, chosen.method, aim, groups, origin
            )
            if not made.usable:
                context.warn(
                    f"At {column} the two sides do not differ, or are not finite: left out."
                )
                continue
            found.append(made)
            named[site] = made.vector.tolist()
            named |= self._random(site, made.norm, len(vector), context.seed)
            named |= self._shuffled(site, read[column], parts, context.seed)
        if not found:
            raise CompositionError(
                f"At none of the sites do the rows of {aim.towards!r} differ from the others.",
                subject="sites",
                hint="Choose other sites or rows: these do not tell the two sides apart.",
            )
        return found, named

    def _learned(
        self, rows: learning.Rows, positive: learning.Bools, parts: Parts, seed: int, *names: str
    ) -> learning.Rows:
        if not np.isfinite(rows).all():
            return np.full(rows.shape[1], np.nan)
        return learning.learned(
            rows,
            positive,
            self.options.method,
            c=self.options.C,
            pairs=learning.pair_names(parts.learn),
            rng=generator(seed, "steering", "pairs", *names),
        )

    def _random(self, site: str, norm: float, width: int, seed: int) -> dict[str, list[float]]:
        rng = generator(seed, "steering", "random", site)
        return {
            control_name(site, "random", draw): _single(learning.random_direction(width, norm, rng))
            for draw in range(self.options.controls)
        }

    def _shuffled(
        self, site: str, rows: learning.Rows, parts: Parts, seed: int
    ) -> dict[str, list[float]]:
        """Directions that are learnt in the same way, and so as long as they come out."""
        found = {}
        for draw in range(self.options.controls):
            rng = generator(seed, "steering", "shuffled", str(draw))
            positive = rng.permutation(np.array(parts.positive))
            vector = self._learned(rows, positive, parts, seed, site, str(draw))
            found[control_name(site, "shuffled", draw)] = _single(vector)
        return found

    def _steer(
        self,
        context: AnalysisContext,
        aim: Aim,
        parts: Parts,
        directions: Sequence[Direction],
        kinds: Sequence[str],
        named: dict[str, list[float]],
    ) -> Steered:
        chosen, rows, draws = self.options, directions[0].rows, self.options.controls
        cells = [c for d in directions for c in strength_cells(d.site, rows, chosen.strengths)]
        controls = [
            cell
            for each in directions
            for kind in kinds
            for cell in control_cells(each.site, rows, chosen.stated, kind, draws)
        ]
        options = CellOptions(directions=named)
        wanted = sweep(context, parts.wanted, [*cells, *controls], chosen, options)
        untouched = None
        if parts.untouched:
            untouched = sweep(context, parts.untouched, cells, chosen, options)
        steered = Steered(chosen, aim, parts, directions, wanted, untouched, None, context.seed)
        if steered.too_few:
            context.warn(steered.too_few)
        lines = [
            cell
            for strength in chosen.acting
            for cell in control_cells(steered.best.site, rows, strength, "random", draws)
        ]
        both = [*parts.wanted, *parts.untouched]
        return replace(steered, random=sweep(context, both, lines, chosen, options))

    def _save(self, context: AnalysisContext, directions: Sequence[Direction]) -> list[str]:
        """The names of the files, one per direction."""
        if context.folder is None:
            context.warn("The directions were not saved: there is no run folder.")
            return []
        for each in directions:
            save_direction(context.folder / each.file, each)
        return [each.file for each in directions]


def site_names(vlm: ModelAdapter, patterns: Sequence[str] | None) -> list[str]:
    """The names of the sites that are steered.

    Raises:
        CompositionError: No site is named, and the model has no language blocks.
        SiteError: A pattern is malformed, or matches nothing.
    """
    if patterns is not None:
        found = [site.name for pattern in patterns for site in vlm.sites.resolve(pattern)]
        return list(dict.fromkeys(found))
    blocks = [
        name
        for name, site in vlm.sites.canonical.items()
        if site.index is not None and name == f"llm.block.{site.index}"
    ]
    if not blocks:
        raise CompositionError(
            "The model has no language blocks to steer at.",
            subject="sites",
            hint="Name sites: --set analysis.steering.sites=[...].",
        )
    chosen = np.linspace(0, len(blocks) - 1, min(len(blocks), _MOST_SITES)).round().astype(int)
    return [blocks[i] for i in dict.fromkeys(chosen.tolist())]


def check_site(vlm: ModelAdapter, given: Direction) -> None:
    """Raise an error if a direction does not belong to a site of a model.

    Raises:
        SiteError: The model has no such site.
        CompositionError: It has another width, or the name stands for several sites.
    """
    sites = vlm.sites.resolve(given.site)
    widths = {vlm.sites.width(site, vlm.widths()) for site in sites} - {None}
    if len(sites) != 1 or widths - {len(given.vector)}:
        raise CompositionError(
            f"The direction has {len(given.vector)} numbers and is of {given.site!r}; this model "
            f"has {len(sites)} such sites of width {', '.join(map(str, widths)) or 'unknown'}.",
            subject=given.site,
            hint="Use it with the model that it was learnt with.",
        )


def _comparable(context: AnalysisContext, vlm: ModelAdapter, parts: Parts) -> Parts:
    """The samples whose two answers differ in a token; what is left out is said."""
    found, prefixes = [], []
    for items, words in ((parts.wanted, "steered"), (parts.untouched, "untouched")):
        kept, begun, _, left_out = answer_tokens(vlm, items)
        alone = parts.alone if words == "untouched" else 0
        if left_out or alone:
            context.warn(
                f"{len(left_out) + alone} {words} questions are left out: one of two answers "
                "begins with the other, or there is only one."
            )
        found.append(kept)
        prefixes.append(begun)
    if not found[0]:
        raise SpecError(
            "No steered question is left whose answers can be compared.",
            subject="answer",
            hint="The two answers must differ before the shorter one ends.",
        )
    alike = {tuple(prefix) for prefix in prefixes[0]}
    prefix = next(iter(alike)) if len(alike) == 1 else ()
    return replace(parts, wanted=found[0], untouched=found[1], prefix=prefix)


def _warn_of_origin(context: AnalysisContext, vlm: ModelAdapter, given: Direction) -> None:
    before, now = given.origin.get("model"), vlm.describe()
    names = ("class", "checkpoint", "digest")
    if not isinstance(before, dict) or any(before.get(n) != now.get(n) for n in names):
        context.warn("The direction was learnt with another model than this one.")


def _single(vector: learning.Rows) -> list[float]:
    """As float32, the type in which it is added."""
    found: list[float] = vector.astype(np.float32).tolist()
    return found
