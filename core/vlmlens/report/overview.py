"""The overview of a run: what all of its analyses answer, one row per task or attribute.

Each analysis gives its own cells (`Result.overview`); nothing here knows an analysis by name. The
overview is a result like any other, so that terminal, page, JSON and notebook say the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.results import OVERVIEW, Cell, Finding, Glance, Result, Table


def overview_of(results: Sequence[Result]) -> Result:
    """The overview of a run.

    Args:
        results: Of its analyses, in order.

    Returns:
        A result with all cells, what is notable as findings (of several about one subject, the
        first), and one table: a row per subject; per question its answer, and in columns
        QUESTION (value), (verdict) and (beside) what is known.
    """
    cells = [cell for result in results for cell in result.overview]
    notable: dict[str, Finding] = {}
    for found in (found for result in results for found in result.findings if found.notable):
        notable.setdefault(found.subject, found)
    return Result(
        analysis=OVERVIEW,
        title="Overview",
        findings=list(notable.values()),
        tables=[_table(cells)] if cells else [],
        overview=cells,
    )


def _table(cells: Sequence[Glance]) -> Table:
    subjects = list(dict.fromkeys(cell.subject for cell in cells))
    known = {(cell.subject, cell.question): cell for cell in cells}
    columns: dict[str, list[Cell]] = {"task": list(subjects)}
    for question in dict.fromkeys(cell.question for cell in cells):
        row = [known.get((subject, question)) for subject in subjects]
        columns[question] = [cell.text if cell else None for cell in row]
        columns[f"{question} (value)"] = [cell.value if cell else None for cell in row]
        columns[f"{question} (verdict)"] = [str(cell.verdict) if cell else None for cell in row]
        columns[f"{question} (beside)"] = [cell.beside if cell else None for cell in row]
    return Table(OVERVIEW, "What each analysis answers", columns, keys=("task",))
