"""The dataset `mme`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar

from vlmlens._files import expanded
from vlmlens.errors import DataError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.benchmark import Benchmark, Found
from vlmlens_plugins.benchmarks.card import Card
from vlmlens_plugins.benchmarks.forms import rows_of
from vlmlens_plugins.benchmarks.mme.asked import ENDING, SUFFIX, TASKS, Asked
from vlmlens_plugins.benchmarks.mme.card import CARD
from vlmlens_plugins.benchmarks.mme.folders import are_results, asked_in, digest_of, task_folders
from vlmlens_plugins.benchmarks.mme.tables import FILES, FORMS, TITLE, form_of
from vlmlens_plugins.benchmarks.sources import ImageRoot

_QUESTIONS, _IMAGES = 2374, 1187


class Mme(Benchmark):
    """MME in the authors' folders, the hub's columns or VLMEvalKit's table.

    A sample's id is `TASK/IMAGE/NUMBER`, the number being 1 or 2. The group is the image; the
    attribute `image` names it in its task.
    """

    card: ClassVar[Card] = CARD

    def found(self) -> Found:
        """See `Benchmark.found`."""
        place = expanded(self.source)
        if place.exists() and are_results(place):
            raise _results(self.source)
        folders = task_folders(place) if place.is_dir() else []
        if folders:
            asked, form, digest = asked_in(folders), "official files", digest_of(folders)
            root = ImageRoot(None, place, allow_outside=self.options.allow_outside)
            for each in asked:
                root.path(each.image, each.place)
        else:
            source = rows_of(
                TITLE,
                self.source,
                FILES,
                FORMS,
                subset=self.options.subset,
                revision=self.options.revision,
            )
            form, rows = form_of(source, self.source)
            asked, digest = list(rows), source.digest
        return Found(_samples(asked), form, _edition(asked), digest, _notes(asked))


def _samples(asked: Sequence[Asked]) -> Iterator[Sample]:
    times: Counter[str] = Counter()
    groups: dict[str, str] = {}
    for each in asked:
        key, image = f"{each.task}/{each.name}", str(each.image)
        times[key] += 1
        group = groups.get(key) or groups.get(image) or key
        groups[key] = groups[image] = group
        question = each.question.strip()
        own = {} if question.endswith(SUFFIX) else {ENDING: ""}
        yield Sample(
            id=f"{key}/{times[key]}",
            prompt=question.removesuffix(SUFFIX),
            images=(image,),
            label=each.label,
            choices=("yes", "no"),
            group=group,
            task=each.task,
            attributes={"image": key, **own},
        )


def _edition(asked: Sequence[Asked]) -> str:
    images = len({(each.task, each.name) for each in asked})
    tasks = len({each.task for each in asked})
    known = "all of MME" if (len(asked), images) == (_QUESTIONS, _IMAGES) else "not all of MME"
    return f"{len(asked):,} questions on {images:,} images in {tasks} tasks ({known})"


def _notes(asked: Sequence[Asked]) -> tuple[str, ...]:
    told = []
    absent = [task for task in TASKS if task not in {each.task for each in asked}]
    if absent:
        told.append(f"{TITLE}: no questions of {', '.join(absent)}: totals are not known")
    times = Counter((each.task, each.name) for each in asked)
    odd = sum(count != 2 for count in times.values())
    if odd:
        told.append(f"{TITLE}: {odd} of {len(times)} images have not two questions")
    other = sum(not each.question.strip().endswith(SUFFIX) for each in asked)
    if other:
        told.append(f"{TITLE}: {other} of {len(asked)} questions do not end in {SUFFIX!r}")
    return tuple(told)


def _results(source: str) -> DataError:
    return DataError(
        f"{source!r} holds answers of a model (image, question, answer, prediction), not MME.",
        subject=source,
        hint="Give the folder with the tasks' folders: existence/, count/, ...",
    )
