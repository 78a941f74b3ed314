"""The conformance kit over the datasets that ship with vlmlens, on small sources made for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from vlmlens.manifest import Manifest
from vlmlens.testing import DatasetTests
from vlmlens_plugins.data.manifests import IMAGES, QUESTIONS, TABLE

ROWS: Sequence[Mapping[str, Any]] = (
    {
        "id": "a",
        "image": "img/1.png",
        "prompt": "Colour?",
        "label": "red",
        "choices": ["red", "blue"],
        "task": "colour",
        "weight": 1.5,
    },
    {
        "id": "b",
        "image": "img/1.png",
        "prompt": "How many?",
        "label": "3",
        "choices": ["1", "3"],
        "task": "number",
        "weight": None,
    },
    {
        "id": "c",
        "image": None,
        "prompt": "Grüße?",
        "label": None,
        "choices": None,
        "task": None,
        "weight": 2.0,
    },
)
"""A table whose samples share an image, or have none."""

_SCENES = [
    {
        "image_filename": f"{name}.png",
        "objects": [
            {"size": "large", "color": "red", "material": "metal", "shape": "cube"},
            {"size": "small", "color": color, "material": "rubber", "shape": "sphere"},
        ],
    }
    for name, color in (("b_1", "blue"), ("b_2", "green"))
]


def paint(folder: Path, *names: str) -> Path:
    """Write small images of different colours; their folders are made."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (number, 0, 0)).save(path)
    return folder


class ImageFolderChecks(DatasetTests):
    """A folder with sub-folders."""

    manifest: ClassVar[Manifest] = IMAGES

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        return str(paint(folder / "photos", "ok/1.png", "ok/2.jpg", "bad/10.webp"))

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        (folder / "empty").mkdir()
        (folder / "notes.txt").write_text("no image")
        return [str(folder / name) for name in ("missing", "empty", "notes.txt")]


class JsonlChecks(DatasetTests):
    """A table of JSON lines."""

    manifest: ClassVar[Manifest] = TABLE

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        path = paint(folder, "img/1.png") / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
        return str(path)

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        sources = {
            "empty.jsonl": "",
            "bad.jsonl": '{"prompt": "a"}\n{"prompt": ',
            "list.jsonl": "[1]",
            "twice.jsonl": '{"id": 1}\n{"id": 1}\n',
            "outside.jsonl": '{"image": "../../secret.png"}',
            "cut.csv": "id,label\n1\n",
            "no.parquet": "PAR1",
            "data.xlsx": "",
        }
        for name, text in sources.items():
            (folder / name).write_text(text)
        return [str(folder / name) for name in (*sources, "missing.csv")]


class CsvChecks(JsonlChecks):
    """A table of comma-separated values, with a byte-order mark and quoted cells."""

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        path = paint(folder, "img/1.png") / "data.csv"
        path.write_text(
            "id,image,prompt,label,choices,camera\n"
            'a,img/1.png,"Colour, please?",red,red|blue,left\n'
            'b,,How many?,3,"[1, 3]",\n',
            encoding="utf-8-sig",
        )
        return str(path)


class ParquetChecks(JsonlChecks):
    """A Parquet table."""

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = paint(folder, "img/1.png") / "data.parquet"
        pq.write_table(pa.Table.from_pylist([dict(row) for row in ROWS]), path)
        return str(path)


class ClevrChecks(DatasetTests):
    """CLEVR's questions, with annotations of two of three pictures."""

    manifest: ClassVar[Manifest] = QUESTIONS

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        paint(folder / "pictures", "b_1.png", "b_2.png", "not_annotated.png")
        (folder / "scenes.json").write_text(json.dumps({"scenes": _SCENES}))
        return "clevr"

    def options_in(self, folder: Path) -> Mapping[str, Any]:
        """See `DatasetTests.options_in`."""
        return {"images": str(folder / "pictures"), "annotations": str(folder / "scenes.json")}

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`: no such sets, and a set without its pictures."""
        del folder
        return ["imagenet", "", "clevr"]


IMAGES_CHECKS = (ImageFolderChecks,)
TABLE_CHECKS = (JsonlChecks, CsvChecks, ParquetChecks)
QUESTIONS_CHECKS = (ClevrChecks,)
