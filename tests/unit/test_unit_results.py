"""Results of units in a run's folder: kept, signed, shared by processes, damaged."""

from __future__ import annotations

import os
import sqlite3
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from vlmlens.errors import StoreError, StoreFull
from vlmlens.runs import unit_results as module
from vlmlens.runs.own_files import FILES
from vlmlens.runs.unit_results import ASIDE, FILE, unit_results

KEYS = [os.urandom(16) for _ in range(1200)]


def write(folder: Path, count: int = 3, value: Any = None) -> None:
    with unit_results(folder) as kept:
        assert kept is not None
        kept.add({key: value or {"x": [i, 0.1 * i]} for i, key in enumerate(KEYS[:count])})


def read(folder: Path, keys: list[bytes] = KEYS) -> tuple[dict[bytes, Any], int]:
    with unit_results(folder) as kept:
        assert kept is not None
        return kept.read(keys), kept.foreign


def test_results_come_back_bit_for_bit(tmp_path: Path) -> None:
    write(tmp_path, 1200)
    found, foreign = read(tmp_path)
    assert found == {key: {"x": [i, 0.1 * i]} for i, key in enumerate(KEYS)}
    assert foreign == 0
    write(tmp_path, 1, ["é\ud800", float("inf"), None, True])
    assert read(tmp_path, KEYS[:1])[0] == {KEYS[0]: ["é\ud800", float("inf"), None, True]}
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_what_another_user_wrote_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setenv("VLMLENS_STATE", str(tmp_path / "theirs"))
    write(run)
    monkeypatch.setenv("VLMLENS_STATE", str(tmp_path / "mine"))
    assert read(run) == ({}, 3)
    write(run, 2)
    found, foreign = read(run)
    assert (set(found), foreign) == (set(KEYS[:2]), 1)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE results SET result = '[1]'",
        "UPDATE results SET result = 7",
        "UPDATE results SET signature = 'text'",
        "UPDATE results SET signature = x''",
    ],
)
def test_a_changed_row_is_not_used(tmp_path: Path, change: str) -> None:
    write(tmp_path)
    db = sqlite3.connect(tmp_path / FILE)
    db.execute(change)
    db.commit()
    db.close()
    assert read(tmp_path) == ({}, 3)


def test_results_do_not_pass_for_those_of_other_units(tmp_path: Path) -> None:
    write(tmp_path, 1)
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("UPDATE results SET unit = ?", (KEYS[5],))
    db.commit()
    db.close()
    assert read(tmp_path) == ({}, 1)


def spoil_header(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


def spoil_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:12288] = os.urandom(8192)
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def replace_tables(path: Path) -> None:
    path.unlink()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE results (unit, result, signature)")
    db.execute("CREATE TRIGGER t AFTER INSERT ON results BEGIN DELETE FROM results; END")
    db.commit()
    db.close()


@pytest.mark.parametrize("damage", [spoil_header, spoil_pages, cut_short, replace_tables])
def test_a_damaged_file_is_set_aside_and_begun_again(
    tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, 1200)
    damage(tmp_path / FILE)
    found, _ = read(tmp_path)
    assert len(found) < 1200
    write(tmp_path, 1200)
    assert len(read(tmp_path)[0]) == 1200
    assert (tmp_path / ASIDE).is_file()
    assert "computed again" in caplog.text


def test_a_link_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run.mkdir()
    elsewhere.mkdir()
    write(elsewhere)
    (run / FILE).symlink_to(elsewhere / FILE)
    write(run, 1)
    assert "it is a link" in caplog.text
    assert not (run / FILE).is_symlink()
    assert len(read(elsewhere)[0]) == 3


def test_a_journal_in_the_folder_removes_no_file_elsewhere(tmp_path: Path) -> None:
    """SQLite removes the super-journal that a journal names when it rolls back."""
    write(tmp_path)
    victim = tmp_path / "victim"
    victim.write_bytes(b"/no/such/journal\0")
    name, magic = str(victim).encode(), bytes.fromhex("d9d505f920a163d7")
    pages = (tmp_path / FILE).stat().st_size // 4096
    header = magic + struct.pack(">5I", 0, 0, pages, 512, 4096)
    named = struct.pack(">I", 0) + name + struct.pack(">2I", len(name), sum(name)) + magic
    (tmp_path / f"{FILE}-journal").write_bytes(header.ljust(512, b"\0") + named)
    assert len(read(tmp_path)[0]) == 3
    assert victim.exists()


def test_two_analyses_at_once(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for i in range(start, start + 40):
                with unit_results(tmp_path) as kept:
                    assert kept is not None
                    kept.read(KEYS)
                    kept.add({KEYS[i]: i, KEYS[1000 + i % 7]: i})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 30, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found, foreign = read(tmp_path)
    assert (len(found), foreign) == (107, 0)
    assert [found[key] for key in KEYS[:100]] == [*range(100)]


def test_a_file_that_cannot_be_opened_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(StoreError, match=r"cannot be kept in .*unable to open"):
        read(tmp_path)


def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path) -> None:
    with unit_results(tmp_path) as kept:
        assert kept is not None
        kept.add({KEYS[0]: 1})
        kept._db.execute("PRAGMA max_page_count = 3")
        with pytest.raises(StoreFull, match="No space is left"):
            kept.add(dict.fromkeys(KEYS, "x" * 1000))
        assert kept.read(KEYS) == {KEYS[0]: 1}


def test_without_a_key_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "signer", lambda name: None)
    with unit_results(tmp_path) as kept:
        assert kept is None
    assert not list(tmp_path.iterdir())


def test_its_files_are_the_runs_own() -> None:
    assert {FILE, ASIDE, f"{FILE}-wal", f"{FILE}-shm"} <= set(FILES)
