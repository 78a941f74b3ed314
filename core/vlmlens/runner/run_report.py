"""The HTML report of a run folder."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from vlmlens.compose.estimate import duration
from vlmlens.report._text import plural
from vlmlens.report.files import write_result
from vlmlens.report.html import Facts, render, write_report
from vlmlens.report.overview import overview_of

if TYPE_CHECKING:
    from vlmlens.runs.run import Run


def write_run_report(run: Run) -> Path:
    """Write the overview and report.html into the run's folder, from what is stored there."""
    results = list(run.results.values())
    write_result(overview_of(results), run.path / "results")
    page = render(
        results,
        title=f"A look inside {run.spec.model or run.spec.adapter}",
        lead=_lead(run),
        facts=_facts(run),
        spec_yaml=run.spec.model_copy(update={"out": None}).to_yaml(changed=True),
        warnings=run.info.get("warnings", ()),
        samples=run.samples,
        reproduce=_command(run),
    )
    return write_report(run.report_path, page)


def _lead(run: Run) -> list[str]:
    """What a reader wants to know first: how much of what data, the model, when, how long."""
    info, samples = run.info, run.samples
    images = {image for sample in samples for image in sample.images}
    kind = info.get("model", {}).get("class", "")
    counts = [plural(len(images), "image")] if images else []
    counts.append(plural(len(samples), "question" if any(s.prompt for s in samples) else "sample"))
    started = info.get("started")
    day = f"{datetime.fromisoformat(started):%d %B %Y}".lstrip("0") if started else ""
    seconds = info.get("summary", {}).get("seconds", {})
    took = duration(sum(seconds.values())) if "extract" in seconds else ""
    parts = [f"{', '.join(counts)} of {run.spec.data}", kind, day, took]
    return [part for part in parts if part]


def _facts(run: Run) -> Facts:
    info = run.info
    summary = info.get("summary", {})
    about = ("state", "started", "finished", "vlmlens", "python")
    return {
        "Run": {"folder": run.path.name, **{name: info.get(name) for name in about}},
        "Model": info.get("model", {}),
        "Data": {
            "source": str(run.spec.data),
            "samples": summary.get("samples", len(run.samples)),
            "columns": len(info.get("columns", ())),
        },
        "Seconds": summary.get("seconds", {}),
        **run.facts,
    }


def render_again(
    run: Run,
    figures: str | None = None,
    tables: str | None = None,
    to: Path | None = None,
    *,
    show: bool = False,
) -> list[Path]:
    """Write the report of a run again, and files for papers where formats are named.

    Args:
        run: Whose results.
        figures: Formats of figures with commas between them, as "svg,png".
        tables: Formats of tables likewise.
        to: Folder of those files; default: `papers` in the run's folder.
        show: Whether the page is opened in a browser.

    Returns:
        The page, then the files.

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


def _command(run: Run) -> str:
    """The command that gives the same results again."""
    if run.has_model:
        return "vlmlens run -c run.yaml --out ANOTHER_FOLDER"
    chosen = "".join(f" --analysis {name}" for name in run.results)
    return f"vlmlens analyze {run.spec.data}{chosen}"
