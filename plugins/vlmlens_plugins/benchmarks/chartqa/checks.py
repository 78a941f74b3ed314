"""The conformance kit over ChartQA, on a small folder in the authors' layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens_plugins.benchmarks.kit import BenchmarkChecks
from vlmlens_plugins.benchmarks.manifests import CHARTQA
from vlmlens_plugins.data.checks import paint

ASKED: Mapping[str, Sequence[tuple[str, str, str]]] = {
    "human": (("1.png", "How many bars?", "14"), ("1.png", "Which year?", "2014")),
    "augmented": (("two_2.png", "Is it more?", "Yes"), ("two_2.png", "How much?", "0.57")),
}
"""Chart, question and label, by part."""
TABLES: Mapping[str, str] = {"1": "Food,Price\nLamb,103.7\n", "two_2": "Year,Share\n2014,0.57\n"}


def written(
    folder: Path, asked: Mapping[str, Sequence[tuple[Any, ...]]] = ASKED, split: str = "test"
) -> Path:
    """The folder `ChartQA Dataset` with one split in it; no chart is painted."""
    inner = folder / "ChartQA Dataset" / split
    (inner / "tables").mkdir(parents=True)
    for part, questions in asked.items():
        rows = [dict(zip(("imgname", "query", "label"), each, strict=True)) for each in questions]
        (inner / f"{split}_{part}.json").write_text(json.dumps(rows), encoding="utf-8")
    for name, text in TABLES.items():
        (inner / "tables" / f"{name}.csv").write_text(text, encoding="utf-8")
    return folder / "ChartQA Dataset"


class ChartQaChecks(BenchmarkChecks):
    """The official folder, with tables."""

    manifest: ClassVar[Manifest] = CHARTQA

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        top = written(folder)
        paint(top / "test" / "png", "1.png", "two_2.png")
        return str(top)

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        wrong: tuple[tuple[Any, ...], ...] = (
            ("1.png", "How many?", None),
            ("1.png", "How many?", ""),
            ("1.png", "How many?", float("nan")),
            ("1.png", "How many?", True),
            ("1.png", "", "3"),
            (None, "How many?", "3"),
            ("../../../1.png", "How many?", "3"),
        )
        made = [str(written(folder / str(n), {"human": [row]})) for n, row in enumerate(wrong)]
        (folder / "test_human.json").write_text('[{"question": "How many?"}]')
        (folder / "other.json").write_text('[{"question": "How many?"}]')
        (folder / "empty").mkdir()
        names = ("test_human.json", "other.json", "empty", "missing")
        return [*made, *(str(folder / name) for name in names)]


CHECKS = (ChartQaChecks,)
