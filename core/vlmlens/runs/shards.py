"""Shards: what the processes of a run of an older version wrote, each a run of its own."""

from __future__ import annotations

from pathlib import Path

from vlmlens.errors import RunError

FOLDER = "shards"


def shard_folders(run: Path) -> list[Path]:
    """The shards in a run's folder, in order.

    Raises:
        RunError: They belong to different numbers of parts.
    """
    found = [path.parent for path in (run / FOLDER).glob("*-of-*/run.json")]
    counts = {path.name.rpartition("-")[2] for path in found}
    if len(counts) > 1:
        raise RunError(
            f"{str(run)!r} holds shards of {' and of '.join(sorted(counts))}.",
            subject=str(run),
            hint=f"Remove from {FOLDER}/ those that do not belong to this run.",
        )
    return sorted(found, key=lambda path: int(path.name.partition("-")[0]))
