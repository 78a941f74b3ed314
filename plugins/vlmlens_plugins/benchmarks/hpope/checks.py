"""The conformance kit over H-POPE: questions that are built, and questions that are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import DatasetTests
from vlmlens_plugins.benchmarks.manifests import HPOPE
from vlmlens_plugins.data.checks import paint

_COLORS = ("red", "green", "blue", "gray")


class SceneChecks(DatasetTests):
    """Built of CLEVR's scene file."""

    manifest: ClassVar[Manifest] = HPOPE

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        names = [f"CLEVR_val_{number:06d}.png" for number in range(4)]
        paint(folder, *names)
        shapes = ("cube", "sphere", "cylinder")
        scenes = [
            {
                "image_filename": name,
                "objects": [
                    {
                        "size": ("large", "small")[(i + k) % 2],
                        "color": _COLORS[(i + k) % 4],
                        "material": "metal",
                        "shape": shapes[k],
                    }
                    for k in range(3)
                ],
            }
            for i, name in enumerate(names)
        ]
        (folder / "scenes.json").write_text(json.dumps({"info": {}, "scenes": scenes}))
        return str(folder / "scenes.json")

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        texts = {
            "columns.jsonl": {"image": "1.png", "prompt": "?"},
            "image.jsonl": {"objects": ["dog"]},
            "objects.jsonl": {"image": "1.png", "objects": [3]},
            "attributes.jsonl": {"image": "1.png", "objects": ["dog"], "attributes": [1]},
            "one.jsonl": {"image": "1.png", "objects": ["dog"]},
        }
        for name, row in texts.items():
            (folder / name).write_text(json.dumps(row) + "\n")
        return [str(folder / name) for name in (*texts, "missing")]


class TableChecks(SceneChecks):
    """Built of a table."""

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        paint(folder, "1.png", "2.png")
        rows = (
            {"image": "1.png", "objects": ["dog", "cat"], "attributes": {"dog": {"color": "red"}}},
            {"image": "2.png", "objects": [{"name": "cup", "color": "white"}], "attributes": None},
        )
        (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(folder / "own.jsonl")


class RowChecks(SceneChecks):
    """Questions in POPE's layout, with levels."""

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        paint(folder, "1.png")
        lines = [
            "question_id,image,text,label,level,attribute,category",
            "1,1.png,Is there a dog in the image?,yes,object,,random",
            "1,1.png,Is the dog red in the image?,no,attribute,red,image-adversarial",
        ]
        (folder / "rows.csv").write_text("\n".join(lines) + "\n")
        return str(folder / "rows.csv")


CHECKS = (SceneChecks, TableChecks, RowChecks)
