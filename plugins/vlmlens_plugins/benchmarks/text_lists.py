"""Lists of texts that samples carry in an attribute, as JSON."""

from __future__ import annotations

import json
from typing import Any


def texts_of(value: str) -> list[str] | None:
    """The texts of a JSON list; None where the value is no list of texts.

    >>> texts_of('["dog", "cup"]'), texts_of("dog"), texts_of("[1]")
    (['dog', 'cup'], None, None)
    """
    try:
        found: Any = json.loads(value)
    except (ValueError, RecursionError):
        return None
    is_list = isinstance(found, list) and all(isinstance(one, str) for one in found)
    return found if is_list else None
