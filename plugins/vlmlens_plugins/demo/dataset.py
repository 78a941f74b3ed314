"""The demo's pictures with questions, pairs or captions; drawn once, into the cache folder."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from vlmlens._disk import made_cache
from vlmlens._files import write_bytes
from vlmlens.abc import Dataset, Options
from vlmlens.errors import DataNotFound, SpecError, did_you_mean
from vlmlens.samples import Sample, with_prompts
from vlmlens_plugins.demo import captions
from vlmlens_plugins.demo.charts import (
    CHARTS_VERSION,
    Chart,
    ChartQuestion,
    chart_questions,
    draw_chart,
    make_chart,
)
from vlmlens_plugins.demo.manifests import DATASET
from vlmlens_plugins.demo.pairs import PAIRS_VERSION, Swap, regions, scene_pairs, swap_question
from vlmlens_plugins.demo.polling import EACH, SPLITS, pictured, polls
from vlmlens_plugins.demo.questions import Question, questions
from vlmlens_plugins.demo.scenes import SCENES_VERSION, Scene, draw, make_scene
from vlmlens_plugins.demo.tasks import KINDS, TASKS_VERSION
from vlmlens_plugins.demo.tasks.samples import task_samples
from vlmlens_plugins.demo.tints import TINTS_VERSION, Tint, tinted


class _Asked(NamedTuple):
    scene: Scene
    attributes: Mapping[str, str | int | float]
    questions: tuple[Question, ...]


class DemoOptions(Options):
    """Options of the demo's data; each belongs to some of them."""

    scenes: int = Field(
        600, ge=1, description="How many held-out scenes (scenes, shortcut, captions)."
    )
    tint: Tint = Field(
        "independent",
        description="The background's color: the main object's (answer), or any (demo:shortcut).",
    )
    pairs: int = Field(24, ge=1, description="How many pairs of scenes (demo:pairs).")
    swap: Swap = Field("color", description="What a pair changes of the main object (demo:pairs).")
    hallucinated: float = Field(
        0.2,
        ge=0,
        le=0.5,
        description="Share of named objects that are not there, planted (demo:captions).",
    )
    pictures: int = Field(
        40, ge=1, description="How many scenes, with 18 questions each (demo:pope)."
    )
    charts: int = Field(120, ge=1, description="How many bar charts (demo:charts).")
    number: int = Field(
        200, ge=1, description="How many tasks (depth, correspondence, odd-one-out, texture)."
    )
    canvas: bool = Field(
        False,
        description="All pictures of a task in one, for families that take one image "
        "(correspondence, texture).",
    )
    seed: int = Field(0, ge=0, description="Seed of the scenes, charts or tasks.")


_OPTIONS_OF = {
    "scenes": ("scenes",),
    "shortcut": ("scenes", "tint"),
    "pairs": ("pairs", "swap"),
    "captions": ("scenes", "hallucinated"),
    "pope": ("pictures",),
    "charts": ("charts",),
    "depth": ("number",),
    "correspondence": ("number", "canvas"),
    "odd-one-out": ("number",),
    "texture": ("number", "canvas"),
}
"""By source, its options; all of them have a seed."""


