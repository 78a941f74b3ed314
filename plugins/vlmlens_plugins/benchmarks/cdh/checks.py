"""The conformance kit over CDH-Bench, on two small pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens_plugins.benchmarks.cdh.rows import SIDES
from vlmlens_plugins.benchmarks.kit import BenchmarkChecks
from vlmlens_plugins.benchmarks.manifests import CDH
from vlmlens_plugins.data.checks import paint


def pair(number: int, **changes: Any) -> dict[str, Any]:
    """A pair's row in the authors' layout."""
    return {
        "category": "Counting Anomalies",
        "subcategory": "Body Parts",
        "pair_id": f"Pair {number}",
        "pair_name": "3 hands vs 2 hands",
        "direct_qa": {
            "question": "Are there 2 hands and not 3?",
            "commonsense_gt": "yes",
            "counterfactual_gt": "no",
        },
        "multiple_choice": {
            "question": "How many hands are there?",
            "options": ["A. 2 hands", "B. 3 hands", "C. 4 hands", "D. 1 hand"],
            "commonsense_gt": "A",
            "counterfactual_gt": "B",
        },
    } | changes


def written(folder: Path, rows: Sequence[Mapping[str, Any]], name: str = "benchmark.jsonl") -> str:
    """The path of a file with these rows."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


class CdhChecks(BenchmarkChecks):
    """The official file with pictures beside it."""

    manifest: ClassVar[Manifest] = CDH

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        names = [f"Body_Parts/Pair_{n}/{side}.png" for n in (1, 2) for side in SIDES]
        paint(folder / "data" / "images", *names)
        return written(folder / "data", [pair(1), pair(2)])

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        choice = pair(1)["multiple_choice"]
        wrong: tuple[Mapping[str, Any], ...] = (
            {"pair_id": None},
            {"category": " "},
            {"subcategory": ".."},
            {"direct_qa": "Are there 2 hands?"},
            {"direct_qa": None, "multiple_choice": None},
            {"direct_qa": {"question": "Are there 2 hands?"}},
            {"multiple_choice": {**choice, "options": []}},
            {"multiple_choice": {**choice, "commonsense_gt": "E"}},
        )
        made = [
            written(folder, [pair(1, **change)], f"{number}.jsonl")
            for number, change in enumerate(wrong)
        ]
        other = written(folder, [{"question": "Why?", "label": "yes"}], "other.jsonl")
        twice = written(folder, [pair(1), pair(1)], "twice.jsonl")
        return [*made, other, twice, str(folder / "none.jsonl")]


CHECKS = (CdhChecks,)
