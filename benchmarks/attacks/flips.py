"""Damaged stores: does `verify` find the damage, and do reads ever give other numbers?

Each backend's store is damaged in one place at a time: one flipped bit in what is not a value
(200), one in a value (200), a chunk less, chunks swapped, ids reversed, another type, an emptied
file. Bits of the whole file (200) may lie in free space, so they only have to be found where reads
would be wrong. Reads use `check=true` where a backend has it. The backend `memory` has nothing on a
disk.
Seeded; about two minutes.

    python -m benchmarks.attacks.flips
    python -m benchmarks.attacks.flips --flips 50 --only zarr
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from vlmlens.abc import ColumnBlock, Values
from vlmlens.errors import StoreError
from vlmlens.registry import Registry
from vlmlens.samples import Sample
from vlmlens.stores.opening import open_named
from vlmlens.transfer import Origin, check_all

Damage = Callable[[Path], None]
BACKENDS = ("lmdb", "zarr", "sqlite")
ZARR_BYTES = (30 * 32 * 4, 60 * 16 * 2, 10 * 8 * 4)
"""Of each column that `make` writes."""


@dataclass
class Count:
    """What happened to one kind of damage."""

    tried: int = 0
    verified: int = 0
    refused: int = 0
    right: int = 0
    wrong: int = 0


def make(backend: str, place: Path) -> None:
    """A store of three writes, a column added later, samples and a record."""
    numbers = np.random.default_rng(0)
    with open_named(Registry.default(), backend, str(place), mode="a") as store:
        store.set_meta({"fingerprint": {"torch": "2"}, "note": "as written"})
        for write in range(3):
            ids = tuple(f"sample-{write}-{row}" for row in range(10))
            last = numbers.standard_normal((10, 32)).astype("<f4")
            rows = numbers.standard_normal((20, 16)).astype("<f2")
            store.write(
                ColumnBlock(
                    ids,
                    {
                        "llm.block.1/last": Values(last, "float32"),
                        "vision/all": Values(rows, "float16", (1, 2, 3, 2, 2, 2, 2, 2, 3, 1)),
                    },
                )
            )
            store.describe(
                [Sample(one, "What?", label="yes") for one in ids], model="m", adapter="a"
            )
        later = numbers.standard_normal((10, 8)).astype("<f4")
        store.write(ColumnBlock(ids, {"later": Values(later, "float32")}))


def content(backend: str, place: Path) -> Any:
    """Everything that reads give."""
    options = {"check": True} if backend == "lmdb" else {}
    with open_named(Registry.default(), backend, str(place), mode="r", options=options) as store:
        columns = [
            (info, store.ids(info.name), store.read(info.name).array.tobytes(),
             store.read(info.name).lengths)
            for info in store.columns()
        ]  # fmt: skip
        return columns, store.get_meta(), [sample.to_dict() for sample in store.samples()]


def found_by_verify(backend: str, place: Path) -> bool:
    """Whether `vlmlens verify` would end with code 2."""
    try:
        with open_named(Registry.default(), backend, str(place), mode="r") as store:
            return bool(check_all(Origin(store, None)).damaged)
    except StoreError:
        return True


# ---------------------------------------------------------------------- damage


def flipped(data: bytes, dice: random.Random) -> bytes:
    """The bytes with one other bit."""
    at = dice.randrange(8 * len(data))
    changed = bytearray(data)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def lmdb_flip(place: Path, dice: random.Random, *, values: bool) -> None:
    """Flip a bit of a record, or of a value."""
    with lmdb.open(str(place), map_size=1 << 26) as env, env.begin(write=True) as txn:
        keys = [bytes(key) for key, value in txn.cursor() if value and values == (key[:1] == b"v")]
        key = dice.choice(keys)
        txn.put(key, flipped(bytes(txn.get(key) or b""), dice))


def zarr_flip(place: Path, dice: random.Random, *, values: bool) -> None:
    """Flip a bit of a JSON file, or of the rows in a Zarr chunk, which is longer than they are."""
    if values:
        number = dice.randrange(len(ZARR_BYTES))
        path, used = place / f"columns/{number}/c/0/0", ZARR_BYTES[number]
    else:
        path = dice.choice(sorted(place.rglob("*.json")))
        used = path.stat().st_size
    data = path.read_bytes()
    path.write_bytes(flipped(data[:used], dice) + data[used:])


def sqlite_flip(place: Path, dice: random.Random, *, values: bool) -> None:
    """Flip a bit of a cell: of a number, of a text, or of a blob."""
    with connected(place) as db:
        names = [
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        while True:
            table = "tensors" if values else dice.choice(names)
            cells = db.execute(f"SELECT * FROM {table}")
            columns = [column[0] for column in cells.description]
            row = dice.choice(cells.fetchall())
            name = "tensor" if values else dice.choice([c for c in columns if (table, c) !=
                                                        ("tensors", "tensor")])  # fmt: skip
            cell = row[columns.index(name)]
            if cell is None or cell == "":
                continue
            where = " AND ".join(f"{column} IS ?" for column in columns)
            try:
                db.execute(
                    f"UPDATE {table} SET {name} = ? WHERE {where}", (other(cell, dice), *row)
                )
            except sqlite3.IntegrityError:
                continue
            return


def file_flip(path: Path, dice: random.Random) -> None:
    """Flip a bit anywhere in a file."""
    path.write_bytes(flipped(path.read_bytes(), dice))


def other(cell: Any, dice: random.Random) -> Any:
    """A cell with one other bit."""
    if isinstance(cell, int):
        return cell ^ (1 << dice.randrange(16))
    if isinstance(cell, bytes):
        return flipped(cell, dice)
    while True:
        try:
            return flipped(cell.encode(), dice).decode()
        except UnicodeDecodeError:
            continue


@contextmanager
def connected(place: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a store's database, committed and closed at the end."""
    db = sqlite3.connect(place / "tensors.db")
    yield db
    db.commit()
    db.close()


