"""Merging a run's shards into one store."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens._disk import disk_errors
from vlmlens._files import write_text
from vlmlens.abc.storage import ColumnBlock
from vlmlens.errors import (
    RunError,
)
from vlmlens.runs.lock import changing
from vlmlens.runs.own_files import made_in, remove_shards
from vlmlens.runs.run import Run
from vlmlens.runs.shards import FOLDER, shard_folders
from vlmlens.stores.sharded import ShardedStore
from vlmlens.transfer import stored_parts

if TYPE_CHECKING:
    from vlmlens.runs.run import Run


_ALIKE = ("model", "columns", "without_rows", "compiled")


_COUNTED = ("shared_beginnings", "shared_images")


def merge(run: Run, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Merge a run's shards into the run's own store, and remove them.

    Whenever it is killed, no sample is lost: the shards are read until the write of run.json that
    says that they are merged, and the merged store from then on.

    Args:
        run: A run whose shards are all finished.
        progress: Called with (samples done, total samples), counted per column.

    Returns:
        The number of shards.

    Raises:
        RunError: The run has no shards, or one is missing or not finished.
        FingerprintMismatch: The shards were made under different conditions.
        StoreLocked: Another process works on the run, or on a shard.
    """
    with disk_errors(), changing(run.path):
        return merge_held(run, progress)


def merge_held(run: Run, progress: Callable[[int, int], None]) -> int:
    """Like `merge`, for a caller who has the right to change the run."""
    from vlmlens.runs.run import Run

    folders = shard_folders(run.path)
    if run.merged and (run.path / FOLDER).exists():
        remove_shards(run.path)
        return len(run.info["shards"])
    parts = [Run(folder, registry=run.registry, trust=run.trust) for folder in folders]
    _check_whole(run, parts)
    with ExitStack() as held:
        for folder in folders:
            held.enter_context(changing(folder))
        _copy(run, parts, progress)
        _keep_texts(run, folders)
        run.update(state="finished", **_told(parts), made=sorted(_made(run)))
        remove_shards(run.path)
    return len(folders)


def _copy(run: Run, parts: Sequence[Run], progress: Callable[[int, int], None]) -> None:
    """Write the columns of the shards to the run's own store."""
    if (run.path / "columns").exists():  # of a merge that was killed
        shutil.rmtree(run.path / "columns")
    stores = [part.store() for part in parts]
    with ShardedStore(stores) as shards, run.store(mode="a") as whole:
        shards.check_alike()
        columns, done = shards.columns(), 0
        total = sum(info.samples for info in columns)
        for info in columns:
            for ids, values in stored_parts(shards, info):
                whole.write(ColumnBlock(tuple(ids), {info.name: values}))
                done += len(ids)
                progress(done, total)
        whole.set_meta({**whole.get_meta(), "fingerprint": shards.get_meta().get("fingerprint")})


def _made(run: Run) -> set[str]:
    """What vlmlens made in the run's folder: the store too, which a merge makes as a whole."""
    columns = {f"columns/{path.name}" for path in (run.path / "columns").iterdir()}
    return {*made_in(run.path, run.info), "columns/", *columns}


def _told(shards: Sequence[Run]) -> dict[str, Any]:
    """What run.json keeps from the run.json of the shards."""
    infos = [shard.info for shard in shards]
    told = {key: infos[0][key] for key in _ALIKE if key in infos[0]}
    for key in _COUNTED:
        if any(key in info for info in infos):
            told[key] = sum(info.get(key, 0) for info in infos)
    warnings = (text for info in infos for text in info.get("warnings", ()))
    told["warnings"] = list(dict.fromkeys(warnings))
    told["shards"] = [
        {
            "shard": shard.path.name,
            "started": info.get("started"),
            "finished": info.get("finished"),
            "seconds": info["summary"]["seconds"],
        }
        for shard, info in zip(shards, infos, strict=True)
    ]
    return told


def _check_whole(run: Run, shards: Sequence[Run]) -> None:
    if not shards:
        raise RunError(f"{str(run.path)!r} has no shards.", subject=str(run.path))
    count = int(shards[0].path.name.rpartition("-")[2])
    there = {shard.path.name for shard in shards if shard.info.get("state") == "finished"}
    lacking = [f"{i}-of-{count}" for i in range(count) if f"{i}-of-{count}" not in there]
    if lacking:
        raise RunError(
            f"{len(lacking)} of {count} shards are missing or not finished: {', '.join(lacking)}.",
            subject=lacking[0],
            hint="Run them with the same command and --resume.",
        )


def _keep_texts(run: Run, folders: Sequence[Path]) -> None:
    from vlmlens.runs.generated_texts import FILE

    texts = [folder / FILE for folder in folders if (folder / FILE).exists()]
    if texts:
        joined = "".join(path.read_text(encoding="utf-8") for path in texts)
        write_text(run.path / FILE, joined)
