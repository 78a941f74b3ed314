"""Names of sites for tab completion: those of a checkpoint if known, else the usual ones.

Finding out which sites a model has means reading its configuration, which takes torch. Commands
that do so anyway (`vlmlens sites`, composing a run) save the names in the cache folder, and
completion reads them from there.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from vlmlens._files import cache_folder, write_json

USUAL = (
    "vision.embed",
    "vision.block.*",
    "vision.norm",
    "projector",
    "llm.embed",
    "llm.block.*",
    "llm.block.*.attn",
    "llm.block.*.attn.heads",
    "llm.block.*.attn_out",
    "llm.block.*.mlp",
    "llm.block.*.mlp_out",
    "llm.norm",
    "llm.head",
)
"""Sites of most families, whatever their depth."""

SELECTORS = (
    "last", "first", "all", "image", "text", "question", "mean", "max", "image.mean", "text.mean",
    "question.mean", "steps", "answer",
)  # fmt: skip
"""The selectors that completion offers after a `/`."""

_log = logging.getLogger("vlmlens")


def remember(adapter: str, model: str | None, names: Sequence[str]) -> None:
    """Save the canonical names of a checkpoint's sites. Does nothing if the cache is read-only.

    Args:
        adapter: The adapter's name, without its distribution.
        model: The checkpoint as the user named it; None: the adapter's default.
        names: In forward order.
    """
    path = _file(adapter, model)
    if _read(path) == list(names):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"adapter": adapter, "model": model, "sites": list(names)})
    except OSError as error:
        _log.debug("The names of sites could not be saved: %s", error)


def offered(adapter: str, model: str | None, typed: str) -> list[str]:
    """Sites that begin with what is typed, or columns if a `/` is already typed.

    >>> offered("no-such-adapter", None, "llm.n")
    ['llm.norm']
    >>> offered("no-such-adapter", None, "llm.norm/la")
    ['llm.norm/last']
    """
    site, slash, selector = typed.partition("/")
    if slash:
        return [f"{site}/{each}" for each in SELECTORS if each.startswith(selector)]
    known = _read(_file(adapter, model))
    numbered = [name for name in USUAL if "*" in name] if known else []
    names = dict.fromkeys([*(known or USUAL), *numbered])
    return [name for name in names if name.startswith(typed)]


def _file(adapter: str, model: str | None) -> Path:
    name = adapter.strip().lower().replace("-", "_")
    key = hashlib.sha256(json.dumps([name, model]).encode()).hexdigest()[:24]
    return cache_folder() / "sites" / f"{key}.json"


def _read(path: Path) -> list[str]:
    """The names in a file; empty if it is missing or damaged."""
    try:
        names = json.loads(path.read_bytes())["sites"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
