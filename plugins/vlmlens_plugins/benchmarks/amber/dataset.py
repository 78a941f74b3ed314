"""The dataset `amber`: captions, and questions of existence, attributes and relations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from vlmlens._files import expanded
from vlmlens.abc import Options
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.amber.captions import HALLU, TRUTH
from vlmlens_plugins.benchmarks.amber.card import CARD
from vlmlens_plugins.benchmarks.amber.forms import (
    ANNOTATIONS,
    FORMS,
    TITLE,
    Item,
    data_folder,
    official,
    rows,
)
from vlmlens_plugins.benchmarks.amber.lists import LISTS, keyed
from vlmlens_plugins.benchmarks.amber.metrics import CAPTION
from vlmlens_plugins.benchmarks.benchmark import Benchmark, BenchmarkOptions, Found
from vlmlens_plugins.benchmarks.card import Card
from vlmlens_plugins.benchmarks.forms import rows_of
from vlmlens_plugins.benchmarks.sources import ImageRoot, digest
from vlmlens_plugins.data._paths import existing

_WHOLE = 15_220
Part = Literal["all", "generative", "discriminative", "existence", "attribute", "relation"]


class AmberOptions(BenchmarkOptions):
    """Options of AMBER."""

    part: Part = Field(
        "all",
        description="Which items: all; generative: the captions; discriminative: the questions; "
        "existence, attribute, relation: the questions of one dimension.",
    )
    lists: str | None = Field(
        None,
        description="Folder with relation.json and safe_words.txt, which captions need; default: "
        "beside annotations.json, or beside the table.",
    )


class Amber(Benchmark):
    """AMBER in the authors' files, VLMEvalKit's table or the hub's columns.

    The task is the dimension ("attribute/state"), the group is the picture, `type` is the authors'
    name of what is asked. Captions have `truth` and `hallu`, JSON lists of words.
    """

    Options: ClassVar[type[Options]] = AmberOptions
    options: AmberOptions
    card: ClassVar[Card] = CARD

    def found(self) -> Found:
        """See `Benchmark.found`."""
        place = expanded(self.source)
        data = data_folder(place)
        if data is not None:
            form, items, sha = "official files", official(place, data), digest(data / ANNOTATIONS)
            return self._made(form, items, sha, data, self._pictures(data))
        subset, revision = self.options.subset, self.options.revision
        source = rows_of(TITLE, self.source, (), FORMS, subset=subset, revision=revision)
        form, items = rows(source)
        folder = place.parent.absolute()
        given = self.options.images
        return self._made(form, items, source.digest, folder, existing(given) if given else folder)

    def _made(
        self, form: str, items: Iterable[Item], sha: str, lists: Path, pictures: Path
    ) -> Found:
        kept = [item for item in items if self._wanted(item.task)]
        count = Counter(item.task for item in kept)
        folder = existing(self.options.lists) if self.options.lists else lists.absolute()
        key = keyed(folder) if CAPTION in count else ""
        root = ImageRoot(str(pictures), pictures, allow_outside=self.options.allow_outside)
        said = ", ".join(f"{number:,} {task}" for task, number in count.items())
        return Found(
            samples=(_sample(item, root, key) for item in kept),
            form=form,
            edition=f"{len(kept):,} of {_WHOLE:,} items: {said}",
            digest=sha,
            notes=_notes(count),
        )

    def _wanted(self, task: str) -> bool:
        part = self.options.part
        if part == "discriminative":
            return task != CAPTION
        return part == "all" or task.partition("/")[0] == part

    def _pictures(self, data: Path) -> Path:
        if self.options.images:
            return existing(self.options.images)
        places = [base / name for base in (data, data.parent) for name in ("image", "images")]
        return next((place for place in places if place.is_dir()), data)


def _notes(count: Counter[str]) -> tuple[str, ...]:
    parts = {task.partition("/")[0] for task in count}
    if {CAPTION, "existence", "attribute", "relation"} <= parts:
        return ()
    return ("the score `amber` needs captions and the questions of all dimensions",)


def _sample(item: Item, root: ImageRoot, key: str) -> Sample:
    image = root.path(item.image, item.place)
    about = {"type": item.type}
    if item.task == CAPTION:
        about |= {LISTS: key, TRUTH: _json(item.truth), HALLU: _json(item.hallu)}
    return Sample(
        id=item.id,
        prompt=item.question,
        images=(image,),
        label=item.answer,
        choices=() if item.answer is None else ("yes", "no"),
        group=item.group or str(item.image),
        task=item.task,
        attributes=about,
    )


def _json(words: Sequence[str]) -> str:
    return json.dumps(words, ensure_ascii=False)
