"""A running `vlmlens view`, and requests to it as the app's own pages make them."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from tests import _program

TOKEN = "a-token-that-was-chosen-0123456789"
SLOW = '''
import time
from vlmlens_plugins.demo.adapter import DemoAdapter

class Slow(DemoAdapter):
    """A model whose loading takes an hour."""

    @classmethod
    def load(cls, request):
        time.sleep(3600)
'''


@dataclass
class Answered:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """A running app."""

    program: _program.Started
    port: int

    @property
    def own(self) -> dict[str, str]:
        """What the app's own pages send."""
        address = f"http://127.0.0.1:{self.port}"
        same = {"sec-fetch-site": "same-origin", "origin": address}
        return {"cookie": f"vlmlens-{self.port}={TOKEN}", **same}

    def ask(
        self, method: str, path: str, body: bytes | None = None, /, **changed: str | None
    ) -> Answered:
        """A request as the app's own pages make it; `changed` headers are replaced or left out."""
        given = {name.replace("_", "-"): value for name, value in changed.items()}
        headers = {k: v for k, v in {**self.own, **given}.items() if v is not None}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answered(answer.status, found, answer.read())
        finally:
            connection.close()

    def raw(self, sent: bytes, limit: float = 60) -> bytes:
        """What comes back for bytes, until the connection is closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=limit) as connection:
            connection.sendall(sent)
            found = b""
            with suppress(ConnectionResetError):
                while part := connection.recv(65536):
                    found += part
            return found


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server whose model takes an hour to load.

    Args:
        folder: An empty one.
    """
    (folder / "slow.py").write_text(SLOW)
    more = ("--adapter", "./slow.py:Slow", "--no-open", "--json")
    with _program.started("view", *more, cwd=folder, VLMLENS_VIEW_TOKEN=TOKEN) as program:
        program.until(lambda: "url" in program.said()[0])
        address = urlsplit(json.loads(program.said()[0])["url"])
        assert address.port is not None
        assert parse_qs(address.query)["token"] == [TOKEN]
        yield Server(program, address.port)
        said = program.said()[1]
        assert "Traceback" not in said, said
        assert TOKEN not in said


def png(width: int = 4, height: int = 4) -> bytes:
    """A small picture."""
    content = BytesIO()
    Image.new("RGB", (width, height), "red").save(content, "PNG")
    return content.getvalue()
