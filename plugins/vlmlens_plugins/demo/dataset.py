"""The demo's held-out scenes as samples, drawn on first use and kept in the cache folder."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple

from pydantic import Field

from vlmlens._disk import made_cache
from vlmlens._files import write_bytes
from vlmlens.abc import Dataset, Options
from vlmlens.errors import DataNotFound
from vlmlens.samples import Sample
from vlmlens_plugins.demo.questions import Question, questions
from vlmlens_plugins.demo.scenes import SCENES_VERSION, Scene, draw, make_scene


class _Asked(NamedTuple):
    scene: Scene
    attributes: Mapping[str, str | int | float]
    questions: tuple[Question, ...]


class DemoOptions(Options):
    """Options of `demo:scenes`."""

    scenes: int = Field(600, ge=1, description="How many held-out scenes.")
    seed: int = Field(0, ge=0, description="Seed of the scenes.")


class DemoDataset(Dataset):
    """Five questions about each of the held-out scenes, which the demo model never saw."""

    Options: ClassVar[type[Options]] = DemoOptions
    options: DemoOptions

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        """See `Dataset.samples`; prompts of the user's replace the questions, without labels."""
        if self.source != "scenes":
            raise DataNotFound(
                f"The demo has no data named {self.source!r}.",
                subject=self.source,
                hint="Use demo:scenes.",
            )
        folder = self._folder()
        samples = []
        for i in range(self.options.scenes):
            asked = _asked(i, self.options.seed)
            image = _drawn(asked.scene, folder)
            samples += _free(asked, image, prompts) if prompts else _samples(asked, image)
        return samples

    def _folder(self) -> Path:
        return made_cache(f"demo-scenes-v{SCENES_VERSION}-seed{self.options.seed}")


@lru_cache(maxsize=1024)
def _asked(index: int, seed: int) -> _Asked:
    scene = make_scene(index, split="heldout", seed=seed)
    return _Asked(scene, scene.attributes(), questions(scene))


def _drawn(scene: Scene, folder: Path) -> str:
    """The scene's PNG file; drawn where it is not there yet, complete or not at all."""
    path = folder / f"{scene.id}.png"
    if not path.exists():
        drawn = io.BytesIO()
        draw(scene).save(drawn, format="PNG")
        write_bytes(path, drawn.getvalue(), durable=False)
    return str(path)


def _samples(asked: _Asked, image: str) -> list[Sample]:
    return [
        Sample(
            id=f"{asked.scene.id}/{question.task}",
            prompt=question.prompt,
            images=(image,),
            label=question.label,
            choices=tuple(question.choices),
            group=asked.scene.id,
            task=question.task,
            attributes=dict(asked.attributes),
        )
        for question in asked.questions
    ]


def _free(asked: _Asked, image: str, prompts: Sequence[str]) -> list[Sample]:
    return [
        Sample(
            id=f"{asked.scene.id}#{k}",
            prompt=prompt,
            images=(image,),
            group=asked.scene.id,
            task=prompt,
            attributes=dict(asked.attributes),
        )
        for k, prompt in enumerate(prompts)
    ]
