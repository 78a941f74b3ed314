"""The conformance kit over POPE's forms, on small files in their layout."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from vlmlens.manifest import Manifest
from vlmlens.testing import DatasetTests
from vlmlens_plugins.benchmarks.manifests import POPE
from vlmlens_plugins.data.checks import paint

_IMAGES = ("COCO_val2014_000000000001.jpg", "COCO_val2014_000000000002.jpg")
_SPLITS = {"random": "cat", "popular": "chair", "adversarial": "leash"}


def rows(split: str) -> Iterator[dict[str, Any]]:
    """Four questions of a split in the layout of the official files."""
    number = 0
    for image in _IMAGES:
        for label, kind in (("yes", "dog"), ("no", _SPLITS[split])):
            number += 1
            text = f"Is there a {kind} in the image?"
            yield {"question_id": number, "image": image, "text": text, "label": label}


def hub_rows() -> Iterator[dict[str, Any]]:
    """The questions of all splits with the columns of the hub, without images."""
    for split in _SPLITS:
        for row in rows(split):
            yield {
                "id": f"{split}{row['question_id']}",
                "question_id": str(row["question_id"]),
                "question": row["text"],
                "answer": row["label"],
                "image_source": row["image"].removesuffix(".jpg"),
                "category": split,
            }


def write_official(folder: Path) -> Path:
    """A folder coco/ with the three files and the images."""
    own = paint(folder / "coco", *_IMAGES)
    for split in _SPLITS:
        lines = (json.dumps(row) + "\n" for row in rows(split))
        (own / f"coco_pope_{split}.json").write_text("".join(lines))
    return own


class OfficialChecks(DatasetTests):
    """The official files."""

    manifest: ClassVar[Manifest] = POPE

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        return str(write_official(folder))

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        good = next(rows("random"))
        files = {
            "label.jsonl": {**good, "label": "maybe"},
            "text.jsonl": {**good, "text": ""},
            "image.jsonl": {**good, "image": None},
            "outside.jsonl": {**good, "image": "../../x.jpg"},
            "columns.jsonl": {"id": 1, "prompt": "?"},
        }
        for name, row in files.items():
            (folder / name).write_text(json.dumps(row) + "\n")
        (folder / "empty").mkdir()
        return [str(folder / name) for name in (*files, "empty", "missing")]


class HubChecks(OfficialChecks):
    """A Parquet file with the columns of the hub and images inside."""

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        own = _painted(folder / "images")
        made = [{**row, "image": {"bytes": _bytes(own, row), "path": None}} for row in hub_rows()]
        pq.write_table(pa.Table.from_pylist(made), folder / "test.parquet")
        return str(folder / "test.parquet")


class TableChecks(OfficialChecks):
    """VLMEvalKit's table: splits in one cell, and images by the index of the row that has them."""

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        own = _painted(folder / "images")
        every = ",".join(_SPLITS)
        lines = ["index\timage\tquestion\tanswer\tcategory"]
        held: dict[str, int] = {}
        for index, row in enumerate(hub_rows()):
            name = row["image_source"]
            image = str(held[name]) if name in held else _text(own, row)
            held.setdefault(name, index)
            splits = f'"{every}"' if row["answer"] == "yes" else row["category"]
            if row["answer"] == "yes" and row["category"] != "random":
                continue
            answer = row["answer"].capitalize()
            lines.append(f"{index}\t{image}\t{row['question']}\t{answer}\t{splits}")
        (folder / "POPE.tsv").write_text("\n".join(lines) + "\n")
        return str(folder / "POPE.tsv")


class LlavaChecks(OfficialChecks):
    """LLaVA's file beside the official ones, which have the labels."""

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        write_official(folder)
        asked = "\nAnswer the question using a single word or phrase."
        every = [(split, row) for split in _SPLITS for row in rows(split)]
        lines = [
            json.dumps(
                {
                    "question_id": number,
                    "image": row["image"],
                    "text": row["text"] + asked,
                    "category": split,
                }
            )
            for number, (split, row) in enumerate(every)
        ]
        (folder / "llava_pope_test.jsonl").write_text("\n".join(lines) + "\n")
        return str(folder / "llava_pope_test.jsonl")

    def options_in(self, folder: Path) -> Mapping[str, Any]:
        """See `DatasetTests.options_in`."""
        return {"images": str(folder / "coco")} if (folder / "coco").exists() else {}


def _painted(folder: Path) -> Path:
    """Two images that JPEG keeps apart."""
    folder.mkdir()
    for name, color in zip(_IMAGES, ("red", "blue"), strict=True):
        Image.new("RGB", (6, 4), color).save(folder / name)
    return folder


def _bytes(folder: Path, row: Mapping[str, Any]) -> bytes:
    return (folder / f"{row['image_source']}.jpg").read_bytes()


def _text(folder: Path, row: Mapping[str, Any]) -> str:
    return base64.b64encode(_bytes(folder, row)).decode()


CHECKS = (OfficialChecks, HubChecks, TableChecks, LlavaChecks)
