"""CLEVR's layout: `questions/`, `scenes/` and `images/`, each by split; large files of JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from vlmlens.errors import DataError, DataNotFound, ManifestError, did_you_mean
from vlmlens.images import check_plain
from vlmlens_plugins.benchmarks.forms import entries, wrong_form
from vlmlens_plugins.data._paths import existing

TITLE: Final = "CLEVR"
FORMS: Final = {
    "official files": "questions/CLEVR_val_questions.json, images/val/ and, for what is drawn, "
    "scenes/CLEVR_val_scenes.json"
}
_NAME = re.compile(r"CLEVR_(?P<split>.+)_questions\.json")
_USUAL = "val"
_BETWEEN = re.compile(r"[\s,]*")


class Files(NamedTuple):
    """Where the parts of one split are.

    Args:
        split: Its name; "" where the file's name does not say it.
        questions: The file of questions.
        scenes: The file of scenes; None: there is none.
        images: The folder of the pictures.
    """

    split: str
    questions: Path
    scenes: Path | None
    images: Path


def files_of(source: str, split: str | None, scenes: str | None, images: str | None) -> Files:
    """The files of one split.

    Args:
        source: The set's folder, or a file of questions.
        split: Of a folder with several; None: val.
        scenes: The user's file of scenes; None: the one of the layout, if it is there.
        images: The user's folder of pictures; None: that of the layout.

    Raises:
        DataError: There is no such thing.
    """
    place = existing(source)
    questions = _questions_in(source, place, split) if place.is_dir() else place
    match = _NAME.fullmatch(questions.name)
    name = match["split"] if match else ""
    top = questions.parent.parent
    usual = top / "scenes" / f"CLEVR_{name}_scenes.json"
    drawn = existing(scenes) if scenes else usual if name and usual.is_file() else None
    inner = questions.parent.name == "questions" and name
    pictures = top / "images" / name if inner else questions.parent
    return Files(name, questions, drawn, existing(images) if images else pictures)


def items_in(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """The objects of a list in a JSON object, one by one: the file is never parsed as a whole.

    Args:
        path: The file: `{..., "NAME": [{...}, ...], ...}`.
        name: The list's.

    Raises:
        ManifestError: There is no such list, or the file is broken.
    """
    text = _text(path)
    start = re.search(rf'"{name}"\s*:\s*\[', text)
    if start is None:
        raise ManifestError(
            f"{path}: there is no list {name!r}.",
            subject=str(path),
            hint=f"CLEVR's file has {{'info': ..., '{name}': [...]}}.",
        )
    decoder, place = json.JSONDecoder(), start.end()
    number = 0
    while True:
        place = _after(text, place)
        if text[place : place + 1] == "]":
            return
        number += 1
        try:
            item, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise _broken(path, name, number, f"not JSON: {error}") from error
        if not isinstance(item, dict):
            raise _broken(path, name, number, f"expected an object, got {str(item)[:40]!r}")
        yield item


def _after(text: str, place: int) -> int:
    found = _BETWEEN.match(text, place)
    return found.end() if found else place


def _broken(path: Path, name: str, number: int, what: str) -> ManifestError:
    where = f"{path}, item {number} of {name!r}"
    return ManifestError(f"{where}: {what}.", subject=where, hint="Fetch the file again.")


def _questions_in(source: str, folder: Path, split: str | None) -> Path:
    inner = folder / "questions" if (folder / "questions").is_dir() else folder
    found = {
        match["split"]: path
        for path in sorted(inner.glob("CLEVR_*_questions.json"))
        if (match := _NAME.fullmatch(path.name))
    }
    if not found:
        raise wrong_form(TITLE, source, entries(folder), FORMS)
    wanted = split or (_USUAL if _USUAL in found else min(found))
    if wanted not in found:
        raise _no_split(source, wanted, list(found))
    return found[wanted]


def _no_split(source: str, wanted: str, there: Sequence[str]) -> DataNotFound:
    return DataNotFound(
        f"{source!r} has no split {wanted!r}.",
        subject=wanted,
        hint=did_you_mean(wanted, there) or f"There are {', '.join(there)}.",
    )


def _text(path: Path) -> str:
    try:
        check_plain(path)
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        what = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise DataError(
            f"{path} cannot be read: {what}.", subject=str(path), hint="Give CLEVR's JSON file."
        ) from error
