"""Damaged and hostile files for `vlmlens import` and `show`: one clear error, in bounded memory.

Exports of each kind are flipped, cut and overwritten at random, and rebuilt with indexes, headers
and shapes that lie; so are databases of VLM-Lens. Each import
has a minute and 3 GiB of address space. It is good if it gives the very columns, or ends with an
error of vlmlens (exit code 2). Seeded; about three minutes.

    python -m benchmarks.attacks.damaged_imports
    python -m benchmarks.attacks.damaged_imports --random 10
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import random
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from vlmlens.abc import ColumnBlock, Values
from vlmlens.errors import VlmlensError
from vlmlens.registry import Registry
from vlmlens.stores.opening import open_named
from vlmlens.transfer import bring, carry, origin_of

SECONDS, MEMORY = 60, 3 << 30
FORMS = ("npz", "parquet", "safetensors", "safetensors-shards")

Attack = Callable[[Path], None]


@dataclass
class Count:
    """What happened to one kind of attack."""

    tried: int = 0
    refused: int = 0
    right: int = 0
    wrong: int = 0
    crashed: int = 0


def make(place: Path) -> None:
    """A store with plain and ragged columns."""
    numbers = np.random.default_rng(0)
    with open_named(Registry.default(), "lmdb", str(place), mode="a") as store:
        ids = tuple(f"sample-{row}" for row in range(40))
        plain = numbers.standard_normal((40, 24)).astype("<f4")
        half = plain.astype("<f2").view("<u2")
        rows = numbers.standard_normal((80, 8)).astype("<f8")
        columns = {
            "plain": Values(plain, "float32"),
            "half": Values(half, "bfloat16"),
            "rows": Values(rows, "float64", (1, 3) * 20),
        }
        store.write(ColumnBlock(ids, columns))


def content(place: Path) -> Any:
    """Everything that a store holds."""
    with open_named(Registry.default(), "lmdb", str(place), mode="r") as store:
        return {
            info.name: (info, sorted(zip(store.ids(info.name), map(bytes, (
                array.tobytes() for array in store.read(info.name).per_sample())), strict=True)))
            for info in store.columns()
        }  # fmt: skip


@contextmanager
def bounded() -> Iterator[None]:
    """Stop what takes too long or too much memory."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no end after {SECONDS} s")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, before)


# ---------------------------------------------------------------------- attacks


def noise(dice: random.Random) -> Attack:
    """Flip, overwrite, cut or lengthen one file at a random place."""

    def attack(path: Path) -> None:
        file = dice.choice(sorted(path.iterdir())) if path.is_dir() else path
        data = bytearray(file.read_bytes())
        at = dice.randrange(len(data))
        kind = dice.randrange(4)
        if kind == 0:
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            data[at : at + 16] = dice.randbytes(16)
        elif kind == 2:
            del data[at:]
        else:
            data[at:at] = dice.randbytes(7)
        file.write_bytes(data)

    return attack


def npz(**entries: Any) -> Attack:
    """Replace arrays of an npz."""

    def attack(path: Path) -> None:
        with np.load(path) as file:
            held = {name: file[name] for name in file.files}
        np.savez_compressed(path, **{**held, **entries})

    return attack


def npz_index(change: Callable[[dict[str, Any]], object]) -> Attack:
    """Change the index of an npz."""

    def attack(path: Path) -> None:
        with np.load(path) as file:
            record = json.loads(file["index.json"].item())
        change(record)
        npz(**{"index.json": np.array(json.dumps(record).encode())})(path)

    return attack


def tensors(**changed: torch.Tensor) -> Attack:
    """Replace tensors of a safetensors file."""

    def attack(path: Path) -> None:
        save_file({**load_file(path), **changed}, path)

    return attack


def shards(change: Callable[[dict[str, Any], Path], object]) -> Attack:
    """Change the index of a folder of shards."""

    def attack(path: Path) -> None:
        record = json.loads((path / "index.json").read_text())
        change(record, path)
        (path / "index.json").write_text(json.dumps(record))

    return attack


def parquet(change: Callable[[Any], Any]) -> Attack:
    """Change the table of a Parquet file."""

    def attack(path: Path) -> None:
        pq.write_table(change(pq.read_table(path)), path)

    return attack


