"""What a table's cell means: text, lists, attributes. Every function raises `CellError`."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import os
from typing import TYPE_CHECKING, Any

from vlmlens.samples import Attribute

if TYPE_CHECKING:
    from PIL.Image import Image


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
    """Answers: a list, a JSON list, or text parted by `|`.

    >>> choices("red | blue"), choices("[1, 2]"), choices(None)
    (('red', 'blue'), ('1', '2'), ())
    """
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        value = _json_list(value) if value.lstrip().startswith("[") else value.split("|")
    if not isinstance(value, list):
        raise CellError(f"expected a list or texts parted by '|', got {_kind(value)}")
    answers = [text(item) for item in value]
    filled = tuple(answer for answer in answers if answer is not None)
    if len(filled) < len(answers) or len(set(filled)) < len(filled) or len(filled) < 2:
        raise CellError(f"expected two or more different answers, got {answers}")
    return filled


def images(value: Any, *, several: bool) -> tuple[str | Image, ...]:
    """Images as paths or Pillow's: one or a list; of several, text is a JSON list of paths."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    if several and isinstance(value, str):
        value = _json_list(value)
    return tuple(_image(item) for item in (value if isinstance(value, list | tuple) else [value]))


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
    except (TypeError, ValueError) as error:
        raise CellError(f"{_kind(value)} cannot be an attribute; drop the column") from error


def _image(value: Any) -> str | Image:
    from PIL import Image as PILImage

    if isinstance(value, PILImage.Image):
        return value
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise CellError(f"expected a path, got {_kind(value)}")
    if "://" in value:
        raise CellError(f"{value!r} is an address; download the image first")
    return value.strip()


def _number(value: float) -> str | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        raise CellError("expected a finite number")
    return str(int(value)) if value.is_integer() else repr(value)


def _json_list(value: str) -> list[Any]:
    try:
        items = json.loads(value)
    except (json.JSONDecodeError, RecursionError) as error:
        raise CellError(f"expected a JSON list, got {value!r}") from error
    if not isinstance(items, list):
        raise CellError(f"expected a JSON list, got {value!r}")
    return items


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 60 else shown[:57] + '...'}"
