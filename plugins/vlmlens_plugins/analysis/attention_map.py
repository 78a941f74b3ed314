"""Attention over the picture: what each image token gets from one query, layer by layer.

The columns are those of the attention extractor with `regions=patches`: a row per image token, a
feature per head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options
from vlmlens.errors import CompositionError, SiteShapeError
from vlmlens.results import Cell, Figure, Finding, Glance, Result, Sheet, Table
from vlmlens.samples import Sample
from vlmlens.tokens import Column, Selector, TokenLayout
from vlmlens_plugins.analysis._columns import choose, in_order, short_names
from vlmlens_plugins.analysis._patches import Place, views
from vlmlens_plugins.analysis._results import slug, table
from vlmlens_plugins.analysis._statistics import bootstrap_weights, generator, interval
from vlmlens_plugins.analysis._tasks import rows_by_task

_AT_ONCE = 64
_DRAWS = 1000
_IMAGE = Selector.parse("image")
Floats = npt.NDArray[np.float64]


class AttentionMapOptions(Options):
    """Which columns are drawn, and of which samples."""

    columns: list[str] | None = Field(
        None, description="Columns to draw, as patterns. Default: all with a row per image token."
    )
    samples: int = Field(4, ge=1, description="Samples of each task whose maps are drawn.")
    heads: list[int] = Field(
        default_factory=list, description="Heads to draw beside the mean over all heads."
    )


@dataclass(frozen=True, slots=True)
class _Read:
    """The columns of one query.

    Args:
        query: Its selector, as text.
        columns: In order of depth.
        share: float64 `[columns, samples]`: what the image gets, mean over heads.
        maps: By sample number, per column `[image tokens, heads]`.
    """

    query: str
    columns: tuple[str, ...]
    share: Floats
    maps: Mapping[int, list[Floats]]


class AttentionMap(Analysis):
    """Draws attention weights over the pictures, and says how much the image gets in all."""

    Options: ClassVar[type[Options]] = AttentionMapOptions
    options: AttentionMapOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        del samples
        if columns:
            choose(self.options.columns, columns)

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        chosen = set(choose(self.options.columns, [info.name for info in context.columns()]))
        names = [
            info.name
            for info in context.columns()
            if info.name in chosen and info.ragged and not Column.parse(info.name).selector.ragged
        ]
        notes = [_NOTE]
        if not names:
            return self._result([_NOTHING], notes=notes)
        tasks = rows_by_task(context.samples)
        shown = [i for rows in tasks.values() for i in rows[: self.options.samples]]
        queries: dict[str, list[str]] = {}
        for name in in_order(names):
            queries.setdefault(name.partition("/")[2], []).append(name)
        read = [self._read(context, query, own, shown) for query, own in queries.items()]
        vlm, several = context.model(), len(read) > 1
        return self._result(
            [_finding(one, task, rows) for one in read for task, rows in tasks.items()],
            tables=[_table(one, tasks, context) for one in read],
            figures=[self._figure(one, context.samples, vlm, several=several) for one in read],
            overview=[_glance(read[0], task, rows) for task, rows in tasks.items()],
            notes=notes,
        )

    def _result(self, findings: Sequence[Finding], **parts: Any) -> Result:
        return Result(
            analysis="attention-map",
            title="Where the model looks",
            findings=findings,
            options=self.options.model_dump(mode="json"),
            **parts,
        )

    def _read(
        self, context: AnalysisContext, query: str, names: Sequence[str], shown: Sequence[int]
    ) -> _Read:
        ids = [sample.id for sample in context.samples]
        share = np.zeros((len(names), len(ids)))
        maps: dict[int, list[Floats]] = {i: [] for i in shown}
        for layer, name in enumerate(names):
            for start in range(0, len(ids), _AT_ONCE):
                part = context.store.read(name, ids[start : start + _AT_ONCE]).per_sample()
                for i, weights in enumerate(part, start):
                    exact = weights.astype(np.float64)
                    share[layer, i] = exact.sum(0).mean()
                    if i in maps:
                        maps[i].append(exact)
            context.progress(layer + 1, len(names))
        return _Read(query, tuple(names), share, maps)

    def _figure(
        self, read: _Read, samples: Sequence[Sample], vlm: ModelAdapter, *, several: bool
    ) -> Figure:
        of = f" of {read.query}" if several else ""
        return Figure(
            name=f"attention-{slug(read.query)}",
            title=f"Attention{of} over the image, by layer",
            kind="patches",
            x=(),
            y=short_names(read.columns),
            y_label="weight",
            sheets=[
                sheet
                for i, maps in read.maps.items()
                for sheet in self._sheets(samples[i], maps, _layout(vlm, samples[i], read.columns))
            ],
        )

    def _sheets(
        self, sample: Sample, maps: Sequence[Floats], layout: TokenLayout | None
    ) -> Iterator[Sheet]:
        count, heads = maps[0].shape
        wrong = [head for head in self.options.heads if not 0 <= head < heads]
        if wrong:
            raise CompositionError(
                f"The columns have no head {wrong[0]}.",
                subject="heads",
                hint=f"They hold {heads}, numbered 0 to {heads - 1}.",
            )
        placed = [("", np.arange(count), None)] if layout is None else views(_IMAGE, layout, count)
        for view, where, grid in placed:
            place = Place(sample, view, grid, len(where))
            task = {"task": sample.task} if sample.task else {}
            for head in (None, *self.options.heads):
                named = {"head": "mean" if head is None else str(head)}
                values = np.stack(
                    [own[where].mean(1) if head is None else own[where, head] for own in maps]
                )
                facets = {**task, **(named if self.options.heads else {})}
                yield place.sheet(values, (), (), facets)


def _layout(vlm: ModelAdapter, sample: Sample, columns: Sequence[str]) -> TokenLayout | None:
    """Where the image tokens of a sample lie; None where only a pass would tell."""
    site = vlm.sites.resolve(columns[0].partition("/")[0])[0]
    try:
        return vlm.encode([sample]).layouts[site.axis].samples[0]
    except SiteShapeError:
        return None


def _finding(read: _Read, task: str, rows: Sequence[int]) -> Finding:
    share = read.share[:, rows].mean(1)
    best = int(share.argmax())
    name = short_names(read.columns)[best]
    values: dict[str, Cell] = {
        "layer": name,
        "image": float(share[best]),
        "image_first": float(share[0]),
        "image_last": float(share[-1]),
    }
    text = (
        f"{task}: the query {read.query} pays most to the image at {name}, {share[best]:.0%} of "
        "its attention (mean over heads and samples)."
    )
    return Finding(text, subject=task, values=values)


def _glance(read: _Read, task: str, rows: Sequence[int]) -> Glance:
    share = read.share[:, rows].mean(1)
    best = int(share.argmax())
    layer = short_names(read.columns)[best]
    return Glance(task, "looks at the image", layer, value=float(share[best]), curve=share.tolist())


def _table(read: _Read, tasks: Mapping[str, Sequence[int]], context: AnalysisContext) -> Table:
    rows = [
        _row(read, task, members, layer, context)
        for task, members in tasks.items()
        for layer in range(len(read.columns))
    ]
    title = "Attention to the image by task and layer, mean over heads"
    return table(f"attention-{slug(read.query)}", title, rows)


def _row(
    read: _Read, task: str, members: Sequence[int], layer: int, context: AnalysisContext
) -> dict[str, Cell]:
    """The 95 % interval resamples whole groups."""
    owners = np.array([context.samples[i].split_group for i in members])
    _, place = np.unique(owners, return_inverse=True)
    sums = np.bincount(place, read.share[layer, members])
    counts = np.bincount(place)
    weights = bootstrap_weights(len(counts), _DRAWS, generator(context.seed, "attention", task))
    low, high = interval((weights @ sums) / (weights @ counts))
    return {
        "task": task,
        "column": read.columns[layer],
        "samples": len(members),
        "image": float(read.share[layer, members].mean()),
        "image_low": float(low),
        "image_high": float(high),
    }


_NOTE = (
    "Attention weights as the model computes them, of one query (or pooled queries) to every image "
    "token. They say where information can come from, not what is done with it."
)
_NOTHING = Finding(
    "No column has a weight per image token, so nothing is drawn: extract with "
    "--set options.extractor.regions=patches and a selector that keeps one query, such as last."
)
