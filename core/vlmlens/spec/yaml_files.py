"""Parsing YAML of unknown origin: without tags, keys once, up to a largest size."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

_LARGEST_FILE = 16_000_000
_LARGEST_KEPT = 16_000
NO_YAML = (yaml.YAMLError, ValueError, AttributeError)
"""What PyYAML raises: for `!!timestamp x` it trips over None."""


def parsed_file(path: Path) -> Any:
    """What a run file holds.

    Raises:
        OSError: It cannot be read.
        RecursionError: It is nested deeply.
        yaml.YAMLError, ValueError, AttributeError: It is no YAML; see `NO_YAML`.
    """
    text = _text_of(path)
    return deepcopy(_parsed(text)) if len(text) <= _LARGEST_KEPT else _parsed.__wrapped__(text)


@lru_cache(maxsize=32)
def _parsed(text: str) -> Any:
    """What a text holds. Those of runs are read again and again, and parsing takes 2 ms."""
    return yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 - a safe loader


def _text_of(path: Path) -> str:
    """The text of a run file, which may also come through a pipe."""
    with path.open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise ValueError(f"it has more than {_LARGEST_FILE:,} bytes")
    return content.decode()


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, where YAML's last one would win silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: list[Any] = []
        for key, _ in node.value:
            name = getattr(key, "value", None)
            if name in seen and name != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {name!r} occurs twice", key.start_mark
                )
            seen.append(name)
        return super().construct_mapping(node, deep=deep)
