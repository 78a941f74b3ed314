"""Names by which columns of images, prompts, labels, ... are known in published data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import PurePath
from typing import Any, Literal, get_args

from vlmlens.images import HEIF, SUFFIXES
from vlmlens.video_files import is_video
from vlmlens_plugins.data._embedded import Stored

ColumnName = Literal[
    "id", "image", "images", "video", "frames", "prompt", "label", "choices", "group", "task",
    "pair", "role",
]  # fmt: skip
PAIRED = ("pair", "role")
"""Known columns that say which samples make a pair."""
CLIPS = ("video", "frames")
"""Known columns that hold videos: files, or lists of frames."""
KNOWN: tuple[str, ...] = tuple(n for n in get_args(ColumnName) if n not in (*PAIRED, *CLIPS))
"""The other known columns."""

USUAL: Mapping[str, Sequence[str]] = {
    "id": ("id", "questionid", "sampleid", "uid", "qid", "idx", "index"),
    "image": (
        "image", "img", "picture", "photo", "pic", "imagepath", "imgpath", "picturepath",
        "photopath", "imagefile", "imgfile", "imagefilename", "imgfilename", "imagefilepath",
        "imagename", "imgname", "imagebytes", "imagebase64", "imagedata", "filename", "filepath",
        "file", "path", "base64", "imageurl", "imgurl",
    ),
    "images": (
        "images", "imgs", "pictures", "photos", "imagepaths", "imgpaths", "imagefiles", "imagelist",
        "imagenames", "filenames", "filepaths",
    ),
    "video": (
        "video", "clip", "movie", "videopath", "videofile", "videofilename", "videofilepath",
        "videoname", "clippath", "clipfile", "clipname", "filename", "filepath", "file", "path",
    ),
    "frames": ("frames", "videoframes", "framepaths", "framefiles", "framelist", "video"),
    "prompt": (
        "prompt", "question", "query", "instruction", "problem", "questiontext", "prompttext",
        "userprompt", "userquestion", "instructions", "textquery", "textprompt", "inputtext",
        "text", "input",
    ),
    "label": (
        "label", "answer", "target", "groundtruth", "gt", "gtanswer", "correctanswer", "correct",
        "class", "classname", "classlabel", "multiplechoiceanswer", "answertext", "correctoption",
        "correctchoice", "correctchoiceidx", "correctidx", "answeridx", "answerindex", "gold",
        "goldanswer", "goldlabel", "gtlabel", "truelabel", "trueanswer", "correctlabel",
        "referenceanswer", "solution", "ans", "labels", "answers", "expected", "expectedanswer",
        "category",
    ),
    "choices": (
        "choices", "options", "candidates", "multiplechoices", "answeroptions", "answerchoices",
    ),
    "group": ("group",),
    "task": ("task",),
}  # fmt: skip
"""Usual names of a column, best first, in small letters without signs."""

_VAGUE = ("filename", "filepath", "file", "path", "base64", "filenames", "filepaths")
_PICTURE = ("image", "img", "picture", "photo")
_VIDEO = ("video", "clip", "movie")
_TEXTS = {
    "label": (
        "label",
        "labels",
        "answer",
        "answers",
        "target",
        "groundtruth",
        "caption",
        "response",
        "output",
    ),
    "prompt": ("prompt", "prompts", "question", "questions", "instruction", "query"),
}
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_LETTER = re.compile(r"(?:option|choice|opt)?([a-z])")
_OPTION = re.compile(r"(?:option|choice|opt)(\d{1,2})")
_FEWEST_CHOICES = 2
_NUMBERED = re.compile(r"(?:image|img|picture|photo)(\d+)")
_SHOWN = 12

Fits = Callable[[str, str], bool]
"""Whether a column, the second, can be read as a known one, the first, by what it holds."""


def plain(column: str) -> str:
    """A column's name in small letters, without signs.

    >>> plain("Image_Path"), plain("questionId")
    ('imagepath', 'questionid')
    """
    return "".join(letter for letter in column.casefold() if letter.isalnum())


def guessed(name: str, columns: Iterable[str], fits: Fits) -> str | None:
    """The column that is most likely meant by a known name; None where none is."""
    free: dict[str, str] = {}
    for column in columns:
        free.setdefault(plain(column), column)
    for usual in USUAL[name]:
        if usual in free and fits(name, free[usual]):
            return free[usual]
    return None


def is_vague(column: str) -> bool:
    """Whether a usual name of images, such as `path`, is one of other things, too."""
    return plain(column) in _VAGUE


def numbered(columns: Iterable[str]) -> list[str]:
    """`image_1`, `image_2`, ... in the order of their numbers.

    >>> numbered(["image_10", "id", "image_2"])
    ['image_2', 'image_10']
    """
    found = {column: _NUMBERED.fullmatch(plain(column)) for column in columns}
    numbers = {column: int(match[1]) for column, match in found.items() if match}
    return sorted(numbers, key=lambda column: numbers[column])


def choice_columns(columns: Iterable[str]) -> list[str]:
    """`A`, `B`, ... or `option_a`, ... or `choice1`, ...: the choices, one by one; [] without.

    >>> choice_columns(["B", "A", "id"]), choice_columns(["option_1", "option_2"])
    (['A', 'B'], ['option_1', 'option_2'])
    """
    by_letter: dict[str, str] = {}
    by_number: dict[str, str] = {}
    for column in columns:
        letter, number = _LETTER.fullmatch(plain(column)), _OPTION.fullmatch(plain(column))
        if letter and (column.isupper() or len(column) > 1):
            by_letter.setdefault(letter[1], column)
        if number:
            by_number.setdefault(number[1], column)
    letters = "".join(sorted(by_letter))
    if len(letters) >= _FEWEST_CHOICES and _ALPHABET.startswith(letters):
        return [by_letter[letter] for letter in letters]
    numbers = sorted(by_number, key=int)
    return [by_number[number] for number in numbers] if len(numbers) >= _FEWEST_CHOICES else []


def looks_like(column: str, values: Sequence[Any], *, images_taken: bool) -> str | None:
    """What an unused column is about: "image", "video", "label" or "prompt"; else None.

    Args:
        column: Its name.
        values: Some of its cells that are not empty.
        images_taken: Whether another column holds the images; if not, numbers count as well.
    """
    name = plain(column)
    if are_pictures(values):
        return "image"
    if _begins_or_ends(name, _VIDEO) or are_videos(values):
        return "video"
    numbers = all(isinstance(value, int | float) for value in values)
    if _begins_or_ends(name, _PICTURE) and not (numbers and images_taken):
        return "image"
    usual = next((kind for kind in ("label", "prompt") if name in USUAL[kind]), None)
    return usual or next((kind for kind, ends in _TEXTS.items() if name.endswith(ends)), None)


def are_pictures(values: Sequence[Any]) -> bool:
    """Whether all values are embedded images or names of image files."""
    return bool(values) and all(
        isinstance(value, Stored) or hasattr(value, "getexif") or _end_in([value], _PICTURES)
        for value in values
    )


def are_videos(values: Sequence[Any]) -> bool:
    """Whether all values are names of video files."""
    paths = [isinstance(v, str | PathLike) and is_video(str(v).strip()) for v in values]
    return bool(paths) and all(paths)


_PICTURES = (*SUFFIXES, *HEIF)


def _end_in(values: Sequence[Any], suffixes: Sequence[str]) -> bool:
    return bool(values) and all(
        isinstance(value, str) and PurePath(value.strip()).suffix.lower() in suffixes
        for value in values
    )


def _begins_or_ends(name: str, words: Sequence[str]) -> bool:
    return any(
        name.startswith(word) or name.endswith((word, f"{word}s", f"{word}id")) for word in words
    )


def guess_note(column: str, name: str) -> str:
    """The sentence about a guess."""
    return (
        f"the column {column!r} is read as {name!r} "
        f"(another: --set options.dataset.columns.{name}=NAME)"
    )


def unused_note(unused: Mapping[str, str]) -> str:
    """The sentence about columns that look useful and are not used, by what they look like."""
    shown = [f"{column!r} ({kind})" for column, kind in unused.items()]
    more = len(shown) - _SHOWN
    listed = ", ".join([*shown[:_SHOWN], *([f"and {more} more"] if more > 0 else [])])
    column, kind = next(iter(unused.items()))
    how = f"To use one: --set options.dataset.columns.{kind}={column}."
    return f"not used but kept as attributes, if they are text or numbers: {listed}. {how}"
