"""What a table's cell means: text, lists, attributes. Every function raises `CellError`."""

from __future__ import annotations

import ast
import datetime
import decimal
import json
import math
import os
from typing import TYPE_CHECKING, Any

from vlmlens.samples import Attribute
from vlmlens_plugins.data._embedded import Stored, stored, taken_out

if TYPE_CHECKING:
    from PIL.Image import Image


_LONGEST_PATH = 4_096
_MOST_BRACKETS = 1_000


class CellError(ValueError):
    """A cell holds a value of the wrong kind; the reader adds file and line."""


def text(value: Any) -> str | None:
    """A name or label: text, or a number written the short way; None where the cell is empty.

    >>> text(3.0), text(0.5), text(True), text(" red "), text("")
    ('3', '0.5', 'true', 'red', None)
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return _number(value)
    if value is None or isinstance(value, str | int):
        return None if value is None else str(value).strip() or None
    raise CellError(f"expected text or a number, got {_kind(value)}")


def prompt(value: Any) -> str:
    """A prompt, unchanged."""
    if not isinstance(value, str):
        raise CellError(f"expected text, got {_kind(value)}")
    if not value.strip():
        raise CellError("it is empty")
    return value


def choices(value: Any) -> tuple[str, ...]:
    """Answers: a list (or JSON or Python text of one), a mapping of letters, or `red|blue`.

    >>> choices("red | blue"), choices("[1, 2]"), choices("['a', 'b']"), choices({"A": 1, "B": 2})
    (('red', 'blue'), ('1', '2'), ('a', 'b'), ('1', '2'))
    """
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        value = _listed(value) if value.lstrip()[:1] in ("[", "(", "{") else _parted(value)
    if isinstance(value, dict):
        value = list(value.values())
    if value == []:
        return ()
    if not isinstance(value, list):
        raise CellError(f"expected a list or texts parted by '|', got {_kind(value)}")
    answers = [text(item) for item in value]
    filled = tuple(answer for answer in answers if answer is not None)
    if len(filled) < len(answers) or len(set(filled)) < len(filled) or len(filled) < 2:
        raise CellError(f"expected two or more different answers, got {answers}")
    return filled


def images(value: Any, *, several: bool) -> tuple[str | Image, ...]:
    """Images as paths or Pillow's: one or a list; of several, text is a list in JSON or Python."""
    value = taken_out(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    if isinstance(value, str) and (several or _is_bracketed(value)):
        value = taken_out(_listed(value))
        if not isinstance(value, list):
            raise CellError(f"expected a JSON list, got {_short(value)}")
    items = value if isinstance(value, list | tuple) else [value]
    lost = [i for i, item in enumerate(items, start=1) if item is None or item == ""]
    if lost and len(lost) < len(items):
        raise CellError(f"image {lost[0]} of {len(items)} is missing")
    return () if lost else tuple(_image(item) for item in items)


def items_of(value: str) -> list[Any]:
    """The items of a list that is written as JSON or as Python.

    >>> items_of("['a', 'b']"), items_of('["a"]')
    (['a', 'b'], ['a'])
    """
    found = _listed(value)
    if not isinstance(found, list):
        raise CellError(f"expected a list, got {_short(value)}")
    return found


def items_in(value: Any) -> list[Any]:
    """The items of a list that is written in a cell, as tables of text do; none of other cells.

    >>> items_in('["a.png", "b.png"]'), items_in("a.png"), items_in("[1]x]")
    (['a.png', 'b.png'], [], [])
    """
    if not isinstance(value, str) or not _is_bracketed(value):
        return []
    try:
        return items_of(value)
    except CellError:
        return []


def video(value: Any) -> str | tuple[str | Image, ...] | None:
    """A video: the path of its file, or its frames in order, as `images` reads them."""
    value = taken_out(value)
    if isinstance(value, bytes) and value:
        return stored(value)
    if isinstance(value, list | tuple) or (isinstance(value, str) and _is_bracketed(value)):
        return images(value, several=True) or None
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return value if isinstance(value, Stored) else _path(value, "video")


def frames(value: Any) -> tuple[str | Image, ...]:
    """The frames of a video in order."""
    return images(value, several=True)


def rate(value: Any) -> float | None:
    """Frames per second; None where the cell is empty."""
    try:
        found = None if value is None or value == "" else float(value)
    except (TypeError, ValueError) as error:
        raise CellError(f"expected frames per second, got {_kind(value)}") from error
    if found is not None and not 0 < found < math.inf:
        raise CellError(f"expected frames per second, got {found}")
    return found


def attribute(value: Any) -> Attribute:
    """Anything else: text, numbers and truth values as they are, lists and mappings as JSON."""
    if isinstance(value, float):
        if math.isinf(value):
            raise CellError("expected a finite number")
        return None if math.isnan(value) else value
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise CellError(f"{_kind(value)} cannot be an attribute; drop the column") from error


def _image(value: Any) -> str | Image:
    from PIL import Image as PILImage

    if isinstance(value, PILImage.Image | Stored):
        return value
    return _path(value, "image")


def _path(value: Any, what: str) -> str:
    """A path of an image or a video."""
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise CellError(f"expected a path, got {_kind(value)}")
    if "://" in value:
        raise CellError(f"{value[:100]!r} is an address; download the {what} first")
    if len(value) > _LONGEST_PATH:
        raise CellError(
            f"{len(value)} characters ({value[:20]!r}...) are no path, and no {what} in base64"
        )
    return value.strip()


def _number(value: float) -> str | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        raise CellError("expected a finite number")
    return str(int(value)) if value.is_integer() else repr(value)


def _is_bracketed(value: str) -> bool:
    text = value.strip()
    return text.startswith("[") and text.endswith("]")


def _listed(value: str) -> Any:
    """A list, or a mapping, that is written as JSON or as Python."""
    try:
        items = json.loads(value)
    except (ValueError, RecursionError):
        items = _python(value)
    if isinstance(items, tuple | list):
        return list(items)
    if isinstance(items, dict):
        return items
    raise CellError(f"expected a JSON list, got {_short(value)}")


def _python(value: str) -> Any:
    """A literal of Python. Deep nesting could end the interpreter, so that it is not tried."""
    if sum(value.count(bracket) for bracket in "[({") > _MOST_BRACKETS:
        return None
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _parted(value: str) -> list[str]:
    """Answers in one text: between `|`, else one per line."""
    lines = value.strip().splitlines()
    return lines if "|" not in value and len(lines) > 1 else value.split("|")


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    return f"{type(value).__name__} {_short(value)}"


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
