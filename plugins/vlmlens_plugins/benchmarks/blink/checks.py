"""The conformance kit over BLINK: rows with the columns of the hub, and VLMEvalKit's table."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens_plugins.benchmarks.kit import BenchmarkChecks
from vlmlens_plugins.benchmarks.manifests import BLINK
from vlmlens_plugins.data.checks import paint

ROWS: Sequence[Mapping[str, Any]] = (
    {
        "idx": "val_Relative_Depth_1",
        "sub_task": "Relative_Depth",
        "question": "Which point is nearer?",
        "image_1": "1.png",
        "image_2": None,
        "choices": ["A is nearer", "B is nearer"],
        "answer": "(B)",
        "prompt": "Which point is nearer?\nSelect.\n(A) A is nearer\n(B) B is nearer",
        "explanation": "",
    },
    {
        "idx": "val_Visual_Similarity_2",
        "sub_task": "Visual_Similarity",
        "question": "Which is more like the first?",
        "image_1": "1.png",
        "image_2": "2.png",
        "choices": ["the second image", "the third image"],
        "answer": "(A)",
        "prompt": "Which is more like the first?\n(A) the second image\n(B) the third image",
        "explanation": "",
    },
)
"""A question on one image, and one on two."""


class BlinkChecks(BenchmarkChecks):
    """Rows with the columns of the hub, as JSON lines beside the images."""

    manifest: ClassVar[Manifest] = BLINK

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        path = paint(folder, "1.png", "2.png") / "val.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
        return str(path)

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        changed: Mapping[str, Mapping[str, Any]] = {
            "other": {"answer": "(F)"},
            "no-options": {"choices": []},
            "no-list": {"choices": "red, blue"},
            "outside": {"image_1": "../../secret.png"},
            "no-id": {"idx": ""},
            "no-question": {"question": ""},
        }
        paths = [folder / "missing.jsonl", folder / "empty", folder / "columns.csv"]
        paths[1].mkdir()
        paths[2].write_text("question,answer\nWhat?,A\n")
        for name, cells in changed.items():
            paths.append(folder / f"{name}.jsonl")
            paths[-1].write_text(json.dumps({**ROWS[0], **cells}))
        return [str(path) for path in paths]


class BlinkTableChecks(BlinkChecks):
    """VLMEvalKit's table, with images in base64."""

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        image = base64.b64encode((paint(folder, "1.png") / "1.png").read_bytes()).decode()
        columns = ("index", "question", "A", "B", "answer", "category", "image")
        rows = (
            ("1", "Which point?", "A is nearer", "B is nearer", "B", "Relative_Depth", image),
            ("2", "Which?", "the second", "the third", "A", "Art_Style", f"['{image}', '{image}']"),
        )
        path = folder / "BLINK.tsv"
        path.write_text("\n".join("\t".join(row) for row in (columns, *rows)) + "\n")
        return str(path)


CHECKS = (BlinkChecks, BlinkTableChecks)
