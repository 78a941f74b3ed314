"""Samples that two runs answer differently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmlens.report._text import one_line, plural
from vlmlens.results import Cell, Result, Table
from vlmlens.view.addresses import of_sample

if TYPE_CHECKING:
    from vlmlens.view.shown_run import ShownRun

Named = tuple["ShownRun", str]
"""A run, and what it is called."""
_About = tuple[str, ...]
_GENERATED = "generated text"


@dataclass(frozen=True)
class Differing:
    """The samples to which two runs gave different answers.

    Args:
        said: How many there are, in a sentence.
        table: A row per sample: its id, what was asked about it, both answers, the label.
        runs: The runs by the columns of their answers.
    """

    said: str
    table: Table
    runs: Mapping[str, ShownRun]

    def address(self, row: int, name: str) -> str | None:
        """Where a cell leads: an answer to the sample in its run, the id to that in the first."""
        run = next(iter(self.runs.values())) if name == "sample" else self.runs.get(name)
        return None if run is None else of_sample(run, self.table.columns["sample"][row])


def differing(first: Named, second: Named) -> list[Differing]:
    """What two runs answer differently, for each answer that both have.

    Args:
        first: A run, and what it is called.
        second: The other one.
    """
    mine, others = (_answers(run) for run, _ in (first, second))
    return [
        _compared(what, mine[what], others[what], first, second) for what in mine if what in others
    ]


def _answers(run: ShownRun) -> dict[str, dict[_About, Cell]]:
    """The answers of a run: by analysis and column, by sample and what the table's keys say."""
    found = {
        f"{one_line(result.title)}: {column}": values
        for result in run.results.values()
        for column, values in _of_result(result)
    }
    texts = run.run.generated
    if texts:
        found[_GENERATED] = {(name,): text for name, text in texts.items()}
    return found


def _of_result(result: Result) -> list[tuple[str, dict[_About, Cell]]]:
    """The first column of answers of each table, since others are of changed images or prompts."""
    found = []
    for table in result.tables:
        names = [name for name in table.columns if name.startswith("answer")]
        if "sample" not in table.columns or not names:
            continue
        keys = [name for name in table.about if name not in ("sample", "task")]
        abouts = zip(*(map(str, table.columns[key]) for key in ("sample", *keys)), strict=True)
        values = dict(zip(abouts, table.columns[names[0]], strict=True))
        if len(values) == len(table) and any(isinstance(each, str) for each in values.values()):
            found.append((names[0], values))
    return found


def _compared(
    what: str,
    mine: Mapping[_About, Cell],
    others: Mapping[_About, Cell],
    first: Named,
    second: Named,
) -> Differing:
    shared = [about for about in mine if about in others]
    changed = [about for about in shared if mine[about] != others[about]]
    names = (f"answer of {first[1]}", f"answer of {second[1]}")
    samples = [first[0].samples.get(about[0]) for about in changed]
    columns: dict[str, list[Cell]] = {
        "sample": [about[0] for about in changed],
        "task": [each.task if each else None for each in samples],
        "about": [", ".join(about[1:]) for about in changed],
        names[0]: [mine[about] for about in changed],
        names[1]: [others[about] for about in changed],
        "label": [each.label if each else None for each in samples],
    }
    kept = {
        name: values
        for name, values in columns.items()
        if name in ("sample", *names) or any(values)
    }
    said = (
        f"{one_line(what)}: {len(changed):,} of {plural(len(shared), 'sample')} are answered "
        f"differently by {first[1]} and {second[1]}."
    )
    table = Table("answers", f"Answered differently: {one_line(what)}", kept)
    return Differing(said, table, {names[0]: first[0], names[1]: second[0]})