class DemoDataset(Dataset):
    """Held-out scenes, which the demo model never saw.

    `demo:scenes` asks five questions about each. `demo:shortcut` asks the same of scenes with a
    tinted background. `demo:pairs` asks one question about each scene and about the same scene
    with another main object. `demo:captions` has a given caption of each scene, in which some
    objects are not there: a benchmark like CHAIR whose truth is known. `demo:pope` asks for
    objects as the benchmark POPE does. `demo:charts` asks three questions about each bar chart,
    which the demo model was not taught to read. `demo:depth`, `demo:correspondence`,
    `demo:odd-one-out` and `demo:texture` ask which mark is at the right place; nor was it taught
    these.
    """

    Options: ClassVar[type[Options]] = DemoOptions
    options: DemoOptions

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        """See `Dataset.samples`; prompts of the user's replace the questions.

        Scenes then have no labels. Pairs keep their answers, since what a pair changes stays
        known: a prompt is another wording there.

        Raises:
            DataNotFound: There is no such source.
            SpecError: An option belongs to the other source.
        """
        self._check()
        read = {
            "pairs": self._pairs,
            "captions": self._captions,
            "pope": self._polled,
            "charts": self._charts,
            **dict.fromkeys(KINDS, self._tasks),
        }
        return read.get(self.source, self._scenes)(prompts)

    def _check(self) -> None:
        if self.source not in _OPTIONS_OF:
            raise DataNotFound(
                f"The demo has no data named {self.source!r}.",
                subject=self.source,
                hint=did_you_mean(self.source, _OPTIONS_OF)
                or f"Use demo:{', demo:'.join(_OPTIONS_OF)}.",
            )
        for source, names in _OPTIONS_OF.items():
            for name in names:
                given, usual = getattr(self.options, name), DemoOptions.model_fields[name].default
                if name not in _OPTIONS_OF[self.source] and given != usual:
                    raise SpecError(
                        f"{name}={given} is an option of demo:{source}, but the data is "
                        f"demo:{self.source}.",
                        subject=name,
                        hint=f"Use --data demo:{source}, or leave the option out.",
                    )

    def _scenes(self, prompts: Sequence[str]) -> list[Sample]:
        folder = self._folder()
        tint = self.options.tint if self.source == "shortcut" else None
        if tint is not None:
            self._probes("label", "background@color")
        samples: list[Sample] = []
        for i in range(self.options.scenes):
            which = (i, self.options.seed, tint)
            asked = _asked(*which)
            image = _drawn(asked.scene, folder / _file(asked.scene))
            samples += _free(asked, image, prompts) if prompts else _samples(*which, image)
        return samples

    def _pairs(self, prompts: Sequence[str]) -> list[Sample]:
        self._probes("label", "photographer")
        return with_prompts(self._members(self._folder()), prompts)

    def _probes(self, *targets: str) -> None:
        """Suggest what the analysis `probe` looks for."""
        self.suggests = {**DATASET.suggests["analysis"], "probe": {"targets": list(targets)}}

    def _members(self, folder: Path) -> Iterator[Sample]:
        swap = self.options.swap
        found = scene_pairs(swap, seed=self.options.seed)
        for clean, corrupted in islice(found, self.options.pairs):
            changed = folder / f"{clean.id}-{swap}-v{PAIRS_VERSION}.png"
            yield _member(clean, swap, "clean", _drawn(clean, folder / _file(clean)))
            yield _member(corrupted, swap, "corrupted", _drawn(corrupted, changed))

    def _charts(self, prompts: Sequence[str]) -> list[Sample]:
        self.suggests = {"probe": {"targets": ["label"]}, "bottleneck": {"charts": True}}
        return _charts(self.options.charts, self.options.seed, prompts)

    def _tasks(self, prompts: Sequence[str]) -> list[Sample]:
        """The answer stays known: a prompt of the user's is another wording."""
        seed, canvas = self.options.seed, self.options.canvas
        self.suggests = {"probe": {"targets": ["label"]}}
        folder = made_cache(f"demo-tasks-v{TASKS_VERSION}-seed{seed}")
        made = task_samples(self.source, self.options.number, seed, canvas=canvas, folder=folder)
        if len(made[0].images) > 1:
            self.notes = [
                f"demo:{self.source}: {len(made[0].images)} pictures a question; for a family that "
                "takes one image: --set options.dataset.canvas=true"
            ]
        return with_prompts(made, prompts)

    def _captions(self, prompts: Sequence[str]) -> list[Sample]:
        folder = self._folder()
        seed, rate = self.options.seed, self.options.hallucinated
        asked = [_asked(i, seed, None) for i in range(self.options.scenes)]
        texts = captions.captions([each.scene for each in asked], rate=rate, seed=seed)
        wrong = sum(len(text.hallucinated) for text in texts)
        mentions = sum(text.mentions for text in texts)
        self.notes = [
            f"demo:captions: {wrong} of {mentions} named objects are not there "
            f"({wrong / mentions:.1%}), by construction"
        ]
        captioned = [
            _captioned(each, text, _drawn(each.scene, folder / _file(each.scene)))
            for each, text in zip(asked, texts, strict=True)
        ]
        return with_prompts(captioned, prompts)

    def _polled(self, prompts: Sequence[str]) -> list[Sample]:
        folder = self._folder()
        scenes = pictured(self.options.pictures, seed=self.options.seed)
        images = {scene.id: _drawn(scene, folder / _file(scene)) for scene in scenes}
        if prompts:
            asked = [_Asked(scene, scene.attributes(), ()) for scene in scenes]
            return [
                sample for each in asked for sample in _free(each, images[each.scene.id], prompts)
            ]
        return [
            _polled(split, scene, images[scene.id], number, question, len(scenes))
            for split, scene, asked_for in polls(scenes)
            for number, question in enumerate(asked_for, start=1)
        ]

    def _folder(self) -> Path:
        return made_cache(f"demo-scenes-v{SCENES_VERSION}-seed{self.options.seed}")


@lru_cache(maxsize=1024)
def _asked(index: int, seed: int, tint: Tint | None) -> _Asked:
    scene = make_scene(index, split="heldout", seed=seed)
    if tint is not None:
        scene = tinted(scene, tint)
    return _Asked(scene, scene.attributes(), questions(scene))


def _file(scene: Scene) -> str:
    tint = scene.background.tint
    return f"{scene.id}.png" if tint is None else f"{scene.id}-on-{tint}-v{TINTS_VERSION}.png"


def _drawn(made: Scene | Chart, path: Path) -> str:
    """Its PNG file; drawn where it is not there yet, complete or not at all."""
    if not path.exists():
        drawn = io.BytesIO()
        picture = draw_chart(made) if isinstance(made, Chart) else draw(made)
        picture.save(drawn, format="PNG")
        write_bytes(path, drawn.getvalue(), durable=False)
    return str(path)


