"""The dataset `amber`: captions, and questions of existence, attributes and relations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from vlmlens._files import expanded
from vlmlens.abc import Options
from vlmlens.errors import DataError, DataNotFound, ManifestError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import Benchmark, BenchmarkOptions, Found
from vlmlens_plugins.benchmarks.amber.captions import HALLU, TRUTH
from vlmlens_plugins.benchmarks.amber.card import CARD
from vlmlens_plugins.benchmarks.amber.lists import LISTS, keyed
from vlmlens_plugins.benchmarks.amber.metrics import CAPTION
from vlmlens_plugins.benchmarks.sources import ImageRoot, Source, digest, file_source, source_of
from vlmlens_plugins.data._embedded import Stored
from vlmlens_plugins.data._paths import existing
from vlmlens_plugins.data._table_files import Row

ANNOTATIONS = "annotations.json"
QUESTION = "Describe this image."
_TASKS = {
    "generative": CAPTION,
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "attribute/state",
    "discriminative-attribute-number": "attribute/number",
    "discriminative-attribute-action": "attribute/action",
    "discriminative-relation": "relation",
    "relation": "relation",
}
_TYPES = ("type", "task_type", "category")
_QUESTIONS = ("query", "question", "text")
_IDS = ("id", "question_id", "index")
_FORMS = (
    "AMBER is read from the authors' folder data/ (annotations.json, query/, relation.json, "
    "safe_words.txt) or one file of query/; from VLMEvalKit's AMBER.tsv (index, question, answer, "
    "category, image); and from rows with image, truth, hallu and task_type."
)
Part = Literal["all", "generative", "discriminative", "existence", "attribute", "relation"]


class AmberOptions(BenchmarkOptions):
    """Options of AMBER."""

    part: Part = Field("all", description="Captions only, questions only, or one dimension.")
    lists: str | None = Field(
        None,
        description="Folder with relation.json and safe_words.txt; default: beside annotations.json.",
    )


class Amber(Benchmark):
    """Captions and questions. `type` is the authors' name of what is asked."""

    Options: ClassVar[type[Options]] = AmberOptions
    options: AmberOptions
    card = CARD

    def found(self) -> Found:
        """See `Benchmark.found`."""
        place = expanded(self.source)
        data = _data_folder(place)
        if data is not None:
            return self._official(place, data)
        if place.is_dir() and not _is_hub_folder(place):
            names = ", ".join(sorted(path.name for path in place.iterdir())[:8]) or "nothing"
            raise DataNotFound(
                f"{self.source!r} has {names}, and not {ANNOTATIONS}.",
                subject=self.source,
                hint=_FORMS,
            )
        source = source_of(self.source, self.options.subset, self.options.revision)
        return self._of_rows(source)

    # --- the authors' files ---

    def _official(self, place: Path, data: Path) -> Found:
        annotations = _annotations(data / ANNOTATIONS)
        queries = list(_queries(place, data))
        folder = self._pictures(data)
        lost = [row for row in queries if _number(row) not in annotations]
        if lost:
            raise ManifestError(
                f"{len(lost)} questions of {self.source!r} have no annotation with their id, for "
                f"example {lost[0].cells.get('id')!r} ({lost[0].place}).",
                subject=self.source,
                hint="Questions and annotations must be of the same release.",
            )
        joined = [{**row.cells, **annotations[_number(row)], "id": _number(row)} for row in queries]
        return self._made(
            [Row(row.number, row.place, cells) for row, cells in zip(queries, joined, strict=True)],
            ImageRoot(str(folder), folder, allow_outside=self.options.allow_outside),
            form="official files",
            name=self.source,
            digest_=digest(data / ANNOTATIONS),
            lists=data,
        )

    def _pictures(self, data: Path) -> Path:
        if self.options.images:
            return existing(self.options.images)
        places = [base / name for base in (data, data.parent) for name in ("image", "images")]
        return next((place for place in places if place.is_dir()), data)

    # --- rows ---

    def _of_rows(self, source: Source) -> Found:
        named = _column(source.columns, _TYPES)
        table = source.has("index", "question", "answer", "category", "image")
        rows = source.has("image", "truth") and (named is not None or source.has("hallu"))
        if not table and not rows:
            raise DataError(
                f"{source.name} has the columns {', '.join(source.columns)}, which are none of "
                "AMBER's.",
                subject=source.name,
                hint=_FORMS,
            )
        held = _held(source) if table else {}
        kept = [
            Row(row.number, row.place, _usual(row.cells, held, source.has("image_path")))
            for row in source.rows
        ]
        folder = expanded(self.source).parent
        root = ImageRoot(self.options.images, folder, allow_outside=self.options.allow_outside)
        return self._made(
            kept,
            root,
            form="VLMEvalKit table" if table else "hub columns",
            name=source.name,
            digest_=source.digest,
            lists=folder,
        )

    def _made(
        self,
        rows: Sequence[Row],
        root: ImageRoot,
        *,
        form: str,
        name: str,
        digest_: str,
        lists: Path,
    ) -> Found:
        tasks = [_task(row, name) for row in rows]
        kept = [
            (row, task)
            for row, task in zip(rows, tasks, strict=True)
            if _wanted(task, self.options.part)
        ]
        key = ""
        if any(task == CAPTION for _, task in kept):
            key = keyed(existing(self.options.lists) if self.options.lists else lists.absolute())
        count = Counter(task for _, task in kept)
        said = ", ".join(f"{number:,} {task}" for task, number in count.items())
        whole = len(kept) == 15_220
        notes = (
            []
            if whole or self.options.part != "all"
            else [
                f"AMBER has 15,220 items; there are {len(kept):,}: the score needs captions and questions"
            ]
        )
        return Found(
            samples=(_sample(row, task, root, key, name) for row, task in kept),
            form=form,
            edition=f"{len(kept):,} items: {said}",
            digest=digest_,
            notes=tuple(notes),
        )


