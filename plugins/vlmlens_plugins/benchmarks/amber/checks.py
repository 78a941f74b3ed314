"""The conformance kit over AMBER, on small files in the authors' layout and in VLMEvalKit's."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens_plugins.benchmarks.kit import BenchmarkChecks
from vlmlens_plugins.benchmarks.manifests import AMBER
from vlmlens_plugins.data.checks import paint

RELATION = {"sky": [], "grass": ["ground"], "man": ["person"], "dog": [], "sun": [], "ship": []}
SAFE = ("orange", "light")
ITEMS: Sequence[Mapping[str, Any]] = (
    {"type": "generative", "image": 1, "truth": ["sky", "grass"], "hallu": ["sun", "dog"]},
    {"type": "generative", "image": 2, "truth": ["man", "dog"], "hallu": ["ship"]},
    {"type": "discriminative-attribute-state", "image": 1, "truth": "yes"},
    {"type": "discriminative-attribute-state", "image": 1, "truth": "no"},
    {"type": "discriminative-attribute-number", "image": 2, "truth": "yes"},
    {"type": "discriminative-attribute-action", "image": 2, "truth": "no"},
    {"type": "discriminative-hallucination", "image": 1, "truth": "no"},
    {"type": "discriminative-relation", "image": 2, "truth": "yes"},
    {"type": "relation", "image": 1, "truth": "no"},
)
"""What is asked about which picture; the ids are the places, from 1."""


def lists(folder: Path) -> Path:
    """Write the two word lists."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "relation.json").write_text(json.dumps(RELATION), encoding="utf-8")
    (folder / "safe_words.txt").write_text("\n".join(SAFE), encoding="utf-8")
    return folder


def official(folder: Path, items: Sequence[Mapping[str, Any]] = ITEMS) -> Path:
    """Write the authors' folder: data/ and image/."""
    data = lists(folder / "data")
    (data / "query").mkdir()
    queries, annotations = [], []
    for number, item in enumerate(items, start=1):
        caption = item["type"] == "generative"
        query = "Describe this image." if caption else f"Is the sky sunny in this image ({number})?"
        queries.append({"id": number, "image": f"AMBER_{item['image']}.jpg", "query": query})
        annotations.append(
            {"id": number, **{key: value for key, value in item.items() if key != "image"}}
        )
    (data / "annotations.json").write_text(json.dumps(annotations), encoding="utf-8")
    for name, some in {
        "all": queries,
        "generative": [q for q in queries if q["query"] == "Describe this image."],
        "discriminative": [q for q in queries if q["query"] != "Describe this image."],
    }.items():
        (data / "query" / f"query_{name}.json").write_text(json.dumps(some), encoding="utf-8")
    paint(folder / "image", *sorted({f"AMBER_{item['image']}.jpg" for item in items}))
    return folder


class AmberChecks(BenchmarkChecks):
    """The authors' files."""

    manifest: ClassVar[Manifest] = AMBER

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        return str(official(folder / "AMBER"))

    def answer(self, label: str) -> str:
        """See `BenchmarkChecks.answer`: exactly Yes or No."""
        return label.capitalize()

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        (folder / "nothing").mkdir()
        unjoined = official(folder / "unjoined") / "data"
        (unjoined / "annotations.json").write_text('[{"id": 1, "type": "relation", "truth": "no"}]')
        strange = official(folder / "strange", ({**ITEMS[2], "type": "colour"},))
        maybe = official(folder / "maybe", ({**ITEMS[2], "truth": "maybe"},))
        unlisted = official(folder / "unlisted")
        (unlisted / "data" / "relation.json").unlink()
        (folder / "rows.jsonl").write_text('{"image": "a.png", "question": "Why?"}\n')
        names = ("missing", "nothing", "rows.jsonl")
        return [
            *(str(folder / name) for name in names),
            *(str(place) for place in (unjoined, strange, maybe, unlisted)),
        ]


class AmberTableChecks(AmberChecks):
    """VLMEvalKit's table: questions only, images in base64 or by the index of the row with them."""

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        images = paint(folder, "1.png", "2.png")
        held: dict[int, int] = {}
        lines = ["index\timage\timage_path\tquestion\tanswer\tcategory"]
        for number, item in enumerate(ITEMS[2:]):
            picture = item["image"]
            data = (images / f"{picture}.png").read_bytes()
            cell = str(held[picture]) if picture in held else base64.b64encode(data).decode()
            held.setdefault(picture, number)
            answer = str(item["truth"]).capitalize()
            path = f"AMBER_{picture}.jpg"
            lines.append("\t".join((str(number), cell, path, "Is it?", answer, item["type"])))
        (folder / "AMBER.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(folder / "AMBER.tsv")


CHECKS = (AmberChecks, AmberTableChecks)