def header(array: bytes) -> Attack:
    """Put other bytes at the beginning of a file."""

    def attack(path: Path) -> None:
        path.write_bytes(array + path.read_bytes()[len(array) :])

    return attack


def bomb(name: str, size: int) -> Attack:
    """Add an entry to an npz that unpacks to `size` zeros."""

    def attack(path: Path) -> None:
        with (
            zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
            archive.open(name, "w", force_zip64=True) as entry,
        ):
            for _ in range(size >> 24):
                entry.write(bytes(1 << 24))

    return attack


def outside(record: dict[str, Any], path: Path) -> None:
    """Name a shard beside the folder."""
    (name,) = record["shards"]["plain"]
    shutil.copy(path / name, path.parent / "outside.safetensors")
    record["shards"]["plain"] = ["../outside.safetensors"]


LIES: dict[str, dict[str, Attack]] = {
    "npz": {
        "big-endian": npz(plain=np.zeros((40, 24), ">f4")),
        "int32": npz(plain=np.zeros((40, 24), "<i4")),
        "objects": lambda path: np.savez(path, plain=np.array([object()] * 3)),
        "wider": npz(plain=np.zeros((40, 25), "<f4")),
        "longer": npz(plain=np.zeros((41, 24), "<f4")),
        "one axis": npz(plain=np.zeros(960, "<f4")),
        "lengths": npz(**{"rows:lengths": np.full(40, 1 << 60)}),
        "index bomb": bomb("index.json", 3 << 30),
        "array bomb": bomb("plain.npy", 2 << 30),
        "deep index": npz(**{"index.json": np.array(b"[" * 200_000)}),
        "width -1": npz_index(lambda record: record["columns"][0].update(width=-1)),
        "width 1e15": npz_index(lambda record: record["columns"][0].update(width=10**15)),
        "no ids": npz_index(lambda record: record.pop("ids")),
        "twice": npz_index(lambda record: record["columns"].append(record["columns"][0])),
        "pickle": lambda path: path.write_bytes(pickle.dumps({"a": 1})) and None,
    },
    "parquet": {
        "no record": parquet(lambda table: table.replace_schema_metadata({})),
        "column less": parquet(lambda table: table.drop_columns(["plain"])),
        "ids less": parquet(lambda table: table.drop_columns(["sample.id"])),
        "text": parquet(lambda table: table.set_column(
            table.column_names.index("plain"), "plain", table["sample.id"])),
        "rows less": parquet(lambda table: table.slice(0, 7)),
        "rows twice": parquet(lambda table: table.take([0] * 40)),
    },
    "safetensors": {
        "float64": tensors(plain=torch.zeros(40, 24, dtype=torch.float64)),
        "wider": tensors(plain=torch.zeros(40, 25)),
        "other numbers": tensors(plain=torch.zeros(40, 24)),
        "no index": tensors(**{"index.json": torch.zeros(3, dtype=torch.uint8)}),
        "huge header": header((1 << 62).to_bytes(8, "little")),
        "no header": header(bytes(8)),
        "header of depth": header((99_000_000).to_bytes(8, "little") + b"[" * 5000),
    },
    "safetensors-shards": {
        "outside": shards(outside),
        "absolute": shards(lambda record, _: record["shards"].update(plain=["/etc/passwd"])),
        "fifo or device": shards(lambda record, _: record["shards"].update(plain=["/dev/zero"])),
        "width 7": shards(lambda record, _: record["columns"][0].update(width=7)),
        "no shards": shards(lambda record, _: record.pop("shards")),
    },
}  # fmt: skip


def database(path: Path, blob: object, sql: str = "") -> None:
    """A database of VLM-Lens with one blob."""
    path.unlink(missing_ok=True)
    db = sqlite3.connect(path)
    db.execute(sql or "CREATE TABLE tensors (name TEXT, layer TEXT, prompt TEXT, tensor BLOB)")
    if not sql:
        db.execute("INSERT INTO tensors VALUES ('m', 'layer', 'What?', ?)", (blob,))
    db.commit()
    db.close()


def saved(value: object) -> bytes:
    """What `torch.save` makes of a value."""
    sink = io.BytesIO()
    torch.save(value, sink)
    return sink.getvalue()


