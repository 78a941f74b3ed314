"""The dataset `chartqa`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from vlmlens._files import expanded
from vlmlens.abc import Options
from vlmlens.errors import DataNotFound
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.benchmark import Benchmark, BenchmarkOptions, Found
from vlmlens_plugins.benchmarks.card import Card
from vlmlens_plugins.benchmarks.chartqa.asked import AUGMENTED, HUMAN, Asked
from vlmlens_plugins.benchmarks.chartqa.card import CARD
from vlmlens_plugins.benchmarks.chartqa.folders import (
    ChartTables,
    Split,
    asked_in,
    numbered,
    sources_of,
    split_in,
)
from vlmlens_plugins.benchmarks.chartqa.tables import FILES, FORMS, TITLE, form_of
from vlmlens_plugins.benchmarks.forms import rows_of
from vlmlens_plugins.benchmarks.sources import ImageRoot

TABLE = "table"
"""Attribute: the chart's data, as the text of its CSV file."""
_TEST = {HUMAN: 1250, AUGMENTED: 1250}


class ChartQaOptions(BenchmarkOptions):
    """Options of the dataset `chartqa`."""

    split: Literal["train", "val", "test"] | None = Field(
        None, description="Split of the official folder; default: test."
    )
    part: Literal["all", "human", "augmented"] = Field(
        "all", description="Questions asked by people (human), made by a machine, or all."
    )
    tables: bool = Field(
        True, description="Read the charts' tables (official files) into the attribute `table`."
    )


class ChartQa(Benchmark):
    """ChartQA in its official folder, the hub's columns of two owners or VLMEvalKit's table.

    A sample's id is `human/1`: its part, and its number there (VLMEvalKit's own index). The group
    is the chart. The attribute `table` is the text of the chart's CSV file, where there is one.
    """

    Options: ClassVar[type[Options]] = ChartQaOptions
    options: ChartQaOptions
    card: ClassVar[Card] = CARD

    def found(self) -> Found:
        """See `Benchmark.found`."""
        chosen, place = self.options, expanded(self.source)
        split = split_in(place, chosen.split) if place.exists() else None
        if split is not None:
            sources = sources_of(split)
            asked, form = asked_in(sources, self.source), "official files"
            digest = "+".join(source.digest for source in sources.values())
            root = self._root(split.folder)
        else:
            source = rows_of(
                TITLE, self.source, FILES, FORMS, subset=chosen.subset, revision=chosen.revision
            )
            form, rows = form_of(source, self.source)
            asked, digest, root = list(rows), source.digest, self._root(place.parent)
        kept = [pair for pair in numbered(asked) if chosen.part in ("all", pair[1].part)]
        if not kept:
            raise DataNotFound(
                f"{self.source!r} has no {chosen.part} questions.",
                subject=self.source,
                hint="Choose another part: --set options.dataset.part=all.",
            )
        tables = _tables(split) if chosen.tables else None
        notes = _notes(kept, tables)
        return Found(_samples(kept, root, tables), form, _edition(kept, split), digest, notes)

    def _root(self, folder: Path) -> ImageRoot:
        return ImageRoot(self.options.images, folder, allow_outside=self.options.allow_outside)


def _samples(
    kept: Sequence[tuple[str, Asked]], root: ImageRoot, tables: ChartTables | None
) -> Iterator[Sample]:
    for name, each in kept:
        table = tables.of(each.chart) if tables and each.chart else ""
        yield Sample(
            id=name,
            prompt=each.question,
            images=(root.path(each.image, each.place),),
            label=each.label,
            group=each.chart or None,
            task=each.part,
            attributes={TABLE: table} if table else {},
        )


def _tables(split: Split | None) -> ChartTables | None:
    folder = split.folder / "tables" if split else None
    return ChartTables(folder) if folder is not None and folder.is_dir() else None


def _edition(kept: Sequence[tuple[str, Asked]], split: Split | None) -> str:
    counts = Counter(each.part for _, each in kept)
    listed = " and ".join(f"{counts[part]:,} {part}" for part in (HUMAN, AUGMENTED) if counts[part])
    name = f"{split.folder.name}, " if split else ""
    known = " (the test split's number)" if dict(counts) == _TEST else ""
    return f"{name}{listed} questions{known}"


def _notes(kept: Sequence[tuple[str, Asked]], tables: ChartTables | None) -> tuple[str, ...]:
    if tables is None:
        return ()
    charts = {each.chart for _, each in kept if each.chart}
    without = sum(not tables.of(chart) for chart in charts)
    told = [f"{TITLE}: {without} of {len(charts)} charts have no table"] if without else []
    if tables.unclear:
        told.append(
            f"{TITLE}: tables that are not all UTF-8: {len(tables.unclear)} (such as "
            f"{min(tables.unclear)}); letters that cannot be read are shown as \ufffd"
        )
    return tuple(told)
