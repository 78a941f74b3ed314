"""Ablation: components are replaced one by one, and the answer is followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options
from vlmlens.errors import MissingAnnotation
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import TokenLayout
from vlmlens_plugins.analysis._sweeps import Cell, CellOptions, Item, Swept, check_cost, sweep
from vlmlens_plugins.analysis._sweeps.followed import Followed, candidates, check_labels, followed
from vlmlens_plugins.analysis._sweeps.scores import scores
from vlmlens_plugins.analysis._sweeps.sweeping import Onward, spreads
from vlmlens_plugins.analysis.ablation.components import Component, Rows, components, rows_of
from vlmlens_plugins.analysis.ablation.donors import with_donors
from vlmlens_plugins.analysis.ablation.greedy import Order, order_of, passes
from vlmlens_plugins.analysis.ablation.options import AblationOptions
from vlmlens_plugins.analysis.ablation.report import report

Layouts = dict[Axis, list[TokenLayout]]


class Ablation(Analysis):
    """Which components the answer needs."""

    Options: ClassVar[type[Options]] = AblationOptions
    options: AblationOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        del columns
        check_labels(samples, "The ablation")

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`: whether there are such components, with such rows."""
        del columns
        every = components(skeleton, self.options)
        asked, _ = candidates(samples, 1)
        rows_of(_layouts(skeleton, asked[:1], 1, _axes(every)), self.options.rows)
        check_cost(self._cells(every), 1, self.options)

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        self.check(context.samples, ())
        context = replace(context, progress=Onward(context.progress))
        vlm = context.model()
        every = components(vlm, self.options)
        asked, warnings = candidates(context.samples, self.options.samples)
        groups = -(-len(asked) // context.batch_size)
        check_cost(self._cells(every), groups, self.options)
        chosen = followed(context, self.options, asked)
        warnings += chosen.warnings
        layouts = _layouts(vlm, chosen.items, context.batch_size, list(Axis))
        if self.options.by == "resample":
            chosen, kept, left = _resampled(chosen, layouts, context.seed)
            layouts = {axis: [own[i] for i in kept] for axis, own in layouts.items()}
            warnings += left
        for message in warnings:
            context.warn(message)
        axes = _axes(every)
        rows = rows_of({axis: layouts[axis] for axis in axes}, self.options.rows)
        swept, orders = _Run(context, self.options, chosen, every, rows).all()
        seed = context.seed
        result = report(swept, orders, every, chosen, rows, self.options, seed, warnings)
        for message in result.warnings[len(warnings) :]:
            context.warn(message)
        return result

    def _cells(self, every: Sequence[Component]) -> int:
        pool = [each for each in every if each.part == every[0].part]
        steps = min(self.options.greedy, len(pool))
        return len(every) + passes(len(pool), steps, self.options.controls)


@dataclass
class _Run:
    """The sweeps of one analysis."""

    context: AnalysisContext
    options: AblationOptions
    chosen: Followed
    every: Sequence[Component]
    rows: Rows
    named: CellOptions = field(default_factory=CellOptions)

    def all(self) -> tuple[Swept, list[Order]]:
        """The components one by one, and the greedy order of each task."""
        if self.options.by == "mean":
            named = (name for each in self.every for name in each.columns(self.rows))
            columns = list(dict.fromkeys(named))
            targets = [item.target for item in self.chosen.items]
            self.named = spreads(
                self.context, targets, list(dict.fromkeys(columns)), deviations=False
            )
        swept = self._ablate([self._cell(each) for each in self.every], self._members)
        if not self._steps:
            return swept, []
        tasks = self.chosen.by_task().items()
        return swept, [self._order(swept, task, members) for task, members in tasks]

    @property
    def _members(self) -> range:
        return range(len(self.chosen.items))

    @property
    def _pool(self) -> list[int]:
        """The numbers of the components that may be removed together."""
        return [i for i, each in enumerate(self.every) if each.part == self.every[0].part]

    @property
    def _steps(self) -> int:
        return min(self.options.greedy, len(self._pool))

    def _cell(self, each: Component) -> Cell:
        return Cell(each.changes(self.options.by, self.rows), {"component": each.name})

    def _ablate(self, cells: Sequence[Cell], members: Sequence[int]) -> Swept:
        items = [self.chosen.items[i] for i in members]
        return sweep(self.context, items, cells, self.options, self.named)

    def _order(self, swept: Swept, task: str, members: Sequence[int]) -> Order:
        alone = scores(swept.take(self._pool), self.chosen.rivals).of(members)
        return order_of(
            task,
            members,
            [self.every[i] for i in self._pool],
            int(alone.changes[alone.best].mean(1).argmin()),
            steps=self._steps,
            controls=self.options.controls,
            seed=self.context.seed,
            rivals=[self.chosen.rivals[i] for i in members],
            changes=self._cell,
            ablate=self._ablate,
        )


def _axes(every: Sequence[Component]) -> list[Axis]:
    """The axes on which components have rows."""
    return list(dict.fromkeys(axis for each in every for _, axis in each.sites))


def _layouts(vlm: ModelAdapter, items: Sequence[Item], size: int, axes: Sequence[Axis]) -> Layouts:
    found: Layouts = {}
    for start in range(0, len(items), size):
        batch = vlm.encode([item.target for item in items[start : start + size]])
        for axis in axes:
            if axis in batch.layouts:
                found.setdefault(axis, []).extend(batch.layouts[axis].samples)
    return found


def _resampled(
    chosen: Followed, layouts: Layouts, seed: int
) -> tuple[Followed, list[int], list[str]]:
    """The samples that have a donor, their numbers, and what is left out.

    Raises:
        MissingAnnotation: No sample has one.
    """
    total = len(chosen.items)
    shapes = [
        " ".join(own[i].kinds.tobytes().hex() for own in layouts.values()) for i in range(total)
    ]
    kept, items = with_donors(chosen.items, shapes, seed)
    left = (
        []
        if len(kept) == total
        else [
            f"{total - len(kept)} of {total} samples are left out: no other one has as many rows "
            "of each kind, from which rows could be taken."
        ]
    )
    if not items:
        raise MissingAnnotation(
            f"by=resample takes rows of another sample. {left[0]}",
            subject="by",
            hint="Use by=mean, or prompts of equal length and images of equal size.",
        )
    return replace(chosen, items=items, rivals=[chosen.rivals[i] for i in kept]), kept, left