VIEW = (
    "CREATE VIEW tensors AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT i AS layer, x'00' AS tensor, '' AS prompt, 'm' AS name FROM n"
)
DATABASES: dict[str, Attack] = {
    "broadcast 3e9": lambda path: database(path, saved(torch.zeros(1).expand(1, 3_000_000_000))),
    "strides 0": lambda path: database(
        path, saved(torch.zeros(4).as_strided((100_000, 100_000), (0, 0)))
    ),
    "meta": lambda path: database(path, saved(torch.zeros(4, 4, device="meta"))),
    "pickle": lambda path: database(path, pickle.dumps(slice(1))),
    "pickle in torch": lambda path: database(path, saved(slice(1))),
    "text": lambda path: database(path, "text"),
    "empty": lambda path: database(path, b""),
    "view": lambda path: database(path, None, VIEW),
    "no columns": lambda path: database(path, None, "CREATE TABLE tensors (a)"),
    "no database": lambda path: path.write_bytes(b"hello" * 4000) and None,
}


# ---------------------------------------------------------------------- counting


def tried(count: Count, source: Path, work: Path, truth: Any, what: str) -> None:
    """Import one file, and count what happens."""
    target = work / "back.lmdb"
    count.tried += 1
    try:
        with bounded():
            if source.suffix == ".db":
                with origin_of(Registry.default(), str(source)) as origin:
                    carry(Registry.default(), origin, str(target))
            else:
                bring(Registry.default(), str(source), str(target))
        same = truth is not None and content(target) == truth
        count.right += same
        count.wrong += not same
        if not same:
            print(f"  taken, with other columns: {source.name}, {what}")
    except VlmlensError:
        count.refused += 1
    except Exception as error:  # noqa: BLE001  whatever a command would call a bug
        count.crashed += 1
        print(f"  {source.name}, {what}: {type(error).__name__}: {str(error)[:90]}")
    shutil.rmtree(target, ignore_errors=True)


def files(folder: Path, number: int, dice: random.Random) -> Iterator[tuple[str, Count]]:
    """Attacks on each kind of export."""
    make(folder / "source")
    truth = content(folder / "source")
    with origin_of(Registry.default(), str(folder / "source")) as origin:
        for form in FORMS:
            carry(Registry.default(), origin, str(folder / form / name_of(form)), form)
    for form in FORMS:
        noisy, lying = Count(), Count()
        attacks: list[tuple[Count, str, Attack]] = [
            (noisy, f"noise {i}", noise(dice)) for i in range(number)
        ]
        attacks += [(lying, name, attack) for name, attack in LIES[form].items()]
        for count, what, attack in attacks:
            work = folder / "work"
            work.mkdir()
            source, whole = work / name_of(form), folder / form / name_of(form)
            (shutil.copytree if whole.is_dir() else shutil.copy)(whole, source)
            attack(source)
            expected = None if count is lying and what != "big-endian" else truth
            if what == "big-endian":
                expected = zeroed(truth)
            tried(count, source, work, expected, what)
            shutil.rmtree(work)
        yield f"{form}, noise", noisy
        yield f"{form}, lies", lying


def zeroed(truth: Any) -> Any:
    """What a store holds whose column `plain` is zero."""
    info, rows = truth["plain"]
    return {**truth, "plain": (info, [(name, bytes(len(row))) for name, row in rows])}


def databases(folder: Path) -> Count:
    """Attacks through a database of VLM-Lens."""
    count = Count()
    for what, attack in DATABASES.items():
        work = folder / "work"
        work.mkdir()
        attack(work / "x.db")
        tried(count, work / "x.db", work, None, what)
        shutil.rmtree(work)
    return count


def name_of(form: str) -> str:
    """The file's name."""
    return f"x.{form.partition('-')[0]}"


def main() -> int:
    """Run, print, and say whether all went well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--random", type=int, default=60, help="noisy files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    good = True
    print(f"{'file':32}{'tried':>6}{'refused':>9}{'right':>7}{'wrong':>7}{'crashed':>9}")
    with tempfile.TemporaryDirectory() as name:
        counts = list(files(Path(name), args.random, random.Random(args.seed)))
        counts.append(("VLM-Lens database, lies", databases(Path(name))))
    for what, count in counts:
        good = good and not count.wrong and not count.crashed
        print(f"{what:32}{count.tried:>6}{count.refused:>9}{count.right:>7}{count.wrong:>7}"
              f"{count.crashed:>9}")  # fmt: skip
    print("all files are refused or right" if good else "NOT all files are refused or right")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
