"""A place in an object store, where it misbehaves."""

from __future__ import annotations

import json
import os
import subprocess

import fsspec
import pytest

from vlmlens.errors import StoreError, StoreLocked
from vlmlens_plugins.storage import _remote_place
from vlmlens_plugins.storage._places import explaining
from vlmlens_plugins.storage._remote_place import Remote


class NoCredentialsError(Exception):
    """As botocore's."""


@pytest.fixture
def place(tmp_path):
    return Remote(f"memory:/{tmp_path}/x", {}, take_over=False, patience=0.2)


def failing(error, count=10**9):
    """A function that fails some times."""
    left = [count]

    def fail(*args, **more):
        left[0] -= 1
        if left[0] >= 0:
            raise error

    return fail


@pytest.mark.parametrize(
    "error", [NotImplementedError(), TypeError("no such option"), ValueError("odd"),
              NoCredentialsError("Unable to locate credentials"), ImportError("No module")],
)  # fmt: skip
def test_what_cannot_be_done_there_is_said_at_once(place, monkeypatch, error):
    asked = []
    monkeypatch.setattr(
        type(place._fs), "pipe_file", lambda *a, **more: asked.append(a) or failing(error)()
    )
    with pytest.raises(StoreError, match=r"cannot be used: .*options\.storage\.remote"):
        place.put("a", b"x")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("error", "hint"),
    [(PermissionError("Forbidden"), "Forbidden. Check permissions"),
     (FileNotFoundError("The specified bucket does not exist."), "exist. Check that the bucket")],
)  # fmt: skip
def test_what_the_system_says_has_a_way_out(place, monkeypatch, error, hint):
    monkeypatch.setattr(type(place._fs), "pipe_file", failing(error))
    with pytest.raises(StoreError) as caught, explaining(place):
        place.lock()
    assert hint in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("url", "install"), [("s3://bucket/x", 'pip install "vlmlens[s3]"'), ("gs://x/y", "gcsfs")]
)
def test_a_missing_module_is_named(monkeypatch, url, install):
    monkeypatch.setattr(fsspec, "url_to_fs", failing(ImportError("Install it")))
    with pytest.raises(StoreError, match="not installed") as caught:
        Remote(url, {}, take_over=False)
    assert install in caught.value.hint


def test_a_removal_whose_answer_was_lost(place, monkeypatch):
    place.put("a/b", b"x")
    remove = place._fs.rm

    def lost(*args, **more):
        remove(*args, **more)
        raise ConnectionResetError

    monkeypatch.setattr(type(place._fs), "rm", lambda self, *a, **more: lost(*a, **more))
    place._patience = 0.0
    with pytest.raises(StoreError):
        place.clear()
    place.put("a/b", b"x")
    answers = [lost, failing(FileNotFoundError())]
    monkeypatch.setattr(type(place._fs), "rm", lambda self, *a, **more: answers.pop(0)(*a, **more))
    place._patience = 5.0
    place.clear()
    assert place.get("a/b") is None


def test_large_objects_are_read_in_one_request(place, monkeypatch):
    """An object that is replaced between two requests would be half of each."""
    monkeypatch.setattr(_remote_place, "_PIECE", 4)
    for content in (b"", b"abc", b"abcd", b"abcdefghij"):
        place.put("a", content)
        assert place.get("a") == content
    read = type(place._fs).cat_ranges

    def replaced(self, *args, **more):
        found = read(self, *args, **more)
        place.put("a", b"ABCDEFGHIJ")
        return found

    monkeypatch.setattr(type(place._fs), "cat_ranges", replaced)
    assert place.get("a") == b"ABCDEFGHIJ"


def test_a_service_that_gives_whole_objects(place, monkeypatch):
    place.put("a", bytes(100))
    monkeypatch.setattr(type(place._fs), "cat_ranges", lambda self, *a, **more: [bytes(100)])
    with pytest.raises(StoreError, match="gave 100 bytes of a instead of 10"):
        place.fetch([(_remote_place.ByteRange("a", 20, 30))])


def test_a_lock_of_another_container_stays(place):
    """A host of the same name, where other processes have the numbers."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    owner = {"pid": ended.pid, "host": os.uname().nodename}
    for more, free in (({}, True), ({"processes": "elsewhere"}, False)):
        place.put("writer.lock", json.dumps({**owner, **more}).encode())
        if free:
            place.lock()
            place.unlock()
        else:
            with pytest.raises(StoreLocked, match=r"remove the object writer\.lock"):
                place.lock()
    for odd in (b"[]", b"7", b"{}"):
        place.put("writer.lock", odd)
        with pytest.raises(StoreLocked, match="Another process"):
            place.lock()
