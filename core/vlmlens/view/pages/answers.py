"""Samples that two runs answer differently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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


@dataclass(frozen=True)
class _Answers:
    """One column of answers.

    Args:
        what: The analysis and the column.
        values: By sample and by what the table's keys say.
        beside: The task and the label of each, where the table has them.
    """

    what: str
    values: Mapping[_About, Cell]
    beside: Mapping[str, Mapping[_About, Cell]]


def differing(first: Named, second: Named) -> list[Differing]:
    """What two runs answer differently, for each answer that both have.

    Args:
        first: A run, and what it is called.
        second: The other one.
    """
    other, read = second[0], second[0].results
    names = f"{first[1]} and {second[1]}"
    return first[0].kept(
        f"differing from {other.number}, {names}",
        (*first[0].state, *other.state),
        lambda: _differing(first, second, read),
    )


def _differing(first: Named, second: Named, read: Mapping[str, Result]) -> list[Differing]:
    """`read` are the second's results: who waits for one run's must not wait for the other's."""
    others = {each.what: each for each in _answers(second[0], read)}
    return [
        _compared(mine, others[mine.what].values, first, second)
        for mine in _answers(first[0], first[0].results)
        if mine.what in others
    ]


def _answers(run: ShownRun, read: Mapping[str, Result]) -> list[_Answers]:
    found = [each for result in read.values() for each in _of_result(result)]
    texts: dict[_About, Cell] = {(name,): text for name, text in run.run.generated.items()}
    return [*found, _Answers("generated text", texts, {})] if texts else found


def _of_result(result: Result) -> Iterator[_Answers]:
    """The first column of answers of each table, since others are of changed images or prompts."""
    for table in result.tables:
        names = [name for name in table.columns if name.startswith("answer")]
        if "sample" not in table.columns or not names:
            continue
        keys = [name for name in table.about if name not in ("sample", "task")]
        columns = [map(str, table.columns[key]) for key in ("sample", *keys)]
        abouts = list(zip(*columns, strict=True))
        values = dict(zip(abouts, table.columns[names[0]], strict=True))
        if len(values) < len(table) or not any(isinstance(each, str) for each in values.values()):
            continue
        beside = {
            name: dict(zip(abouts, table.columns[name], strict=True))
            for name in ("task", "label")
            if name in table.columns
        }
        yield _Answers(f"{one_line(result.title)}: {names[0]}", values, beside)


def _compared(
    mine: _Answers, others: Mapping[_About, Cell], first: Named, second: Named
) -> Differing:
    shared = [about for about in mine.values if about in others]
    changed = [about for about in shared if mine.values[about] != others[about]]
    names = (f"answer of {first[1]}", f"answer of {second[1]}")
    columns: dict[str, Sequence[Cell]] = {"sample": [about[0] for about in changed]}
    if any(len(about) > 1 for about in changed):
        columns["about"] = [", ".join(about[1:]) for about in changed]
    for name, values in ((names[0], mine.values), (names[1], others), *mine.beside.items()):
        columns[name] = [values[about] for about in changed]
    what = one_line(mine.what)
    said = (
        f"{what}: {len(changed):,} of {plural(len(shared), 'sample')} are answered differently by "
        f"{first[1]} and {second[1]}."
    )
    if not shared:
        said = f"{what}: {first[1]} and {second[1]} have no sample in common."
    table = Table("answers", f"Answered differently: {what}", columns)
    return Differing(said, table, {names[0]: first[0], names[1]: second[0]})
