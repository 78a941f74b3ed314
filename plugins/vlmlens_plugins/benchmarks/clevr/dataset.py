"""The dataset `clevr`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from pydantic import Field

from vlmlens.abc import Options
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.benchmark import Benchmark, BenchmarkOptions, Found
from vlmlens_plugins.benchmarks.card import Card
from vlmlens_plugins.benchmarks.clevr.card import CARD
from vlmlens_plugins.benchmarks.clevr.files import TITLE, Files, files_of
from vlmlens_plugins.benchmarks.clevr.questions import Asked, asked_in
from vlmlens_plugins.benchmarks.clevr.scenes import Scene, scenes_in
from vlmlens_plugins.benchmarks.sources import ImageRoot, digest


class ClevrOptions(BenchmarkOptions):
    """Options of the dataset `clevr`."""

    split: str | None = Field(None, description="Split of the set's folder; default: val.")
    scenes: str | None = Field(
        None, description="File of scenes; default: scenes/CLEVR_SPLIT_scenes.json, if it is there."
    )
    describe: bool = Field(
        True, description="Say in attributes what the scenes hold: scene, description, objects."
    )


class Clevr(Benchmark):
    """CLEVR's questions, with what its scenes hold.

    A sample's id is `val/0`: its split and `question_index`. The task is one of the paper's five
    types. The group is the picture. With the scenes, the attributes `scene` (JSON), `description`
    (sentences that say all that a question needs) and `objects` (the shapes) are there.
    """

    Options: ClassVar[type[Options]] = ClevrOptions
    options: ClevrOptions
    card: ClassVar[Card] = CARD

    def found(self) -> Found:
        """See `Benchmark.found`."""
        chosen = self.options
        files = files_of(self.source, chosen.split, chosen.scenes, chosen.images)
        scenes = scenes_in(files.scenes) if files.scenes and chosen.describe else None
        asked = list(asked_in(files.questions))
        root = ImageRoot(None, files.images, allow_outside=chosen.allow_outside)
        samples = _samples(asked, files, scenes, root)
        edition = _edition(asked, files)
        notes = tuple(self._notes(asked, scenes))
        return Found(samples, "official files", edition, digest(files.questions), notes)

    def _notes(self, asked: Sequence[Asked], scenes: Mapping[str, Scene] | None) -> Iterator[str]:
        if all(each.answer is None for each in asked):
            yield f"{TITLE}: this split has no answers, so nothing can be scored"
        pictures = {each.image for each in asked}
        if scenes is None and self.options.describe:
            yield (
                f"{TITLE}: there is no file of scenes, so samples do not say what is drawn: "
                "--set options.dataset.scenes=FILE"
            )
        lost = len(pictures - scenes.keys()) if scenes is not None else 0
        if lost:
            yield f"{TITLE}: {lost} of {len(pictures)} pictures have no scene"


def _samples(
    asked: Sequence[Asked], files: Files, scenes: Mapping[str, Scene] | None, root: ImageRoot
) -> Iterator[Sample]:
    prefix = f"{files.split}/" if files.split else ""
    for each in asked:
        scene = scenes.get(each.image) if scenes else None
        yield Sample(
            id=prefix + each.key,
            prompt=each.question,
            images=(root.path(each.image, each.place),),
            label=each.answer,
            choices=each.choices,
            group=each.image,
            task=each.task,
            attributes={
                **({"function": each.function} if each.function else {}),
                **(scene._asdict() if scene else {}),
            },
        )


def _edition(asked: Sequence[Asked], files: Files) -> str:
    pictures = len({each.image for each in asked})
    name = f"{files.split}, " if files.split else ""
    return f"{name}{len(asked):,} questions on {pictures:,} pictures"
