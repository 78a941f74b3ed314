"""The page that shows a comparison."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlmlens.comparison._sides import read_sides
from vlmlens.comparison._tests import compare
from vlmlens.report.html import render, write_report
from vlmlens.results import Result

if TYPE_CHECKING:
    from vlmlens.registry import Registry


def compare_runs(
    places: Sequence[str],
    *,
    to: Path | None = None,
    registry: Registry | None = None,
    seed: int = 0,
    trust: bool = False,
) -> Result:
    """Compare runs by their folders; see `read_sides` and `compare`.

    Args:
        places: `RUN` or `RUN@COLUMN`, the first is what the others are compared with.
        to: Where the page goes; None: nowhere.
        registry: The plugins of the runs.
        seed: Of all randomness.
        trust: See `vlmlens.Run`.
    """
    result = compare(read_sides(places, registry, trust=trust), seed=seed)
    if to is not None:
        write_comparison(result, places, to)
    return result


def write_comparison(result: Result, places: Sequence[str], path: Path) -> Path:
    """Write the page of a comparison."""
    page = render(
        [result],
        title=result.title,
        facts={},
        spec_yaml="".join(f"# {place}\n{_spec(place)}\n" for place in places),
        max_rows=None,
        reproduce=shlex.join(["vlmlens", "compare", *places]),
    )
    return write_report(path, page)


def _spec(place: str) -> str:
    folder = place if (Path(place) / "spec.yaml").is_file() else place.rpartition("@")[0]
    path = Path(folder) / "spec.yaml"
    return path.read_text(encoding="utf-8") if path.is_file() else ""
