"""What each run answers, side by side: a row per task, a column per question and run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vlmlens.comparison._sides import Side
from vlmlens.results import Cell, Glance, Table


def answers(sides: Sequence[Side]) -> list[Glance]:
    """The cells of the runs' overviews, question by question, each with the name of its run.

    A question that only one run answers is there, too: a vision backbone has probes and no answers,
    the model around it has both. Of one column of a run, nothing is given: an overview is of all.
    """
    cells = [
        (cell, side.name)
        for side in sides
        if side.column is None
        for result in side.results.values()
        for cell in result.overview
    ]
    order = list(dict.fromkeys(cell.question for cell, _ in cells))
    found = [
        replace(cell, question=f"{cell.question} ({name})")
        for question in order
        for cell, name in cells
        if cell.question == question
    ]
    return found if len({name for _, name in cells}) > 1 else []


def answer_tables(cells: Sequence[Glance]) -> list[Table]:
    """The cells as a table: a row per task; per question and run the answer, number and beside."""
    if not cells:
        return []
    known = {(cell.subject, cell.question): cell for cell in cells}
    subjects = list(dict.fromkeys(cell.subject for cell in cells))
    columns: dict[str, list[Cell]] = {"task": list(subjects)}
    for question in dict.fromkeys(cell.question for cell in cells):
        columns[question] = [_said(known.get((subject, question))) for subject in subjects]
    return [Table("compare-answers", "What each run answers", columns, keys=("task",))]


def _said(cell: Glance | None) -> str | None:
    if cell is None:
        return None
    value = "" if cell.value is None else f"{cell.value:.2f}"
    return f"{cell.text} {', '.join(filter(None, (value, cell.beside)))}".strip()
