"""The overview of a run: what all of its analyses answer, one row per task or attribute.

Each analysis gives its own cells (`Result.overview`); nothing here knows an analysis by name. The
overview is a result like any other, so that terminal, page, JSON and notebook say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from vlmlens.compose.estimate import duration
from vlmlens.report._text import plural
from vlmlens.results import OVERVIEW, Cell, Finding, Glance, Result, Table

if TYPE_CHECKING:
    from vlmlens.runs.run import Run


def headline(run: Run) -> str:
    """A run in one line: "demo on demo:scenes: 600 images, 3,000 questions, 3 min".

    The model is left out if nothing used it, as where answers from elsewhere are scored. The time
    is left out if the run was analyzed again: that of the extraction is not known then.
    """
    spec, info = run.spec, run.info
    model = f"{spec.adapter} {spec.model or ''}".strip()
    model += "" if spec.tuned is None else f" with {PurePath(spec.tuned).name}"
    images, samples = _images_of(run), run.sample_count
    seconds = info.get("summary", {}).get("seconds", {})
    facts = [
        plural(images, "image") if images else "",
        "" if images == samples else plural(samples, "question"),
        duration(sum(seconds.values())) if "extract" in seconds else "",
    ]
    used = run.has_model and ("model" in info or info.get("columns") != [])
    source = f"{model} on {spec.data}" if used else str(spec.data)
    return f"{source}: {', '.join(fact for fact in facts if fact)}"


def _images_of(run: Run) -> int:
    """The number of distinct images; older versions of vlmlens did not write it down."""
    known = run.info.get("images")
    if known is not None:
        return int(known)
    return len({image for sample in run.samples for image in sample.images})


def overview_of(results: Sequence[Result], title: str = "Overview") -> Result:
    """The overview of a run.

    Args:
        results: Of its analyses, in order.
        title: The run in one line.

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
        title=title,
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
