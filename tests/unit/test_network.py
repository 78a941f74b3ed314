"""A hub that cannot be reached is told within seconds, and the cache is asked."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from vlmlens import _hub as network
from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointNotFound, DataNotFound
from vlmlens.hf.checkpoints import explained
from vlmlens.testing.model import TinyLlava, tiny_model
from vlmlens_plugins.data._hf_loading import load


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that may use the network, whose hub was not asked yet."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(network, "_last", None)


@pytest.fixture
def silent_hub(online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(network, "_SECONDS", 0.3)
        yield


@pytest.fixture
def no_hub(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("hub", ["silent_hub", "no_hub"])
def test_a_hub_that_is_away_is_told_at_once(hub: str, request: pytest.FixtureRequest) -> None:
    tiny_model()  # what is imported once does not count
    request.getfixturevalue(hub)
    started = time.monotonic()
    with pytest.raises(
        CheckpointNotFound, match=r"not in the local cache, and .*127\.0\.0\.1"
    ) as told:
        TinyLlava.skeleton(LoadRequest(model="some-org/some-model"))
    assert time.monotonic() - started < 5
    assert "network" in told.value.hint
    assert constants.HF_HUB_OFFLINE is False


def test_a_dataset_tells_it_at_once_too(silent_hub: None) -> None:
    pytest.importorskip("datasets")
    started = time.monotonic()
    with pytest.raises(DataNotFound, match=r"some-org/some-data.*127\.0\.0\.1"):
        load("some-org/some-data", "some-org/some-data", None, None, None)
    assert time.monotonic() - started < 5


def test_the_answer_is_remembered(no_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    first = network.hub_trouble()
    assert "cannot be reached" in first
    monkeypatch.setattr(network, "_asked", lambda: pytest.fail("it was asked again"))
    assert network.hub_trouble() == first


def test_a_hub_that_answers_is_used(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        assert network.hub_trouble() == ""
    with explained("some-org/some-model"):
        assert constants.HF_HUB_OFFLINE is False


def test_offline_and_for_folders_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_asked", lambda: pytest.fail("the hub was asked"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert network.hub_trouble() == ""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with explained("./a-folder"):
        pass
