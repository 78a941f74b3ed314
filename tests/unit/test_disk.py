"""A full disk and other refusals of the system; temporary files that killed processes leave."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from vlmlens._disk import disk_error, disk_errors
from vlmlens._files import remove_abandoned, replacing, write_bytes
from vlmlens.cli._messages import report
from vlmlens.cli._output import Output
from vlmlens.errors import FileError, StoreFull
from vlmlens.runner.stages import ending_recorded
from vlmlens_plugins.storage.lmdb import LmdbOptions, LmdbStore


def in_fork(work: Callable[[], bool], *, largest: int | None = None) -> bool:
    """Whether the work says yes, in a process whose files may only be so large."""
    child = os.fork()
    if child == 0:
        try:
            if largest is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
            os._exit(0 if work() else 1)
        except BaseException:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "No space is left"),
        (errno.EDQUOT, "No space is left"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "not open to this user"),
        (errno.EPERM, "not open to this user"),
        (errno.ENAMETOOLONG, "longer name"),
        (errno.ENOTDIR, "no folder"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_what_the_system_says(
    number: int, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = OSError(number, os.strerror(number), str(tmp_path / "x"))
    found = disk_error(error)
    assert found is not None
    assert reason in str(found)
    assert found.hint
    with pytest.raises(FileError, match=str(tmp_path)), disk_errors():
        raise error
    assert report(error, Output()) == 2
    said = capsys.readouterr().err
    assert "bug" not in said
    assert "Traceback" not in said


def test_other_errors_stay_bugs(capsys: pytest.CaptureFixture[str]) -> None:
    assert disk_error(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) is None
    assert report(OSError(errno.ENOEXEC, "no program"), Output()) == 1
    assert "This is a bug" in capsys.readouterr().err


def test_the_state_is_recorded_on_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"state": "running", "made": ["x" * 100]}, indent=1))

    def fails() -> bool:
        with pytest.raises(StoreFull), ending_recorded(tmp_path):
            raise StoreFull("full")
        return True

    assert in_fork(fails, largest=path.stat().st_size - 40)
    assert json.loads(path.read_text()) == {"state": "failed", "made": ["x" * 100]}
    assert list(tmp_path.iterdir()) == [path]


def test_lmdb_needs_room_for_its_readers(tmp_path: Path) -> None:
    """Its table of readers is mapped; without room, the first use would kill the process."""

    def full() -> bool:
        with pytest.raises(StoreFull, match="No space is left"):
            LmdbStore.open(str(tmp_path / "x"), mode="a", options=LmdbOptions())
        return True

    assert in_fork(full, largest=20_000)
    with LmdbStore.open(str(tmp_path / "x"), mode="a", options=LmdbOptions()):
        found = (tmp_path / "x" / "lock.mdb").stat()
        assert found.st_blocks * 512 >= found.st_size > 32_000


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "x.npz"

    def killed() -> bool:
        with replacing(target) as temporary:
            temporary.write_bytes(b"half")
            os._exit(0)

    assert in_fork(killed)
    (tmp_path / ".notes.tmp").write_text("mine")
    (tmp_path / ".other.0123abcd.tmp").write_text("half")
    assert len(list(tmp_path.iterdir())) == 3
    with replacing(target) as temporary:
        remove_abandoned(tmp_path, "x.npz")
        temporary.write_bytes(b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {
        "x.npz",
        ".notes.tmp",
        ".other.0123abcd.tmp",
    }
    remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"x.npz", ".notes.tmp"}
    assert target.read_bytes() == b"whole"


def test_a_long_name_has_a_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250)
    write_bytes(path, b"1")
    assert path.read_bytes() == b"1"
