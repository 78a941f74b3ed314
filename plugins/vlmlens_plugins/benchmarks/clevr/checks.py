"""The conformance kit over CLEVR, on small files in the authors' layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens_plugins.benchmarks.kit import BenchmarkChecks
from vlmlens_plugins.benchmarks.manifests import CLEVR
from vlmlens_plugins.data.checks import paint


def scene(name: str, *colors: str) -> dict[str, Any]:
    """A scene of cubes in a row from left to right, each a little nearer than the one before."""
    count = range(len(colors))
    left = [[j for j in count if j < i] for i in count]
    front = [[j for j in count if j > i] for i in count]
    return {
        "image_filename": name,
        "objects": [
            {"size": "large", "color": color, "material": "metal", "shape": "cube"}
            for color in colors
        ],
        "relationships": {"left": left, "right": front, "front": front, "behind": left},
    }


def question(number: int, name: str, text: str, answer: str | None, last: str) -> dict[str, Any]:
    """A question in the authors' layout; its program has its first and last steps only."""
    steps = [{"inputs": [], "function": "scene", "value_inputs": []}]
    known = {"program": [*steps, {"inputs": [0], "function": last, "value_inputs": []}]}
    return {
        "question_index": number,
        "image_filename": name,
        "question": text,
        **({} if answer is None else {"answer": answer, **known}),
    }


def written(
    folder: Path,
    questions: Sequence[Mapping[str, Any]],
    scenes: Sequence[Mapping[str, Any]] = (),
    split: str = "val",
) -> Path:
    """A folder `CLEVR_v1.0` with one split; no picture is painted."""
    top = folder / "CLEVR_v1.0"
    for name, found in (("questions", questions), ("scenes", scenes)):
        if found:
            path = top / name / f"CLEVR_{split}_{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"info": {"split": split}, name: list(found)})
            path.write_text(text, encoding="utf-8")
    return top


NAME = "CLEVR_val_{:06}.png"
ASKED = (
    question(0, NAME.format(0), "What color is the cube on the left?", "red", "query_color"),
    question(1, NAME.format(0), "How many cubes are there?", "2", "count"),
    question(2, NAME.format(1), "Is there a blue cube?", "no", "exist"),
    question(3, NAME.format(1), "Are both of one color?", "yes", "equal_color"),
)
SCENES = (scene(NAME.format(0), "red", "blue"), scene(NAME.format(1), "green", "green"))


class ClevrChecks(BenchmarkChecks):
    """The set's folder, with scenes."""

    manifest: ClassVar[Manifest] = CLEVR

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        top = written(folder, ASKED, SCENES)
        paint(top / "images" / "val", NAME.format(0), NAME.format(1))
        return str(top)

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        first = ASKED[0]
        wrong: tuple[Mapping[str, Any], ...] = (
            {"answer": "Red"},
            {"question": ""},
            {"program": [{"function": "paint"}]},
            {"program": "count"},
            {"image_filename": None},
            {"image_filename": "../../../secret.png"},
        )
        made = [
            str(written(folder / str(number), [{**first, **change}]))
            for number, change in enumerate(wrong)
        ]
        made.append(str(written(folder / "scenes", [first], [{"image_filename": "a.png"}])))
        made.append(str(written(folder / "twice", [first, first])))
        for name, text in (("cut.json", '{"questions": [{"question": '), ("no.json", "{}")):
            (folder / name).write_text(text)
            made.append(str(folder / name))
        (folder / "empty").mkdir()
        return [*made, str(folder / "empty"), str(folder / "missing")]


CHECKS = (ClevrChecks,)