def _data_folder(place: Path) -> Path | None:
    """The folder with the annotations: the one given, its data/, or that of a file in query/."""
    bases = [place, place / "data"] if place.is_dir() else [place.parent, place.parent.parent]
    found = next((base for base in bases if (base / ANNOTATIONS).is_file()), None)
    return found if place.is_dir() or place.suffix == ".json" else None


def _is_hub_folder(place: Path) -> bool:
    saved = any((place / name).is_file() for name in ("state.json", "dataset_dict.json"))
    return saved or next(place.rglob("*.parquet"), None) is not None


def _queries(place: Path, data: Path) -> Iterator[Row]:
    """The questions: of the file given, else all of them."""
    if place.is_file() and place.name != ANNOTATIONS:
        files = [place]
    else:
        folder = data / "query"
        whole = folder / "query_all.json"
        parts = [folder / f"query_{part}.json" for part in ("generative", "discriminative")]
        files = [whole] if whole.is_file() else [part for part in parts if part.is_file()]
    if not files:
        raise DataNotFound(
            f"{str(data)!r} has {ANNOTATIONS}, but no query/query_all.json.",
            subject=str(data),
            hint=_FORMS,
        )
    for file in files:
        source = file_source(file)
        if not source.has("id", "image", "query"):
            raise DataError(
                f"{file} has the columns {', '.join(source.columns)}, where id, image and query "
                "are expected.",
                subject=str(file),
                hint=_FORMS,
            )
        yield from source.rows


def _annotations(path: Path) -> Mapping[int, Mapping[str, Any]]:
    source = file_source(path)
    if not source.has("id", "type", "truth"):
        raise DataError(
            f"{path} has the columns {', '.join(source.columns)}, where id, type and truth are "
            "expected.",
            subject=str(path),
            hint=_FORMS,
        )
    return {_number(row): row.cells for row in source.rows}


def _number(row: Row) -> int:
    try:
        return int(row.cells["id"])
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(
            f"{row.place}: the id is {row.cells.get('id')!r}, where a number is expected.",
            subject=row.place,
            hint=_FORMS,
        ) from error


def _held(source: Source) -> dict[str, Any]:
    """The images of VLMEvalKit's rows, for rows that name another's index."""
    return {
        str(row.cells["index"]): row.cells["image"]
        for row in source.rows
        if isinstance(row.cells["image"], Stored)
    }


def _usual(cells: Mapping[str, Any], held: Mapping[str, Any], paths: bool) -> dict[str, Any]:
    """The cells by the names that the authors' files have."""
    image = cells["image"]
    if held and not isinstance(image, Stored):
        image = held.get(str(image), image)
    name = str(cells["image_path"]) if paths and cells["image_path"] else None
    return {
        "id": cells.get(_column(cells, _IDS) or ""),
        "type": cells.get(_column(cells, _TYPES) or "", CAPTION),
        "query": cells.get(_column(cells, _QUESTIONS) or ""),
        "truth": cells.get("truth", cells.get("answer")),
        "hallu": cells.get("hallu"),
        "image": image,
        "picture": name,
    }


def _column(columns: Any, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _task(row: Row, name: str) -> str:
    task = _TASKS.get(str(row.cells.get("type")))
    if task is None:
        raise ManifestError(
            f"{name}, {row.place}: the type is {row.cells.get('type')!r}.",
            subject=f"{name}, {row.place}",
            hint=f"AMBER has {', '.join(_TASKS)}.",
        )
    return task


def _wanted(task: str, part: Part) -> bool:
    if part == "discriminative":
        return task != CAPTION
    return part == "all" or task.partition("/")[0] == part


def _sample(row: Row, task: str, root: ImageRoot, key: str, name: str) -> Sample:
    where = f"{name}, {row.place}"
    cells = row.cells
    image = root.path(cells.get("image"), where)
    about: dict[str, str] = {"type": str(cells.get("type", CAPTION))}
    label = None
    if task == CAPTION:
        about |= {LISTS: key}
        about |= {each: json.dumps(_words(cells.get(each), each, where)) for each in (TRUTH, HALLU)}
    else:
        label = _answer(cells.get("truth"), where)
    return Sample(
        id=str(cells["id"] if cells.get("id") is not None else row.number),
        prompt=str(cells.get("query") or QUESTION),
        images=(image,),
        label=label,
        choices=() if label is None else ("yes", "no"),
        group=str(cells.get("picture") or image),
        task=task,
        attributes=about,
    )


def _words(value: Any, column: str, where: str) -> list[str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    raise ManifestError(
        f"{where}: {column} of a caption is {str(value)[:60]!r}, where a list of words is expected.",
        subject=where,
        hint=_FORMS,
    )


def _answer(value: Any, where: str) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    said = str(value).strip().lower()
    if said not in ("yes", "no"):
        raise ManifestError(
            f"{where}: the answer is {str(value)[:60]!r}, where yes or no is expected.",
            subject=where,
            hint=_FORMS,
        )
    return said
