"""The official files of VQA: questions, annotations, complementary pairs. They are large.

Each file is read item by item. What is kept of the annotations is a few bytes per question.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmlens._files import expanded
from vlmlens.errors import DataError, DataNotFound, ManifestError
from vlmlens_plugins.benchmarks.forms import entries, is_hub_folder, wrong_form
from vlmlens_plugins.benchmarks.json_items import first_key, json_items, json_values
from vlmlens_plugins.data._paths import existing

FORMS = {
    "official files": "a JSON object with the list questions, and beside it one with annotations",
    "hub columns": "question_id, question, image_id, answers, answer_type, ...",
}
TITLE = "VQAv2"
OFFICIAL, HUB = FORMS
_QUESTIONS = "*uestions.json"
_WORD = re.compile(r"[A-Za-z0-9-]+")

Asked = tuple[str, str, int, "Annotation | None"]
"""Id, question, number of the image, and what is known of the answers."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """What people answered to one question.

    Args:
        answers: Of ten people, in the order of the file.
        common: The most common of them.
        answer_type: "yes/no", "number" or "other".
        question_type: The first words of the question.
        image: The number of the image that they saw.
    """

    answers: tuple[str, ...]
    common: str
    answer_type: str
    question_type: str
    image: int


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one split.

    Args:
        questions: Path of the questions.
        annotations: Path of the annotations; None: there are none.
        pairs: Path of the complementary pairs; None: there are none.
    """

    questions: Path
    annotations: Path | None
    pairs: Path | None

    @property
    def subtype(self) -> str:
        """Which images: "val2014"; "" where the file does not say it in a plain word."""
        found = json_values(self.questions, "data_subtype").get("data_subtype")
        return found if isinstance(found, str) and _WORD.fullmatch(found) else ""

    @property
    def version(self) -> str:
        """The version that the file gives: "2.0"."""
        info = json_values(self.questions, "info").get("info")
        return str(info.get("version") or "") if isinstance(info, dict) else ""


def files_of(source: str, annotations: str | None, pairs: str | None) -> Files | None:
    """The official files that a source names; None if it is in another form.

    Args:
        source: The questions, or a folder with one file of them.
        annotations: The user's path; None: the file of the usual name beside the questions.
        pairs: Likewise.

    Raises:
        DataError: A folder holds several files of questions, or the file is one of annotations.
    """
    path = expanded(source)
    if path.is_dir():
        path = _only_questions(path, source) or path
    if not path.is_file() or path.suffix.lower() != ".json":
        return None
    key = first_key(path, ("questions", "annotations"))
    if key == "annotations":
        raise DataError(
            f"{source!r} holds annotations, not questions.",
            subject=source,
            hint="Give the file of questions; annotations are found beside it, or named with "
            "--set options.dataset.annotations=FILE.",
        )
    if key is None and expanded(source).is_dir():
        raise wrong_form(TITLE, str(path), ["neither questions nor annotations"], FORMS)
    if key is None:
        return None
    return Files(
        path,
        _beside(path, annotations, "annotations.json"),
        _beside(path, pairs, "complementary_pairs.json"),
    )


def _only_questions(folder: Path, source: str) -> Path | None:
    found = sorted(folder.glob(_QUESTIONS))
    if len(found) > 1:
        raise DataNotFound(
            f"{source!r} has several files of questions: {', '.join(p.name for p in found)}.",
            subject=source,
            hint=f"Choose one: --data vqav2:{found[0]}",
        )
    if not found and not is_hub_folder(folder):
        raise wrong_form(TITLE, source, entries(folder), FORMS)
    return found[0] if found else None


def _beside(questions: Path, given: str | None, end: str) -> Path | None:
    """The user's file, or `v2_mscoco_val2014_END` beside `v2_OpenEnded_mscoco_val2014_questions`.

    Raises:
        DataNotFound: The user's file is not there.
    """
    if given is not None:
        return existing(given)
    stem = questions.name.removesuffix("questions.json")
    for kind in ("OpenEnded_", "MultipleChoice_"):
        stem = stem.replace(kind, "")
    path = questions.with_name(stem + end)
    return path if path.is_file() and path != questions else None


class Questions:
    """The questions with what people answered, in the order of the file.

    Args:
        files: Of one split.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self.left = 0
        """How many annotations no question took, once all were read."""

    def __iter__(self) -> Iterator[Asked]:
        """Read both files.

        Raises:
            DataError: A question has no annotation, or one of another image; an item is malformed.
        """
        path, notes = self._files.questions, self._files.annotations
        known = _annotations(notes) if notes else None
        for number, item in enumerate(json_items(path, "questions"), start=1):
            where = f"{path}, question {number}"
            try:
                name, image = int(item["question_id"]), int(item["image_id"])
                question = _text(item["question"])
            except (KeyError, TypeError, ValueError) as error:
                raise _malformed(where, "question_id, image_id and question", error) from error
            found = _joined(known, name, image, where) if known is not None else None
            yield str(name), question, image, found
        self.left = len(known or ())


def _joined(known: dict[int, bytes], name: int, image: int, where: str) -> Annotation:
    packed = known.pop(name, None)
    if packed is None:
        raise DataError(
            f"{where}: the annotations have none for question {name}, or it is asked twice.",
            subject=str(name),
            hint="Give the annotations of the same split and version.",
        )
    answers, *rest = json.loads(packed)
    found = Annotation(tuple(answers), *rest)
    if found.image != image:
        raise DataError(
            f"{where}: question {name} is about image {image}, its annotation about {found.image}.",
            subject=str(name),
            hint="Give the annotations of the same split and version.",
        )
    return found


def _annotations(path: Path) -> dict[int, bytes]:
    """What is known by question, packed: about 200 bytes each."""
    found: dict[int, bytes] = {}
    for number, item in enumerate(json_items(path, "annotations"), start=1):
        where = f"{path}, annotation {number}"
        try:
            name, row = int(item["question_id"]), annotated(item)
        except (KeyError, TypeError, ValueError) as error:
            raise _malformed(where, "question_id, image_id and answers", error) from error
        if name in found:
            raise DataError(
                f"{where}: question {name} has two annotations.",
                subject=str(name),
                hint="Give the file as its authors publish it.",
            )
        packed = (row.answers, row.common, row.answer_type, row.question_type, row.image)
        found[name] = json.dumps(packed).encode()
    return found


def annotated(item: Mapping[str, Any]) -> Annotation:
    """The annotation in an item of the file, or in a row of the hub.

    Raises:
        KeyError, TypeError, ValueError: Something is missing or of another kind.
    """
    answers = item["answers"] or ()
    return Annotation(
        tuple(_text(each["answer"] if isinstance(each, dict) else each) for each in answers),
        str(item.get("multiple_choice_answer") or ""),
        str(item.get("answer_type") or ""),
        str(item.get("question_type") or ""),
        int(item["image_id"]),
    )


def complements(path: Path) -> dict[str, str]:
    """The complementary pairs by the id of their first question.

    Raises:
        ManifestError: The file is no list of pairs of ids.
    """
    try:
        return {str(int(a)): str(int(b)) for a, b in json_items(path, "pairs")}
    except (TypeError, ValueError) as error:
        raise _malformed(str(path), "pairs of question ids", error) from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no text")
    value.encode()
    return value


def _malformed(where: str, expected: str, error: Exception) -> ManifestError:
    return ManifestError(
        f"{where}: expected {expected} ({type(error).__name__}: {error}).",
        subject=where,
        hint="Give the file as its authors publish it.",
    )
