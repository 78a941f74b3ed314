"""The conformance kit over VQAv2, on small official files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens_plugins.benchmarks.kit import BenchmarkChecks
from vlmlens_plugins.benchmarks.manifests import VQAV2
from vlmlens_plugins.data.checks import paint

QUESTIONS, ANNOTATIONS, PAIRS = (
    "v2_OpenEnded_mscoco_val2014_questions.json",
    "v2_mscoco_val2014_annotations.json",
    "v2_mscoco_val2014_complementary_pairs.json",
)
_ASKED = (
    (42000, "Is it red?", "yes", "yes/no"),
    (42001, "What is it?", "net", "other"),
    (73000, "Is it red?", "no", "yes/no"),
)


def written(folder: Path) -> Path:
    """Three questions on two images, with annotations and one complementary pair."""
    paint(folder, *(f"COCO_val2014_{image:012d}.jpg" for image in (42, 73)))
    asked, known = [], []
    for number, question, answer, kind in _ASKED:
        image = number // 1000
        people = [answer] * 9 + ["maybe"]
        asked.append({"image_id": image, "question": question, "question_id": number})
        known.append(
            {
                "question_id": number,
                "image_id": image,
                "question_type": question[:7],
                "answer_type": kind,
                "multiple_choice_answer": answer,
                "answers": [{"answer": a, "answer_id": i} for i, a in enumerate(people, 1)],
            }
        )
    head: dict[str, Any] = {"info": {"version": "2.0"}, "data_subtype": "val2014"}
    for name, data in (
        (QUESTIONS, {**head, "questions": asked}),
        (ANNOTATIONS, {**head, "annotations": known}),
        (PAIRS, [[42000, 73000]]),
    ):
        (folder / name).write_text(json.dumps(data), encoding="utf-8")
    return folder


class VqaV2Checks(BenchmarkChecks):
    """The official files."""

    manifest: ClassVar[Manifest] = VQAV2

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        return str(written(folder) / QUESTIONS)

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        whole = written(folder)
        text = (whole / QUESTIONS).read_text()
        files = {
            "cut_questions.json": text[: len(text) // 2],
            "empty_questions.json": '{"questions": []}',
            "odd_questions.json": '{"questions": [{"question_id": 1}]}',
            "rows.jsonl": '{"question": "What?"}',
        }
        for name, content in files.items():
            (whole / name).write_text(content)
        (folder / "nothing").mkdir()
        names = (*files, ANNOTATIONS, "nothing", "missing.json")
        return [str(whole / name) for name in names]


CHECKS = (VqaV2Checks,)
