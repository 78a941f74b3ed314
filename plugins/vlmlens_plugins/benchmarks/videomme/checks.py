"""The conformance kit over Video-MME, without its videos."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing._checks import expect
from vlmlens_plugins.benchmarks.kit import BenchmarkChecks
from vlmlens_plugins.benchmarks.manifests import VIDEOMME

ROWS: Sequence[Mapping[str, Any]] = tuple(
    {
        "video_id": "001",
        "videoID": "fFjv93ACGo8",
        "question_id": f"001-{number}",
        "duration": "short",
        "domain": "Knowledge",
        "sub_category": "Law",
        "task_type": "OCR Problems",
        "question": "Which color is the word?",
        "options": ["A. Red.", "B. Blue.", "C. Green.", "D. None."],
        "answer": answer,
    }
    for number, answer in enumerate("BDA", start=1)
)
"""Three questions on one video."""


class VideoMmeChecks(BenchmarkChecks):
    """Rows with the columns of the hub; the video is missing, which a run would say."""

    manifest: ClassVar[Manifest] = VIDEOMME

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        path = folder / "test.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
        return str(path)

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        changed: Mapping[str, Mapping[str, Any]] = {
            "other": {"answer": "E"},
            "no-options": {"options": []},
            "gap": {"options": ["A. Red.", "C. Blue."]},
            "no-video": {"videoID": ""},
        }
        paths = [folder / "missing.jsonl", folder / "empty", folder / "columns.csv"]
        paths[1].mkdir()
        paths[2].write_text("question,answer\nWhat?,A\n")
        for name, cells in changed.items():
            paths.append(folder / f"{name}.jsonl")
            paths[-1].write_text(json.dumps({**ROWS[0], **cells}))
        return [str(path) for path in paths]

    def check_images_can_be_opened(self, folder: Path) -> None:
        """A run chooses the frames of videos; samples name the file, beside the questions."""
        for sample in self.read(self.source(folder), folder):
            expect(not sample.images, f"{sample.id} has images")
            told = sample.video.source if sample.video else ""
            wanted = str(folder / "fFjv93ACGo8.mp4")
            expect(told == wanted, f"{sample.id}: its video is {told!r}, not {wanted!r}")


class AskedWithoutVideosChecks(VideoMmeChecks):
    """The same rows, asked without videos."""

    options: ClassVar[Mapping[str, Any]] = {"videos": "none"}

    def check_images_can_be_opened(self, folder: Path) -> None:
        """There are none to open, and no video."""
        for sample in self.read(self.source(folder), folder):
            expect(not sample.images and sample.video is None, f"{sample.id} shows something")


CHECKS = (VideoMmeChecks, AskedWithoutVideosChecks)
