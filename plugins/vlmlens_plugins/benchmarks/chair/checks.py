"""The conformance kit over CHAIR, on small files in COCO's layout and on rows of the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens_plugins.benchmarks.kit import BenchmarkChecks
from vlmlens_plugins.benchmarks.manifests import CHAIR
from vlmlens_plugins.data.checks import paint

KINDS = {1: "person", 6: "bus", 18: "dog", 51: "bowl"}
SCENES: Mapping[int, tuple[Sequence[int], Sequence[str]]] = {
    42: (
        (18, 51),
        ("A dog eats.", "A puppy beside a bowl.", "A dog.", "The dog.", "A bus passes."),
    ),
    73: ((1,), ("A man.", "Two women wait.", "A person.", "Someone.", "People on a bench.")),
    139: ((6,), ("A bus.", "The bus.", "A red bus.", "A bus stop.", "Buses.")),
}
"""By image: the kinds that are outlined, and five captions."""


def file_name(number: int, split: str = "val2014") -> str:
    """The name of an image of COCO: those of 2014 say their split."""
    return f"COCO_{split}_{number:012d}.jpg" if split.endswith("2014") else f"{number:012d}.jpg"


def coco(folder: Path, split: str = "val2014", scenes: Any = None) -> Path:
    """Write annotations and pictures of a split, as COCO's archives unpack."""
    scenes = SCENES if scenes is None else scenes
    images = [{"id": n, "file_name": file_name(n, split), "width": 6, "height": 4} for n in scenes]
    outlined = [(n, kind) for n, (kinds, _) in scenes.items() for kind in kinds]
    said = [(n, text) for n, (_, texts) in scenes.items() for text in texts]
    box = {"area": 4.0, "iscrowd": 0, "bbox": [0, 0, 2, 2], "segmentation": [[0.0, 0.0, 2.0, 2.0]]}
    outlines = [
        {"id": i, "image_id": n, "category_id": kind, **box} for i, (n, kind) in enumerate(outlined)
    ]
    captions = [{"id": i, "image_id": n, "caption": text} for i, (n, text) in enumerate(said)]
    kinds = [{"id": n, "name": name, "supercategory": "any"} for n, name in KINDS.items()]
    written = {
        f"instances_{split}": {"images": images, "annotations": outlines, "categories": kinds},
        f"captions_{split}": {"images": images, "annotations": captions},
    }
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for name, data in written.items():
        (folder / "annotations" / f"{name}.json").write_text(json.dumps(data), encoding="utf-8")
    paint(folder / split, *(file_name(n, split) for n in scenes))
    return folder


class ChairChecks(BenchmarkChecks):
    """COCO's own files."""

    manifest: ClassVar[Manifest] = CHAIR

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        return str(coco(folder / "coco"))

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        (folder / "nothing").mkdir()
        for name, lost in (("half", "captions_val2014.json"), ("cut", "")):
            annotations = coco(folder / name) / "annotations"
            if lost:
                (annotations / lost).unlink()
            else:
                (annotations / "instances_val2014.json").write_text('{"images": [')
        (folder / "chair.pkl").write_bytes(b"\x80\x04N.")
        (folder / "rows.jsonl").write_text('{"image": "a.png", "caption": "a dog"}\n')
        names = ("missing", "nothing", "half", "cut", "chair.pkl", "rows.jsonl")
        return [str(folder / name) for name in names]


class ChairRowsChecks(BenchmarkChecks):
    """The columns of the hub, in a file."""

    manifest: ClassVar[Manifest] = CHAIR

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        paint(folder, "1.png", "2.png")
        rows = [
            {"question_id": "42", "image": "1.png", "gt_object": ["dog", "bowl"]},
            {"question_id": "73", "image": "2.png", "gt_object": ["person"]},
        ]
        path = folder / "chair.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)


CHECKS = (ChairChecks, ChairRowsChecks)