def edited(place: Path, key: bytes, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a record of an LMDB store as a program would."""
    with lmdb.open(str(place), map_size=1 << 26) as env, env.begin(write=True) as txn:
        record = json.loads(txn.get(key) or b"{}")
        change(record)
        txn.put(key, json.dumps(record).encode())


def deleted(place: Path, key: bytes) -> None:
    """Delete a key of an LMDB store."""
    with lmdb.open(str(place), map_size=1 << 26) as env, env.begin(write=True) as txn:
        txn.delete(key)


def swapped(place: Path, one: bytes, two: bytes) -> None:
    """Swap two values of an LMDB store."""
    with lmdb.open(str(place), map_size=1 << 26) as env, env.begin(write=True) as txn:
        first, second = txn.get(one) or b"", txn.get(two) or b""
        txn.put(one, second)
        txn.put(two, first)


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file as a program would."""
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def statement(place: Path, *sql: str) -> None:
    """Change a database as a program would."""
    with connected(place) as db:
        for each in sql:
            db.execute(each)


def renamed(place: Path, one: str, two: str) -> None:
    """Swap two files."""
    (place / one).rename(place / "swap")
    (place / two).rename(place / one)
    (place / "swap").rename(place / two)


def chunk(number: int) -> bytes:
    """Key of a chunk's header."""
    return b"h" + number.to_bytes(4, "big")


HALVES = {"dtype": "float16", "width": 64}
SHARED: dict[str, dict[str, list[Damage]]] = {
    "lmdb": {
        "chunk less": [lambda p, n=n: deleted(p, chunk(n)) for n in range(4)],
        "values less": [lambda p, n=n: deleted(p, b"v" + bytes(7) + bytes([n])) for n in range(3)],
        "column less": [lambda p, n=n: deleted(p, b"c" + bytes(3) + bytes([n])) for n in range(3)],
        "chunks swapped": [lambda p: swapped(p, chunk(0), chunk(1))],
        "ids reversed": [
            lambda p, n=n: edited(p, chunk(n), lambda r: r["ids"].reverse()) for n in range(4)
        ],
        "other type": [lambda p: edited(p, b"c" + bytes(4), lambda r: r.update(HALVES))],
        "record or seal less": [lambda p: deleted(p, b"meta"), lambda p: deleted(p, b"seal")],
        "emptied file": [lambda p: (p / "data.mdb").write_bytes(b"") and None],
    },
    "zarr": {
        "chunk less": [lambda p, n=n: (p / f"commits/{n:08d}.json").unlink() for n in range(4)],
        "values less": [lambda p, n=n: shutil.rmtree(p / f"columns/{n}/c") for n in range(3)],
        "column less": [lambda p, n=n: shutil.rmtree(p / f"columns/{n}") for n in range(3)],
        "chunks swapped": [
            lambda p: renamed(p, "commits/00000000.json", "commits/00000001.json"),
            lambda p: renamed(p, "commits/00000001.json", "commits/00000002.json"),
        ],
        "ids reversed": [
            lambda p, n=n: rewritten(
                p / f"commits/{n:08d}.json", lambda r: r["chunks"][0]["ids"].reverse()
            )
            for n in range(4)
        ],
        "other type": [
            lambda p: rewritten(
                p / "commits/00000000.json", lambda r: r["columns"][0].update(HALVES)
            ),
            lambda p: rewritten(p / "columns/0/zarr.json", lambda r: r.update(data_type="int32")),
        ],
        "record or seal less": [lambda p: (p / "meta.json").unlink()],
        "emptied file": [
            lambda p, name=name: (p / name).write_bytes(b"") and None
            for name in (
                "zarr.json",
                "meta.json",
                "seal.json",
                "commits/00000003.json",
                "columns/1/zarr.json",
            )
        ],
    },
    "sqlite": {
        "chunk less": [
            lambda p: statement(p, "DELETE FROM vlmlens_values WHERE sample > 20"),
            lambda p: statement(p, "DELETE FROM vlmlens_values WHERE tensor = 5"),
            lambda p: statement(p, "DELETE FROM vlmlens_samples WHERE number = 30"),
        ],
        "values less": [
            lambda p: statement(p, "DELETE FROM tensors WHERE id = 1"),
            lambda p: statement(p, "UPDATE tensors SET tensor = x''"),
        ],
        "column less": [
            lambda p, n=n: statement(p, f"DELETE FROM vlmlens_columns WHERE number = {n}")
            for n in range(3)
        ],
        "chunks swapped": [
            lambda p: statement(p, "UPDATE vlmlens_values SET tensor = 1000 - tensor"),
        ],
        "ids reversed": [
            lambda p: statement(p, "UPDATE vlmlens_samples SET number = 1000 - number"),
            lambda p: statement(
                p,
                "UPDATE vlmlens_values SET sample = 1000 - sample",
                "UPDATE vlmlens_values SET sample = sample - 969",
            ),
        ],
        "other type": [
            lambda p: statement(
                p, "UPDATE vlmlens_columns SET dtype = 'float16', width = 64 WHERE number = 0"
            )
        ],
        "record or seal less": [
            lambda p: statement(p, "DELETE FROM vlmlens_record"),
            lambda p: statement(p, "DELETE FROM vlmlens_seal"),
            lambda p: statement(p, "DROP TABLE vlmlens_seal"),
        ],
        "emptied file": [lambda p: (p / "tensors.db").write_bytes(b"") and None],
    },
}
ANYWHERE = "bit of the file"
FILE = {"lmdb": "data.mdb", "sqlite": "tensors.db"}
FLIP = {"lmdb": lmdb_flip, "zarr": zarr_flip, "sqlite": sqlite_flip}


def attacks(backend: str, flips: int, dice: random.Random) -> Iterator[tuple[str, Damage]]:
    """The kinds of damage, one place at a time."""
    for what, values in (("bit of a record", False), ("bit of a value", True)):
        for _ in range(flips):
            yield what, lambda place, values=values: FLIP[backend](place, dice, values=values)
    if backend in FILE:
        for _ in range(flips):
            yield ANYWHERE, lambda place: file_flip(place / FILE[backend], dice)
    for name, damages in SHARED[backend].items():
        for damage in damages:
            yield name, damage


def run(backend: str, flips: int, seed: int, folder: Path) -> dict[str, Count]:
    """Damage copies of a store, and count what happens."""
    whole, place = folder / f"{backend}-whole", folder / f"{backend}-damaged"
    make(backend, whole)
    truth = content(backend, whole)
    if found_by_verify(backend, whole):
        raise SystemExit(f"verify says that a sound {backend} store is damaged")
    counts: dict[str, Count] = {}
    for name, damage in attacks(backend, flips, random.Random(seed)):
        shutil.copytree(whole, place)
        damage(place)
        count = counts.setdefault(name, Count())
        count.tried += 1
        count.verified += found_by_verify(backend, place)
        try:
            same = content(backend, place) == truth
        except StoreError:
            count.refused += 1
        else:
            count.right += same
            count.wrong += not same
        shutil.rmtree(place)
    return counts


def main() -> int:
    """Run, print, and say whether all damage was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=BACKENDS)
    args = parser.parse_args()
    print(
        f"{'store':8}{'damage':22}{'tried':>6}{'verify':>8}{'refused':>9}{'right':>7}{'wrong':>7}"
    )
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for backend in args.only or BACKENDS:
            for name, count in run(backend, args.flips, args.seed, Path(folder)).items():
                missed = count.tried - count.verified
                good = good and not count.wrong and (name == ANYWHERE or not missed)
                print(f"{backend:8}{name:22}{count.tried:>6}{count.verified:>8}{count.refused:>9}"
                      f"{count.right:>7}{count.wrong:>7}", flush=True)  # fmt: skip
    print("all damage is found" if good else "NOT all damage is found")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
