"""Where the app's pages are: the addresses of analyses, of samples, of what is behind a finding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from vlmlens.report._text import slug

if TYPE_CHECKING:
    from vlmlens.report._browser import Address
    from vlmlens.results import Figure, Finding, Glance, Result
    from vlmlens.view.shown_run import ShownRun


def of_analysis(run: ShownRun, name: str, part: str = "") -> str:
    """The address of an analysis's page.

    Args:
        run: The run.
        name: The analysis, with its label.
        part: The element of the page; "": its beginning.
    """
    return f"{run.address}/analyses/{quote(name, safe=':')}{part and f'#{part}'}"


def of_samples(run: ShownRun) -> Address:
    """Where a finding's samples are: those of its task, or those that it names."""

    def address(finding: Finding, numbers: Sequence[int]) -> str:
        if not finding.samples:
            return f"{run.address}/samples?{urlencode({'task': finding.subject})}"
        known = (
            f"{name}:{number}"
            for name, result in run.results.items()
            for number, each in enumerate(result.findings)
            if each is finding
        )
        asked = {"finding": next(known)}
        return f"{run.address}/samples?{urlencode(asked, safe=':')}"

    return address


def of_sample(run: ShownRun, sample: object) -> str | None:
    """The address of a sample by its id; None if the run does not have it."""
    number = run.samples.numbers.get(str(sample))
    return None if number is None else f"{run.address}/samples/{number}"


def of_evidence(run: ShownRun, name: str, cell: Glance) -> str:
    """Where what is behind a cell of the overview is: a finding, or else a figure."""
    part = part_about(run.results[name], cell.subject)
    query = urlencode({"subject": cell.subject})
    return f"{of_analysis(run, name)}?{query}{part and f'#{part}'}"


def part_about(result: Result, subject: str) -> str:
    """The element of an analysis's page that answers for a subject; "" if there is none."""
    for number, finding in enumerate(result.findings):
        if is_about(finding, subject):
            return finding_id(number)
    figure = figure_about(result, subject)
    return "" if figure is None else figure_id(figure)


def is_about(finding: Finding, subject: str) -> bool:
    """Whether a finding is about a task or attribute, also one of a single task: `ATTRIBUTE@TASK`.

    >>> from vlmlens.results import Finding
    >>> is_about(Finding("It is read.", subject="artist@color"), "artist")
    True
    """
    return bool(subject) and subject in (finding.subject, finding.subject.partition("@")[0])


def figure_about(result: Result, subject: str) -> int | None:
    """The figure of a subject: the one with the shortest name that ends in it, or else has it."""
    part = f"-{slug(subject)}"
    fitting = [
        (not figure.name.endswith(part), len(figure.name), number)
        for number, figure in enumerate(figures_here(result))
        if subject and f"{part}-" in f"{figure.name}-"
    ]
    return min(fitting)[2] if fitting else None


def figures_here(result: Result) -> list[Figure]:
    """The figures on an analysis's page: all but those of features."""
    return [figure for figure in result.figures if figure.kind != "features"]


def finding_id(number: int) -> str:
    """The element of a finding."""
    return f"finding-{number}"


def figure_id(number: int) -> str:
    """The element of a figure, which `draw_figures` gives it."""
    return f"figure-{number}"
