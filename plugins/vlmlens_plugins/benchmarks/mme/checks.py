"""The conformance kit over MME, on small folders in the authors' layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from vlmlens.manifest import Manifest
from vlmlens_plugins.benchmarks.kit import BenchmarkChecks
from vlmlens_plugins.benchmarks.manifests import MME
from vlmlens_plugins.benchmarks.mme.asked import SUFFIX
from vlmlens_plugins.data.checks import paint

SPLIT_TASKS = ("artwork", "celebrity", "landmark", "posters", "scene")
"""Tasks whose folders have `images` and `questions_answers_YN`; the others are flat."""


def write_task(folder: Path, task: str, names: Sequence[str]) -> None:
    """A task's folder with text files of two questions for each of the images named."""
    inner = (folder / task / "questions_answers_YN") if task in SPLIT_TASKS else folder / task
    inner.mkdir(parents=True, exist_ok=True)
    for name in names:
        lines = [f"Is there a {name} of {a}?{SUFFIX}\t{a}\n" for a in ("Yes", "No")]
        (inner / name).with_suffix(".txt").write_text("".join(lines))


class MmeChecks(BenchmarkChecks):
    """A flat task and one with folders of its own."""

    manifest: ClassVar[Manifest] = MME

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        paint(folder / "mme", "existence/1.png", "existence/10.jpg", "scene/images/a.jpg")
        write_task(folder / "mme", "existence", ("1.png", "10.jpg"))
        write_task(folder / "mme", "scene", ("a.jpg",))
        return str(folder / "mme")

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        made = {
            "results/existence.txt": "1.png\tIs it?\tYes\tYes, it is.\n",
            "wrong/count/1.txt": "Is it?\tmaybe\n",
            "bare/count/1.txt": "Yes\n",
            "unpainted/color/1.txt": "Is it red?\tYes\n",
            "other/cats/1.txt": "Is it red?\tYes\n",
            "MME.tsv": "index\tquestion\n1\tIs it?\n",
        }
        for name, text in made.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        paint(folder, "wrong/count/1.png", "bare/count/1.png", "textless/scene/1.png")
        named = ("results", "wrong", "bare", "unpainted", "other", "textless", "MME.tsv", "none")
        return [str(folder / name) for name in named]


CHECKS = (MmeChecks,)
