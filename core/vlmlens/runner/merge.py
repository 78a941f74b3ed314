"""Merging what several processes wrote into the run's own store. It is never needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from vlmlens._disk import disk_errors
from vlmlens._files import write_text
from vlmlens.abc.storage import ColumnBlock
from vlmlens.errors import RunError
from vlmlens.runs.generated_texts import FILE, GeneratedTexts, text_lines
from vlmlens.runs.leases import lease_plans, remove_leases
from vlmlens.runs.lock import changing
from vlmlens.runs.own_files import made_in, remove_shards
from vlmlens.runs.run import Run
from vlmlens.runs.shards import FOLDER as SHARDS
from vlmlens.runs.shards import shard_folders
from vlmlens.stores.sharded import ShardedStore
from vlmlens.transfer import stored_parts

if TYPE_CHECKING:
    from vlmlens.abc.storage import ColumnInfo, ColumnStore

_OF_SHARDS = ("model", "columns", "without_rows", "compiled")


def merge(run: Run, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Copy what several processes wrote into the run's own store, and remove the parts.

    Whenever it is killed, no sample is lost: parts and store are read together until the parts are
    removed, and another start of it copies only what the store lacks.

    Args:
        run: A run whose parts are all finished.
        progress: Called with (samples done, total samples), counted per column.

    Returns:
        The number of parts; 0 if the run has none.

    Raises:
        RunError: A part is not finished.
        FingerprintMismatch: The parts were made under different conditions.
        StoreLocked: Another process works on the run.
    """
    with disk_errors(), changing(run.path):
        if run.merged and (run.path / SHARDS).exists():  # of an older version that was killed
            remove_shards(run.path)
        folders = shard_folders(run.path)
        shards = [Run(folder, registry=run.registry, trust=run.trust) for folder in folders]
        _check_finished(run, shards)
        count, parts = len(folders) + _finished(run), run.stores.parts()
        with ExitStack() as held:
            for folder in folders:
                held.enter_context(changing(folder))
            if parts:
                _copy(run, parts, progress)
                _keep_texts(run, shards)
                run.update(state="finished", **_told(shards), made=sorted(_made(run)))
                for leases in lease_plans(run.path):
                    leases.mark_merged()
            clear_merged(run)
            remove_shards(run.path)
        return count


def _copy(run: Run, parts: Sequence[ColumnStore], progress: Callable[[int, int], None]) -> None:
    with ShardedStore(parts) as whole, run.stores.own("a") as own:
        whole.check_alike()
        columns, done = whole.columns(), 0
        total = sum(info.samples for info in columns)
        known = {info.name for info in own.columns()}
        for info in columns:
            have = set(own.ids(info.name)) if info.name in known else set()
            for block in _blocks(whole, info, have):
                own.write(block)
                done += len(block.ids)
                progress(done + len(have), total)
        fingerprint = whole.get_meta().get("fingerprint")
        own.set_meta({**own.get_meta(), "fingerprint": fingerprint})


def _blocks(whole: ColumnStore, info: ColumnInfo, have: set[str]) -> Iterator[ColumnBlock]:
    """What the run's own store lacks of a column."""
    for ids, values in stored_parts(whole, info):
        lacking = [place for place, sample in enumerate(ids) if sample not in have]
        if lacking:
            some = values if len(lacking) == len(ids) else values.take(lacking)
            yield ColumnBlock(tuple(ids[place] for place in lacking), {info.name: some})


def clear_merged(run: Run) -> None:
    """Remove parts whose rows are in the run's own store."""
    for leases in lease_plans(run.path, merged=True):
        for name in leases.names:
            for attempt in leases.attempts(name):
                run.stores.remove_lease(leases.folder.name, name, attempt)
    if not lease_plans(run.path):
        remove_leases(run.path)


def _made(run: Run) -> set[str]:
    """What vlmlens made in the run's folder: the store too, which a merge makes as a whole."""
    columns = {f"columns/{path.name}" for path in (run.path / "columns").iterdir()}
    return {*made_in(run.path, run.info), "columns/", *columns}


def _check_finished(run: Run, shards: Sequence[Run]) -> None:
    """Check that nothing is missing: merging removes the parts.

    Raises:
        RunError: A part is not finished.
    """
    lacking = [shard.path.name for shard in shards if shard.info.get("state") != "finished"]
    if shards:
        count = int(shards[0].path.name.rpartition("-")[2])
        there = {shard.path.name for shard in shards}
        lacking += [f"{i}-of-{count}" for i in range(count) if f"{i}-of-{count}" not in there]
    for leases in lease_plans(run.path):
        lacking += [f"lease {name}" for name in leases.open()]
    if lacking:
        shown = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
        raise RunError(
            f"{len(lacking)} parts of {str(run.path)!r} are missing or not finished: {shown}.",
            subject=lacking[0],
            hint="Go on with the same command and --resume, then merge.",
        )


def _finished(run: Run) -> int:
    """How many leases are finished."""
    return sum(len(leases.done()) for leases in lease_plans(run.path))


def _keep_texts(run: Run, shards: Sequence[Run]) -> None:
    texts: dict[str, dict[str, Any]] = {}
    for place in (*shards, run):
        texts |= GeneratedTexts(place.path).read()
    if texts:
        write_text(
            run.path / FILE, text_lines({"id": name, **text} for name, text in texts.items())
        )


def _told(shards: Sequence[Run]) -> dict[str, Any]:
    """What run.json keeps from the run.json of shards of an older version."""
    if not shards:
        return {}
    infos = [shard.info for shard in shards]
    told = {key: infos[0][key] for key in _OF_SHARDS if key in infos[0]}
    for key in ("shared_beginnings", "shared_images"):
        if any(key in info for info in infos):
            told[key] = sum(info.get(key, 0) for info in infos)
    warnings = (text for info in infos for text in info.get("warnings", ()))
    told["warnings"] = list(dict.fromkeys(warnings))
    told["shards"] = [
        {"shard": shard.path.name, "seconds": info.get("summary", {}).get("seconds", {})}
        for shard, info in zip(shards, infos, strict=True)
    ]
    return told
