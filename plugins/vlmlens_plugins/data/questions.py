"""The dataset `questions`: question sets over pictures of CLEVR or COCO."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from vlmlens.abc.dataset import Dataset
from vlmlens.abc.options import Options
from vlmlens.errors import DataError, DataNotFound, ManifestError, did_you_mean
from vlmlens.images import SUFFIXES, check_plain
from vlmlens.samples import Sample, with_prompts
from vlmlens_plugins.data import _question_sets
from vlmlens_plugins.data._paths import existing
from vlmlens_plugins.data.images import natural_key

SETS = ("clevr", "coco")


class QuestionOptions(Options):
    """Options of the dataset `questions`."""

    images: str = Field("", description="Folder with the pictures.")
    annotations: str = Field(
        "",
        description="CLEVR's scene file or COCO's instance file; without it, no labels.",
    )
    tasks: list[str] = Field(default_factory=list, description="Only these tasks; default: all.")


@dataclass(frozen=True, slots=True)
class _Annotations:
    """What is known of each picture, by file name, and all kinds of objects that COCO knows."""

    of: Mapping[str, Any]
    kinds: tuple[str, ...] = ()


_Asked = tuple[str, Mapping[str, str], Iterable[_question_sets.Question]]
"""A picture's name, what is known of it, and the questions about it."""


class Questions(Dataset):
    """`questions:clevr`: color, shape, material, number; `:coco`: object, presence, number.

    Pictures of COCO have the attribute `objects`, a JSON list of the kinds that are there, and
    questions of presence `object`, the kind that they ask for.

    With the set's own annotations every question has its right answer, and only annotated pictures
    that lie in the folder are asked about; without, the questions have no labels. A picture is a
    group. Which object is asked for is a fixed function of the picture's file name.
    """

    Options: ClassVar[type[Options]] = QuestionOptions
    options: QuestionOptions

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        """See `Dataset.samples`; prompts of the user's replace the questions, without labels.

        Raises:
            DataNotFound: No such set, folder or file, or no picture in it.
            DataError: No folder is given, or the set has no such task.
            ManifestError: The annotations are not the set's.
        """
        self._check()
        folder = existing(self.options.images)
        if prompts:
            pictures = [
                Sample(name, "", (str(folder / name),), group=name, attributes=known)
                for name, known, _ in self._questions(folder)
            ]
            return with_prompts(pictures, prompts)
        found = [
            _sample(folder, name, known, question)
            for name, known, questions in self._questions(folder)
            for question in questions
        ]
        tasks = list(dict.fromkeys(str(sample.task) for sample in found))
        for task in self.options.tasks:
            if task not in tasks:
                raise DataError(
                    f"questions:{self.source} has no task {task!r}.",
                    subject=task,
                    hint=did_you_mean(task, tasks) or f"There are {', '.join(tasks)}.",
                )
        return [one for one in found if not self.options.tasks or one.task in self.options.tasks]

    def _check(self) -> None:
        if self.source not in SETS:
            raise DataNotFound(
                f"There is no question set {self.source!r}.",
                subject=self.source,
                hint=f"There are {' and '.join(SETS)}.",
            )
        if not self.options.images:
            raise DataError(
                f"questions:{self.source} needs the folder with its pictures.",
                subject=self.source,
                hint="--set options.dataset.images=FOLDER",
            )

    def _questions(self, folder: Path) -> Iterator[_Asked]:
        names = sorted((p.name for p in folder.iterdir() if _is_image(p)), key=natural_key)
        about = self._annotated() if self.options.annotations else None
        kept = [name for name in names if about is None or name in about.of]
        if about is not None:
            self._note_unused(len(names) - len(kept), len(about.of) - len(kept))
        if not kept:
            what = "annotated picture" if about is not None else "picture"
            raise DataNotFound(
                f"There is no {what} in {str(folder)!r}.",
                subject=str(folder),
                hint="Name the folder that holds the files themselves, and its own annotations.",
            )
        for name in kept:
            if self.source == "clevr":
                yield name, {}, _question_sets.clevr(about.of[name] if about else None, name)
            else:
                seen = about.of[name] if about else None
                known = {"objects": json.dumps(seen.kinds)} if seen else {}
                yield name, known, _question_sets.coco(seen, about.kinds if about else (), name)

    def _note_unused(self, pictures: int, annotations: int) -> None:
        found = {
            "pictures without annotations": pictures,
            "annotations without a picture": annotations,
        }
        said = [f"{count} {what}" for what, count in found.items() if count]
        if said:
            self.notes = [f"questions:{self.source}: not used: {', '.join(said)}."]

    def _annotated(self) -> _Annotations:
        path = existing(self.options.annotations)
        try:
            check_plain(path)
            data = json.loads(path.read_bytes())
            return _scenes(data) if self.source == "clevr" else _instances(data)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ManifestError(
                f"{path} does not hold the annotations of {self.source} "
                f"({type(error).__name__}: {error}).",
                subject=str(path),
                hint="For clevr a scene file (CLEVR_val_scenes.json), for coco an instance file "
                "(instances_val2017.json).",
            ) from error


def _scenes(data: Mapping[str, Any]) -> _Annotations:
    found = {str(scene["image_filename"]): scene for scene in data["scenes"]}
    for scene in found.values():
        for each in scene["objects"]:
            _ = each["size"], each["color"], each["material"], each["shape"]
    return _Annotations(found)


def _instances(data: Mapping[str, Any]) -> _Annotations:
    kinds = {each["id"]: str(each["name"]) for each in data["categories"]}
    outlines: dict[Any, list[tuple[float, str, bool]]] = defaultdict(list)
    for each in data["annotations"]:
        crowd = bool(each.get("iscrowd"))
        outline = float(each["area"]), kinds[each["category_id"]], crowd
        outlines[each["image_id"]].append(outline)
    found = {str(each["file_name"]): _outlined(outlines[each["id"]]) for each in data["images"]}
    return _Annotations(found, tuple(sorted(kinds.values())))


def _outlined(outlines: Sequence[tuple[float, str, bool]]) -> _question_sets.Outlined:
    crowds = frozenset(kind for _, kind, crowd in outlines if crowd)
    single = [(area, kind) for area, kind, crowd in outlines if not crowd]
    counts = Counter(kind for _, kind in single if kind not in crowds)
    return _question_sets.Outlined(counts, crowds, max(single)[1] if single else None)


def _sample(
    folder: Path, name: str, known: Mapping[str, str], question: _question_sets.Question
) -> Sample:
    return Sample(
        id="/".join(filter(None, (name, question.task, question.key))),
        prompt=question.prompt,
        images=(str(folder / name),),
        label=question.label,
        choices=question.choices,
        group=name,
        task=question.task,
        attributes={**known, **({"object": question.object} if question.object else {})},
    )


def _is_image(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix.lower() in SUFFIXES
