"""The HTML report of a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vlmlens.report.files import write_result
from vlmlens.report.html import write_report
from vlmlens.report.overview import headline, overview_of

if TYPE_CHECKING:
    from vlmlens.results import Result
    from vlmlens.runs.run import Run


def write_run_report(run: Run) -> Path:
    """Write the overview and report.html into the run's folder, from what is stored there."""
    info, spec = run.info, run.spec
    summary = info.get("summary", {})
    results = run.results
    in_order = [results[name] for name in ordered(run, results)]
    write_result(overview_of(in_order, headline(run)), run.path / "results")
    return write_report(
        run.report_path,
        in_order,
        title=f"{spec.adapter} on {spec.data}",
        facts={
            "Run": {
                "folder": run.path.name,
                "state": info.get("state", "unknown"),
                "started": info.get("started", ""),
                "finished": info.get("finished", ""),
                "vlmlens": info.get("vlmlens", ""),
                "python": info.get("python", ""),
            },
            "Model": {name: str(value) for name, value in info.get("model", {}).items()},
            "Data": {
                "source": str(spec.data),
                "samples": summary.get("samples", len(run.samples)),
                "columns": len(info.get("columns", ())),
            },
            "Seconds": dict(summary.get("seconds", {})),
            **run.facts,
        },
        spec_yaml=spec.to_yaml(),
        warnings=info.get("warnings", ()),
        samples=run.samples,
        reproduce=_command(run),
    )


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
    chosen = "".join(f" --analysis {name}" for name in ordered(run, run.results))
    return f"vlmlens analyze {run.spec.data}{chosen}"


def ordered(run: Run, results: Mapping[str, Result]) -> list[str]:
    """Analyses in the order of the spec, then those added later."""
    first = [name for name in run.spec.analysis if name in results]
    return first + [name for name in results if name not in first]
