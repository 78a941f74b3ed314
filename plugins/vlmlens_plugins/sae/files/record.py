"""What vlmlens itself keeps in an SAE's file: where it belongs, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vlmlens.errors import DataError
from vlmlens_plugins.sae.about import About

FORMAT = 1


def as_record(about: About) -> dict[str, Any]:
    """JSON-ready data that `from_record` reads.

    Raises:
        DataError: It holds something that JSON cannot.
    """
    found = {
        "format": FORMAT,
        "column": about.column,
        "target": about.target,
        "model": dict(about.model),
        "trained": dict(about.trained),
        "scales": {name: list(pair) for name, pair in about.scales.items()},
        "source": about.source,
        "notes": list(about.notes),
    }
    try:
        plain: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"What the SAE is to keep about itself is no JSON: {error}.",
            subject="about",
            hint="Use texts, finite numbers, lists and mappings with texts as keys.",
        ) from error
    return plain


def from_record(record: Mapping[str, Any]) -> About:
    """What `as_record` wrote.

    Raises:
        ValueError: It is something else.
    """
    if record.get("format") != FORMAT:
        raise ValueError(f"it is of format {record.get('format')!r}, known is {FORMAT}")
    texts = {name: _of(record, name, str) for name in ("column", "target", "source")}
    mappings = {name: _of(record, name, dict) for name in ("model", "trained")}
    given = {name: _scale(pair) for name, pair in _of(record, "scales", dict).items()}
    order = [name for name in texts["column"].split(" + ") if name in given]
    scales = {name: given[name] for name in (*order, *given)}  # JSON is sorted by name
    notes = tuple(map(str, _of(record, "notes", list)))
    return About(**texts, **mappings, scales=scales, notes=notes)


def _of(record: Mapping[str, Any], name: str, kind: type) -> Any:
    value = record.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"its {name} is a {type(value).__name__}, not a {kind.__name__}")
    return value


def _scale(pair: Any) -> tuple[int, float]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise ValueError("its scales are no pairs of a width and a number")
    width, scale = pair
    if not isinstance(width, int) or not isinstance(scale, int | float):
        raise ValueError("its scales are no pairs of a width and a number")
    return width, float(scale)
