"""JSON documents as rows: arrays, objects around an array, COCO's files, conversations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlmlens_plugins.data._usual_names import USUAL, plain

Cells = dict[str, Any]

_ASKED = ("human", "user")
_ANSWERED = ("gpt", "assistant", "model", "bot")
_PLACEHOLDER = "<image>"
_IMAGES = (*USUAL["image"], *USUAL["images"])
_NAMES = frozenset(name for names in USUAL.values() for name in names)


class NoRowsError(ValueError):
    """A document holds no rows, in words for the user."""


def rows_in(document: Any, wanted: str | None) -> tuple[list[Cells], list[str]]:
    """The rows of a document, and what to tell about them.

    Args:
        document: What `json.loads` gives.
        wanted: The name of the list that holds the rows, if the document is an object.

    Raises:
        NoRowsError: It holds none, or it is not clear which list holds them.
    """
    if isinstance(document, list):
        return _objects(document), []
    if not isinstance(document, dict):
        raise NoRowsError(f"expected a list of objects, got {type(document).__name__}")
    lists = [name for name, value in document.items() if _is_list_of_objects(value)]
    if wanted is not None:
        if wanted not in lists:
            raise NoRowsError(f"no list of objects is called {wanted!r}; there are {lists}")
        return _objects(document[wanted]), []
    if {"images", "annotations"} <= set(lists):
        return _coco(document)
    if len(lists) > 1:
        raise NoRowsError(
            f"there are several lists of objects, {', '.join(map(repr, lists))}: say which holds "
            "the rows with --set options.dataset.rows=NAME"
        )
    if lists:
        return _objects(document[lists[0]]), [f"the rows are those of {lists[0]!r}"]
    return _of_mapping(document), []


def conversed(rows: Iterable[Cells]) -> tuple[list[Cells], int]:
    """Rows in which the first question and answer of a conversation are prompt and label.

    Returns:
        The rows, and how many of them go on after the first answer.
    """
    found = [_asked_first(cells) for cells in rows]
    return [cells for cells, _ in found], sum(more for _, more in found)


def _objects(items: Sequence[Any]) -> list[Cells]:
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise NoRowsError(f"item {number}: expected an object {{...}}, got {str(item)[:40]!r}")
    return list(items)


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, dict) for x in value)


def _of_mapping(document: Mapping[str, Any]) -> list[Cells]:
    """Rows of columns (of lists, or of objects by row), of rows by id, or a single row."""
    values = list(document.values())
    columns = any(plain(name) in _NAMES for name in document)
    if columns and values and all(isinstance(value, list) for value in values):
        if len({len(value) for value in values}) > 1:
            raise NoRowsError("its columns have different lengths")
        return [dict(zip(document, cells, strict=True)) for cells in zip(*values, strict=True)]
    if values and all(isinstance(value, dict) for value in values):
        if not columns:
            return [{"id": key, **value} for key, value in document.items()]
        keys = dict.fromkeys(key for value in values for key in value)
        return [{name: value.get(key) for name, value in document.items()} for key in keys]
    if columns:
        return [dict(document)]
    raise NoRowsError("expected a list of objects, one per sample")


def _coco(document: Mapping[str, Any]) -> tuple[list[Cells], list[str]]:
    """One row per image of a COCO file: its kinds of objects, and its first caption."""
    try:
        kinds = {each["id"]: str(each["name"]) for each in document.get("categories") or ()}
        seen: dict[Any, dict[str, None]] = defaultdict(dict)
        captions: dict[Any, str] = {}
        for each in document["annotations"]:
            if "category_id" in each:
                seen[each["image_id"]][kinds[each["category_id"]]] = None
            if "caption" in each:
                captions.setdefault(each["image_id"], str(each["caption"]))
        single = all(len(seen[each["id"]]) == 1 for each in document["images"])
        rows = []
        for each in document["images"]:
            found = list(seen[each["id"]])
            row: Cells = {"id": each["id"], "image": each["file_name"]}
            row |= {"label": found[0]} if single else {}
            row |= {"categories": found} if kinds else {}
            row |= {"caption": captions[each["id"]]} if each["id"] in captions else {}
            rows.append(row)
    except (KeyError, TypeError) as error:
        raise NoRowsError(f"it looks like COCO's, but {error} is missing or wrong") from error
    label = "the label is its only kind of objects" if single else "without labels"
    return rows, [f"one sample per image of COCO's format, {label}; boxes and outlines are unused"]


def _asked_first(cells: Cells) -> tuple[Cells, bool]:
    name = next((key for key in ("conversations", "messages", "conversation") if key in cells), "")
    turns: Any = cells.get(name)
    if not _is_list_of_objects(turns):
        return cells, False
    asked = [turn for turn in turns if _role(turn) in _ASKED]
    answered = [turn for turn in turns if _role(turn) in _ANSWERED]
    row = {key: value for key, value in cells.items() if key != name}
    if asked:
        text, images = _said(asked[0])
        row.setdefault("prompt", _without_placeholders(text))
        if images and not any(plain(key) in _IMAGES for key in row):
            row["images"] = images
    if answered:
        row.setdefault("label", _said(answered[0])[0])
    return row, len(asked) > 1


def _role(turn: Mapping[str, Any]) -> str:
    return str(turn.get("from", turn.get("role", ""))).lower()


def _said(turn: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The text and the images of a turn, whose content is text or a list of parts."""
    content = turn.get("value", turn.get("content"))
    if not isinstance(content, list):
        return "" if content is None else str(content), []
    texts, images = [], []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("text") is not None:
            texts.append(str(part["text"]))
        elif isinstance(part, dict):
            images += [_image_of(part)] if _image_of(part) else []
    return "\n".join(texts), images


def _image_of(part: Mapping[str, Any]) -> Any:
    found = part.get("image") or part.get("image_url") or part.get("path") or part.get("url")
    return found.get("url") if isinstance(found, dict) and "url" in found else found


def _without_placeholders(text: str) -> str:
    """A question without the marks of images before and after it; within it they stay."""
    text = text.strip()
    while text.startswith(_PLACEHOLDER):
        text = text.removeprefix(_PLACEHOLDER).lstrip()
    while text.endswith(_PLACEHOLDER):
        text = text.removesuffix(_PLACEHOLDER).rstrip()
    return text
