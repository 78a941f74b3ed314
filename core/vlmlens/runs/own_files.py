"""Which files in a run's folder are vlmlens's own, so that nothing else is removed or replaced.

Files at the top of the folder have fixed names, and a new run refuses a folder that has one of
them. In `columns`, `results` and `plugins`, users may keep files too: there, run.json lists what
vlmlens made, as `made`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from vlmlens._files import is_temporary
from vlmlens.errors import RunError, RunExists
from vlmlens.runs.leases import remove_leases
from vlmlens.runs.records import read_record

_UNITS = ("units.sqlite", "units.sqlite-wal", "units.sqlite-shm", "units.damaged.sqlite")
FILES = ("spec.yaml", "samples.jsonl", "skipped.jsonl", "generated.jsonl", *_UNITS, "report.html")
_LISTED = ("columns", "results", "plugins")
TUNED = "tuned"
"""What `vlmlens tune` makes: a tuned folder, or several with a name each."""
OWN = ("run.json", "run.lock", *FILES, *_LISTED, "images", "shards", "leases", TUNED)
"""All names at the top of a run's folder that vlmlens uses."""

_IMAGE = re.compile(r"[0-9a-f]{64}\.png")
_SHARD = re.compile(r"\d+-of-\d+")
_OF_SHARD = ("run.json", "run.lock", "worker.log")


def check_free(folder: Path, allowed: Collection[str] = ()) -> None:
    """Refuse a folder for a new run if the run would replace or mix with files of the user.

    Args:
        folder: The folder.
        allowed: Names that may be there.

    Raises:
        RunExists: It would. The error names the files.
    """
    taken = [name for name in FILES if (folder / name).exists()]
    taken += [name for name in ("columns", "shards", "leases", TUNED) if _entries(folder / name)]
    if taken := [name for name in taken if name not in allowed]:
        raise RunExists(
            f"{str(folder)!r} holds no run, but {', '.join(taken)}, which a run would write.",
            subject=str(folder),
            hint="Give --out another folder, or move these files away.",
        )


def remove_own(folder: Path, info: Mapping[str, Any], but: Collection[str] = ()) -> None:
    """Remove what vlmlens made in a run's folder, except run.json and run.lock.

    Args:
        folder: The run's folder.
        info: The content of run.json.
        but: Names at the top of the folder to leave.
    """
    made = made_in(folder, info)
    for name in FILES:
        if name not in but:
            (folder / name).unlink(missing_ok=True)
    for name in _LISTED:
        if name not in but:
            _remove_listed(folder, name, made)
    if "shards" not in but:
        remove_shards(folder)
    if "leases" not in but:
        remove_leases(folder)
    if TUNED not in but:
        _remove_tuned(folder / TUNED)
    if "images" not in but:
        for path in _entries(folder / "images"):
            if _IMAGE.fullmatch(path.name):
                path.unlink()
        _remove_if_empty(folder / "images")


def _remove_tuned(folder: Path) -> None:
    """Remove what was tuned: folders with a `tuned.json`, and in them the files of its kinds."""
    for each in (*_entries(folder), folder):
        if not each.is_symlink() and (each / "tuned.json").is_file():
            for name in ("adapter_config.json", "tuned.json"):
                (each / name).unlink(missing_ok=True)
            for path in each.glob("*.safetensors"):
                path.unlink()
            _remove_if_empty(each)
    _remove_if_empty(folder)


def remove_shards(folder: Path) -> None:
    """Remove the shards of the run in a folder."""
    for path in _entries(folder / "shards"):
        if not _SHARD.fullmatch(path.name):
            continue
        if (path / "run.json").is_file():
            remove_own(path, _info_of(path))
        for name in _OF_SHARD:
            (path / name).unlink(missing_ok=True)
        _remove_if_empty(path)
    _remove_if_empty(folder / "shards")


def made_in(folder: Path, info: Mapping[str, Any]) -> set[str]:
    """What vlmlens made in the folders that users may use too.

    Args:
        folder: The run's folder.
        info: The content of run.json. If it has no list (it is damaged, or older than the list),
            the whole store counts, and results, which are recognized by their content.
    """
    if "made" in info:
        return {*map(str, info["made"]), *_results(folder)}
    columns = {name for name in contents(folder) if name.startswith("columns/")}
    return {*columns, *_results(folder), "results/", "plugins/"}


def check_removable(folder: Path, info: Mapping[str, Any]) -> None:
    """Refuse to start over if it is not known which files belong to the store.

    Raises:
        RunError: The run was killed, and files in its folder of columns are not in its list.
    """
    if info.get("was", info.get("state")) != "running":
        return
    made = made_in(folder, info)
    names = [path.name for path in _entries(folder / "columns")]
    unknown = [name for name in names if f"columns/{name}" not in made and not is_temporary(name)]
    if unknown:
        raise RunError(
            f"The run {str(folder)!r} was killed, and it is not known whether vlmlens made "
            f"{', '.join(unknown[:5])} in its folder columns.",
            subject=str(folder),
            hint="Remove that folder or move it away, or give --out another folder.",
        )


def _info_of(folder: Path) -> dict[str, Any]:
    try:
        return read_record(folder / "run.json")
    except RunError:
        return {}


def contents(folder: Path) -> set[str]:
    """What is in the folders that users may use too: `results/`, `results/probe.json`, ..."""
    found = set()
    for name in _LISTED:
        if (folder / name).is_dir():
            entries = _entries(folder / name)
            found.add(f"{name}/")
            found |= {f"{name}/{path.name}" for path in entries if not is_temporary(path.name)}
    return found


def _results(folder: Path) -> set[str]:
    """Results that a killed command may not have listed, with their tables and figures."""
    found = set()
    for path in (folder / "results").glob("*.json"):
        if _is_result(path):
            found |= {
                f"results/{other.name}"
                for pattern in (path.name, f"{path.stem}.*.parquet", f"{path.stem}.*.svg")
                for other in path.parent.glob(pattern)
            }
    return found


def _is_result(path: Path) -> bool:
    try:
        content: Any = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"analysis", "findings"} <= content.keys()


def _remove_listed(folder: Path, name: str, made: Iterable[str]) -> None:
    for entry in made:
        path = folder / entry
        if path.parent == folder / name and path.name != "..":
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    if f"{name}/" in made:
        _remove_if_empty(folder / name)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
