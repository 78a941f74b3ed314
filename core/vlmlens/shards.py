"""One run in several processes: each writes a shard of its own, which are read as one store.

A shard is a run by itself in `OUT/shards/K-of-N`, so that it is resumed like any other.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vlmlens.abc import options as base
from vlmlens.abc.storage import Array, ColumnBlock, ColumnInfo, ColumnStore, Mode, Values
from vlmlens.blocks import joined_values
from vlmlens.errors import (
    ColumnNotFound,
    FingerprintMismatch,
    RunError,
    SpecError,
    StoreError,
    did_you_mean,
)

if TYPE_CHECKING:
    from vlmlens.runs import Run

FOLDER = "shards"
_ALIKE = ("model", "columns", "without_rows", "compiled")
_COUNTED = ("shared_beginnings", "shared_images")
_ENVIRONMENTS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))


@dataclass(frozen=True, slots=True)
class Shard:
    """One process's part of a run.

    Args:
        number: Which one, from 0.
        count: Of how many.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `K/N`, or what torchrun or srun put into the environment for `env`.

        Raises:
            SpecError: It is neither, or the environment says nothing.
        """
        if text == "env":
            return cls._of_environment()
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
            raise SpecError(
                f"{text!r} is no shard.", subject=text, hint="Write --shard 0/4 to 3/4, or env."
            )
        return cls(int(number), int(count))

    @classmethod
    def _of_environment(cls) -> Shard:
        for number, count in _ENVIRONMENTS:
            if number in os.environ and count in os.environ:
                return cls.parse(f"{os.environ[number]}/{os.environ[count]}")
        names = ", ".join("/".join(pair) for pair in _ENVIRONMENTS)
        raise SpecError(
            f"The environment says of no shard: {names} are not set.",
            subject="env",
            hint="Start it by torchrun or srun, or write --shard 0/4.",
        )

    def path(self, run: Path) -> Path:
        """Where in a run's folder it is written."""
        return run / FOLDER / f"{self.number}-of-{self.count}"


def shard_folders(run: Path) -> list[Path]:
    """The shards in a run's folder, in order.

    Raises:
        RunError: They are parts of different divisions.
    """
    found = [path.parent for path in (run / FOLDER).glob("*-of-*/run.json")]
    counts = {path.name.rpartition("-")[2] for path in found}
    if len(counts) > 1:
        raise RunError(
            f"{str(run)!r} holds shards of {' and of '.join(sorted(counts))}.",
            subject=str(run),
            hint=f"Remove those in {FOLDER}/ that are not meant.",
        )
    return sorted(found, key=lambda path: int(path.name.partition("-")[0]))


class ShardedStore(ColumnStore):
    """Several stores read as one.

    Args:
        stores: Open for reading; no sample has a column in two of them.
    """

    def __init__(self, stores: Sequence[ColumnStore]) -> None:
        self._stores = list(stores)

    @classmethod
    def open(cls, location: str, *, mode: Mode, options: base.Options) -> Self:
        """Not by a location: a run opens its shards."""
        del mode, options
        raise StoreError(f"{location!r} is no store by itself.", subject=location)

    def write(self, block: ColumnBlock) -> None:
        """Raises `StoreError`: shards are written one by one."""
        del block
        raise StoreError(
            "Shards are not written to together.",
            hint="Put them together with `vlmlens merge RUN`, or extract one with --shard.",
        )

    def columns(self) -> list[ColumnInfo]:
        """See `ColumnStore.columns`; samples are counted over all shards."""
        found: dict[str, ColumnInfo] = {}
        for store in self._stores:
            for info in store.columns():
                before = found.get(info.name)
                samples = info.samples + (before.samples if before else 0)
                found[info.name] = ColumnInfo(
                    info.name, info.dtype, info.width, info.ragged, samples
                )
        return list(found.values())

    def ids(self, column: str) -> list[str]:
        """See `ColumnStore.ids`: shard after shard."""
        return [sample for store in self._having(column) for sample in store.ids(column)]

    def read(self, column: str, ids: Sequence[str] | None = None) -> Values:
        """See `ColumnStore.read`."""
        stores = self._having(column)
        if ids is None:
            return joined_values([store.read(column) for store in stores])
        places = {sample: i for i, store in enumerate(stores) for sample in store.ids(column)}
        missing = next((sample for sample in ids if sample not in places), None)
        if missing is not None:
            raise StoreError(
                f"Sample {missing!r} has no value in column {column!r} of any shard.",
                subject=missing,
                hint="A shard is not finished: run it again with --resume.",
            )
        rows = [[s for s in ids if places[s] == i] for i in range(len(stores))]
        parts = [store.read(column, some) for store, some in zip(stores, rows, strict=True) if some]
        if not parts:
            return stores[0].read(column, [])
        order = {sample: i for i, sample in enumerate(s for some in rows for s in some)}
        return joined_values(parts).take([order[sample] for sample in ids])

    def iterate(self, column: str) -> Iterator[tuple[str, Array]]:
        """See `ColumnStore.iterate`."""
        for store in self._having(column):
            yield from store.iterate(column)

    def get_meta(self) -> dict[str, Any]:
        """See `ColumnStore.get_meta`: the first shard's."""
        return self._stores[0].get_meta()

    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """Raises `StoreError`: shards are written one by one."""
        del meta
        raise StoreError("Shards are not written to together.")

    def close(self) -> None:
        """See `ColumnStore.close`."""
        for store in self._stores:
            store.close()

    def check_alike(self) -> None:
        """Raise where shards were made under different conditions.

        Raises:
            FingerprintMismatch: They were.
        """
        prints = [store.get_meta().get("fingerprint", {}) for store in self._stores]
        for number, found in enumerate(prints):
            differing = sorted(key for key in found if found[key] != prints[0].get(key))
            if differing:
                raise FingerprintMismatch(
                    f"Shard {number} was made under other conditions than shard 0: "
                    f"{', '.join(differing)}.",
                    subject=differing[0],
                    hint="Extract that shard again with --fresh, on the same kind of machine.",
                )

    def _having(self, column: str) -> list[ColumnStore]:
        having = [s for s in self._stores if column in {info.name for info in s.columns()}]
        if not having:
            names = [info.name for info in self.columns()]
            hint = did_you_mean(column, names) or f"Stored: {', '.join(names[:5]) or 'none'}."
            raise ColumnNotFound(
                f"The shards have no column {column!r}.", subject=column, hint=hint
            )
        return having


def merge(run: Run, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Put a run's shards together into the run's own store, and remove them.

    Args:
        run: With shards, each finished.
        progress: Called with samples done and in all, counted per column.

    Returns:
        How many shards there were.

    Raises:
        RunError: It has none, or one is missing or not finished.
        FingerprintMismatch: They were made under different conditions.
    """
    from vlmlens.runs import Run
    from vlmlens.transfer import stored_parts

    folders = shard_folders(run.path)
    parts = [Run(folder, registry=run.registry) for folder in folders]
    _check_whole(run, parts)
    shutil.rmtree(run.path / "columns", ignore_errors=True)
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
    _keep_texts(run, folders)
    run.update(state="finished", **_told(parts))
    shutil.rmtree(run.path / FOLDER)
    return len(folders)


def _told(shards: Sequence[Run]) -> dict[str, Any]:
    """What run.json keeps of what the shards' own say."""
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
    from vlmlens.generated import FILE

    texts = [folder / FILE for folder in folders if (folder / FILE).exists()]
    if texts:
        joined = "".join(path.read_text(encoding="utf-8") for path in texts)
        (run.path / FILE).write_text(joined, encoding="utf-8")
