"""SAEs of files that are asked for again and again."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from vlmlens._files import expanded
from vlmlens_plugins.sae.files.opening import open_sae
from vlmlens_plugins.sae.sae import Sae


def open_kept(path: str | Path) -> Sae:
    """An SAE as of `open_sae`. The last four stay in memory, until a file of theirs changes."""
    found = expanded(path)
    return _opened(str(path), found.absolute(), _state(found))


@lru_cache(maxsize=4)
def _opened(named: str, path: Path, state: tuple[tuple[str, int, int], ...]) -> Sae:
    del path, state
    return open_sae(named)


def _state(path: Path) -> tuple[tuple[str, int, int], ...]:
    """What changes when a file of the SAE does; empty if there is none."""
    try:
        path.stat()
        folder = path if path.is_dir() else path.parent
        stats = [(each.name, each.stat()) for each in sorted(folder.iterdir()) if each.is_file()]
    except (OSError, ValueError):  # ValueError: a path with a null byte
        return ()
    return tuple((name, one.st_size, one.st_mtime_ns) for name, one in stats)
