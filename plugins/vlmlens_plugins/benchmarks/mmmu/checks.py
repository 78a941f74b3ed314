"""The conformance kit over MMMU: the table of VLMEvalKit, and rows with the columns of the hub."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens_plugins.benchmarks.kit import BenchmarkChecks
from vlmlens_plugins.benchmarks.manifests import MMMU
from vlmlens_plugins.data.checks import paint

ROWS: Sequence[Mapping[str, Any]] = (
    {
        "id": "validation_Art_1",
        "question": "Which color has <image 1>?",
        "options": "['red', 'blue', '<image 2>']",
        "image_1": "1.png",
        "image_2": "2.png",
        "answer": "B",
        "question_type": "multiple-choice",
    },
    {
        "id": "validation_Math_7",
        "question": "How many are in <image 1>?",
        "options": "[]",
        "image_1": "1.png",
        "image_2": None,
        "answer": "12.5",
        "question_type": "open",
    },
)
"""A question with options, of which one is an image, and an open one."""


class MmmuChecks(BenchmarkChecks):
    """Rows with the columns of the hub, as JSON lines beside the images."""

    manifest: ClassVar[Manifest] = MMMU

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        path = paint(folder, "1.png", "2.png") / "validation.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
        return str(path)

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        changed = {
            "other": {"answer": "F"},
            "no-options": {"options": "[]"},
            "no-list": {"options": "red, blue"},
            "outside": {"image_1": "../../secret.png"},
            "no-id": {"id": ""},
        }
        paths = [folder / "missing.jsonl", folder / "empty", folder / "columns.csv"]
        paths[1].mkdir()
        paths[2].write_text("question,answer\nWhat?,A\n")
        for name, cells in changed.items():
            paths.append(folder / f"{name}.jsonl")
            paths[-1].write_text(json.dumps({**ROWS[0], **cells}))
        return [str(path) for path in paths]


class MmmuTableChecks(MmmuChecks):
    """VLMEvalKit's table, with images in base64."""

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        image = base64.b64encode((paint(folder, "1.png") / "1.png").read_bytes()).decode()
        columns = ("index", "question", "A", "B", "answer", "category", "split", "image")
        rows = (
            ("1", "Which color has <image 1>?", "red", "blue", "B", "Art", "validation", image),
            ("2", "How many are in <image 1>?", "", "", "4", "Math", "dev", "1"),
        )
        path = folder / "MMMU_DEV_VAL.tsv"
        path.write_text("\n".join("\t".join(row) for row in (columns, *rows)) + "\n")
        return str(path)


CHECKS = (MmmuChecks, MmmuTableChecks)
