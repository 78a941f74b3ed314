"""The conformance kit over HallusionBench, on a small file in the authors' layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens_plugins.benchmarks.kit import BenchmarkChecks
from vlmlens_plugins.benchmarks.manifests import HALLUSIONBENCH
from vlmlens_plugins.data.checks import paint

_SEEN = {"VD": "12", "VS": "012"}


def rows() -> list[dict[str, Any]]:
    """Two questions on each figure of a set of VD and of one of VS; edits turn the answers."""
    return [
        {
            "category": category,
            "subcategory": subcategory,
            "visual_input": seen,
            "set_id": "0",
            "figure_id": str(figure),
            "sample_note": "made up",
            "question_id": str(number),
            "question": f"Is line {number} the longer one?",
            "gt_answer_details": "It is.",
            "gt_answer": str((number + (seen == "2")) % 2),
            "filename": None if seen == "0" else f"./{category}/{subcategory}/0_{figure}.png",
        }
        for category, subcategory in (("VD", "illusion"), ("VS", "chart"))
        for figure, seen in enumerate(_SEEN[category])
        for number in range(2)
    ]


def written(folder: Path, made: Sequence[Mapping[str, Any]], name: str) -> str:
    """The path of a file with these rows."""
    (folder / name).write_text(json.dumps(made), encoding="utf-8")
    return str(folder / name)


class HallusionChecks(BenchmarkChecks):
    """The official file, with questions without a figure."""

    manifest: ClassVar[Manifest] = HALLUSIONBENCH

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        made = rows()
        paint(folder / "hallusion_bench", *sorted({r["filename"] for r in made if r["filename"]}))
        return written(folder, made, "HallusionBench.json")

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        first, *rest = rows()
        changes: tuple[Mapping[str, Any], ...] = (
            {"gt_answer": "2"},
            {"gt_answer": None},
            {"category": "VX"},
            {"visual_input": "3"},
            {"question": ""},
            {"filename": None},
            {"filename": "../../other.png"},
        )
        made = [
            written(folder, [{**first, **change}, *rest], f"{number}.json")
            for number, change in enumerate(changes)
        ]
        twice = written(folder, [first, first], "twice.json")
        other = written(folder, [{"question": "Why?", "label": "yes"}], "other.json")
        (folder / "empty").mkdir()
        return [*made, twice, other, str(folder / "empty"), str(folder / "missing.json")]


CHECKS = (HallusionChecks,)
