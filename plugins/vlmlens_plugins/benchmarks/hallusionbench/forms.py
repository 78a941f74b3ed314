"""The rows of HallusionBench in each of its forms, as one kind of record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from vlmlens_plugins.benchmarks.forms import HeldImages, missing, text_in, wrong_form
from vlmlens_plugins.benchmarks.sources import Source
from vlmlens_plugins.data._embedded import Stored
from vlmlens_plugins.data._table_files import Row

TITLE: Final = "HallusionBench"
FILES: Final = ("HallusionBench.json", "HallusionBench.tsv")
_KEYS = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id")
_OFFICIAL = (*_KEYS, "question", "gt_answer")
_TSV = ("index", "question", "answer", "category", "l2-category", "image")
FORMS: Final = {
    "official file": "HallusionBench.json with " + ", ".join(_OFFICIAL),
    "hub columns": "the same, and image",
    "VLMEvalKit table": "HallusionBench.tsv with " + ", ".join(_TSV),
}
_PARTS = 6
_SEEN = {"0": "none", "1": "original", "2": "edited"}


class Asked(NamedTuple):
    """One question, as every form has it.

    Args:
        category: VD (the figure is needed) or VS (it supplements what is known).
        subcategory: Such as "illusion".
        seen: Which figure is shown: none, original or edited; "" where a form does not say it.
        set: The set's number.
        figure: The figure's number in its set.
        number: The question's number in its set.
        question: The question.
        label: yes or no.
        image: An image cell; None: there is none.
        details: The right answer as a sentence.
        place: Where it stands, for messages.
    """

    category: str
    subcategory: str
    seen: str
    set: str
    figure: str
    number: str
    question: str
    label: str
    image: object
    details: str
    place: str


def form_of(source: Source, given: str) -> tuple[str, Iterator[Asked]]:
    """Which form a source has, and its questions.

    Raises:
        DataError: None of them.
        ManifestError: A row is broken (while the questions are taken).
    """
    if source.has(*_OFFICIAL):
        form = "hub columns" if "image" in source.columns else "official file"
        return form, (_official(row, source) for row in source.rows)
    if source.has(*_TSV):
        held, tells = HeldImages(source), _tells_edits(source)
        return "VLMEvalKit table", (_of_table(row, source, held, tells) for row in source.rows)
    raise wrong_form(TITLE, given, source.columns, FORMS)


def _official(row: Row, source: Source) -> Asked:
    keys = {name: text_in(row, name, source) for name in _KEYS}
    if keys["category"] not in ("VD", "VS"):
        raise missing(row, "category", "VD or VS", source)
    if keys["visual_input"] not in _SEEN:
        raise missing(row, "visual_input", "0, 1 or 2", source)
    image = row.cells.get("image") or row.cells.get("filename")
    shown = keys["visual_input"] != "0"
    if shown and not image:
        raise missing(row, "image" if "image" in source.columns else "filename", "a file", source)
    details = row.cells.get("gt_answer_details")
    return Asked(
        category=keys["category"],
        subcategory=keys["subcategory"],
        seen=_SEEN[keys["visual_input"]],
        set=keys["set_id"],
        figure=keys["figure_id"],
        number=keys["question_id"],
        question=text_in(row, "question", source),
        label=_label(row, "gt_answer", {"1": "yes", "0": "no"}, source),
        image=image if shown else None,
        details=details if isinstance(details, str) else "",
        place=f"{source.name}, {row.place}",
    )


def _tells_edits(source: Source) -> bool:
    """Whether the third part of every index can be `visual_input`.

    It can if it says original (1) for figure 0 and edited (2) for others, and for figures from 2 on
    in VS; figure 1 of VS may be either.
    """
    parts = [str(row.cells.get("index")).split("_") for row in source.rows]
    return all(len(each) >= _PARTS and _may_tell(each[0], each[2], each[4]) for each in parts)


def _may_tell(category: str, seen: str, figure: str) -> bool:
    if category == "VD":
        return seen == ("1" if figure == "0" else "2")
    return seen in ("1", "2") if figure == "1" else seen == "2"


def _of_table(row: Row, source: Source, held: HeldImages, tells: bool) -> Asked:
    parts = text_in(row, "index", source).split("_")
    if len(parts) < _PARTS:
        raise missing(row, "index", "VD_illusion_1_0_0_0 or alike (six parts between _)", source)
    category = text_in(row, "category", source)
    second = text_in(row, "l2-category", source)
    return Asked(
        category=category,
        subcategory=second.removeprefix(f"{category}_"),
        seen=_SEEN[parts[2]] if tells else "",
        set=parts[3],
        figure=parts[4],
        number=parts[5],
        question=text_in(row, "question", source),
        label=_label(row, "answer", {"yes": "yes", "no": "no"}, source),
        image=_shown(row, source, held),
        details="",
        place=f"{source.name}, {row.place}",
    )


def _shown(row: Row, source: Source, held: HeldImages) -> object:
    cell = held.cell(row)
    if not isinstance(cell, Stored):
        raise missing(row, "image", "base64, or the index of a row that has it,", source)
    return cell


def _label(row: Row, column: str, meant: Mapping[str, str], source: Source) -> str:
    found = meant.get(text_in(row, column, source).strip().lower())
    if found is None:
        raise missing(row, column, " or ".join(meant), source)
    return found
