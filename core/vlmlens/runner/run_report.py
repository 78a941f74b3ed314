"""The HTML report of a run folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.report.files import write_result
from vlmlens.report.html import Facts, render, write_report
from vlmlens.report.overview import headline, overview_of
from vlmlens.tuned.record import in_words

if TYPE_CHECKING:
    from vlmlens.runs.run import Run


def write_run_report(run: Run) -> Path:
    """Write the overview and report.html into the run's folder, from the stored results."""
    results = list(run.results.values())
    write_result(overview_of(results, headline(run)), run.path / "results")
    page = render(
        results,
        title=f"A look inside {run.spec.model or run.spec.adapter}",
        lead=lead_of(run),
        facts=facts_of(run),
        spec_yaml=run.spec.model_copy(update={"out": None}).to_yaml(changed=True),
        warnings=run.info.get("warnings", ()),
        samples=run.samples,
        reproduce=command_of(run),
    )
    return write_report(run.report_path, page)


def lead_of(run: Run) -> list[str]:
    """What to know before reading: the run in one line, the model's class, the day."""
    info = run.info
    parts = [headline(run), info.get("model", {}).get("class"), _day(info.get("started"))]
    return [str(part) for part in parts if part]


def _day(time: str | None) -> str:
    """The day of a time as run.json has it; as it is where it is no time."""
    try:
        return f"{datetime.fromisoformat(time):%d %B %Y}".lstrip("0") if time else ""
    except ValueError:
        return time or ""


def facts_of(run: Run) -> Facts:
    """What is known of a run, in groups: times, model, data, what plugins say."""
    info = run.info
    summary = info.get("summary", {})
    about = ("state", "started", "finished", "vlmlens", "python")
    return {
        "Run": {"folder": run.path.name, **{name: info.get(name) for name in about}},
        "Model": _model_facts(info.get("model", {})),
        "Data": {
            "source": str(run.spec.data),
            "samples": run.sample_count,
            "columns": len(info.get("columns", ())),
        },
        "Seconds": summary.get("seconds", {}),
        **run.facts,
    }


def _model_facts(model: Mapping[str, Any]) -> dict[str, Any]:
    tuned = in_words(model.get("tuned"))
    return {**model, "tuned": tuned} if tuned else dict(model)


def render_again(
    run: Run,
    figures: str | None = None,
    tables: str | None = None,
    to: Path | None = None,
    *,
    show: bool = False,
) -> list[Path]:
    """Write the report of a run again, and files for papers if formats are given.

    Args:
        run: The run.
        figures: Formats of figures, separated by commas: "svg,png".
        tables: Formats of tables, separated by commas.
        to: The folder for those files; default: `papers` in the run's folder.
        show: Whether to open the page in a browser.

    Returns:
        The paths of the page and of the files.

    Raises:
        SpecError: A format is unknown.
    """
    from vlmlens.report.papers import write_papers

    forms = {"figures": _listed(figures), "tables": _listed(tables)}
    written: list[Path] = []
    if any(forms.values()):
        results = list(run.results.values())
        written = write_papers(results, to or run.path / "papers", samples=run.samples, **forms)
    page = write_run_report(run)
    if show:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
    return [page, *written]


def _listed(formats: str | None) -> list[str]:
    return [name.strip() for name in (formats or "").split(",") if name.strip()]


def command_of(run: Run) -> str:
    """The command that reproduces the results."""
    if run.has_model:
        return "vlmlens run -c run.yaml --out ANOTHER_FOLDER"
    chosen = "".join(f" --analysis {shlex.quote(name)}" for name in run.results)
    return f"vlmlens analyze {shlex.quote(run.spec.data or '')}{chosen}"
