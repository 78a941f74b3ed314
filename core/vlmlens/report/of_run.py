"""The HTML report of a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlmlens.report.html import write_report

if TYPE_CHECKING:
    from vlmlens.runs import Run
    from vlmlens.samples import Sample

_PICTURED_IMAGES = 4


def write_run_report(run: Run) -> Path:
    """Write report.html into the run's folder, from what is stored there."""
    info, spec = run.info, run.spec
    summary = info.get("summary", {})
    in_order = [run.results[name] for name in _ordered(run)]
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
        },
        spec_yaml=spec.to_yaml(),
        warnings=info.get("warnings", ()),
        samples=_few(run.samples),
        reproduce="vlmlens run -c run.yaml --out ANOTHER_FOLDER",
    )


def _ordered(run: Run) -> list[str]:
    """Analyses in the order of the spec, then those added later."""
    names = list(run.results)
    first = [name for name in run.spec.analysis if name in names]
    return first + [name for name in names if name not in first]


def _few(samples: Sequence[Sample]) -> list[Sample]:
    """All samples on the first few distinct images."""
    images: dict[tuple[str, ...], None] = {}
    chosen = []
    for sample in samples:
        key = tuple(image for image in sample.images if isinstance(image, str))
        if key not in images and len(images) == _PICTURED_IMAGES:
            break
        images[key] = None
        chosen.append(sample)
    return chosen