def _charts(count: int, seed: int, prompts: Sequence[str]) -> list[Sample]:
    """The questions about some charts; with the user's prompts, these without labels."""
    folder = made_cache(f"demo-charts-v{CHARTS_VERSION}-seed{seed}")
    samples = []
    for index in range(count):
        chart = make_chart(index, seed=seed)
        image = _drawn(chart, folder / f"{chart.id}.png")
        about = [ChartQuestion(prompt, prompt, "", "") for prompt in prompts]
        for number, question in enumerate(about or chart_questions(chart)):
            samples.append(_of_chart(chart, image, question, number if prompts else None))
    return samples


def _of_chart(chart: Chart, image: str, question: ChartQuestion, number: int | None) -> Sample:
    """One question; one of the user's has a number and no label."""
    known: dict[str, Any] = {
        "table": chart.table,
        "description": chart.description,
        "bars": len(chart.values),
        "regions": json.dumps(chart.boxes),
    }
    if number is None:
        known |= {"region": question.region, "benchmark": "chartqa"}
        known |= {"edition": "drawn bar charts of the demo", "prompt_style": "none"}
        known |= {"fact": question.fact} if question.fact else {}
    return Sample(
        id=f"{chart.id}/{question.task}" if number is None else f"{chart.id}#{number}",
        prompt=question.prompt,
        images=(image,),
        label=question.label if number is None else None,
        group=chart.id,
        task=question.task,
        attributes=known,
    )


@lru_cache(maxsize=1024)
def _samples(index: int, seed: int, tint: Tint | None, image: str) -> tuple[Sample, ...]:
    asked = _asked(index, seed, tint)
    return tuple(
        Sample(
            id=f"{asked.scene.id}/{question.task}",
            prompt=question.prompt,
            images=(image,),
            label=question.label,
            choices=tuple(question.choices),
            group=asked.scene.id,
            task=question.task,
            attributes={**asked.attributes, **_places(asked.scene, question)},
        )
        for question in asked.questions
    )


def _captioned(asked: _Asked, caption: captions.Caption, image: str) -> Sample:
    about = {
        "benchmark": "chair",
        "edition": "captions of the demo's scenes, with planted objects",
        "prompt_style": "official",
        "names": "demo",
        "answer": caption.text,
        "hallucinated": json.dumps(caption.hallucinated),
    }
    return Sample(
        id=f"{asked.scene.id}/caption",
        prompt=captions.PROMPT,
        images=(image,),
        group=asked.scene.id,
        task="caption",
        attributes={**asked.attributes, **_places(asked.scene), **about},
    )


def _polled(
    split: str, scene: Scene, image: str, number: int, question: Question, pictures: int
) -> Sample:
    """A question of `demo:pope`, with what the analysis `benchmark` looks for."""
    each = len(question.choices) * EACH * pictures
    return Sample(
        id=f"{split}/{scene.id}/{number}",
        prompt=question.prompt,
        images=(image,),
        label=question.label,
        choices=question.choices,
        group=scene.id,
        task=split,
        attributes={
            **scene.attributes(),
            **_places(scene, question),
            "split": split,
            "source": "",
            "benchmark": "pope",
            "edition": f"demo, {len(SPLITS)} x {each:,} questions",
            "prompt_style": "none",
            "questions": str(len(SPLITS) * each),
        },
    )


def _free(asked: _Asked, image: str, prompts: Sequence[str]) -> list[Sample]:
    return [
        Sample(
            id=f"{asked.scene.id}#{k}",
            prompt=prompt,
            images=(image,),
            group=asked.scene.id,
            task=prompt,
            attributes={**asked.attributes, **_places(asked.scene)},
        )
        for k, prompt in enumerate(prompts)
    ]


def _places(scene: Scene, question: Question | None = None) -> dict[str, str]:
    """What there is and where; and which region, and which object, a question is about."""
    boxes: dict[str, Any] = dict(regions(scene))
    names = [f"{item.color} {item.shape}" for item in scene.objects]
    about: dict[str, str] = {}
    if question is not None and question.task == "presence":
        about["object"] = question.object
        asked = [
            box for box, name in zip(boxes.values(), names, strict=True) if name == question.object
        ]
        if asked:
            about["region"] = "asked"
            boxes["asked"] = asked
    elif question is not None and question.task != "number":
        about["region"] = "main"
    return {"regions": json.dumps(boxes), "objects": json.dumps(names), **about}


def _member(scene: Scene, swap: Swap, role: str, image: str) -> Sample:
    """One of the two samples of a pair."""
    question = swap_question(scene, swap)
    pair = f"{scene.id}/{swap}"
    known = {"pair": pair, "role": role, "regions": json.dumps(regions(scene)), "region": "main"}
    return Sample(
        id=f"{pair}/{role}",
        prompt=question.prompt,
        images=(image,),
        label=question.label,
        choices=question.choices,
        group=scene.id,
        task=question.task,
        attributes={**scene.attributes(), **known},
    )
