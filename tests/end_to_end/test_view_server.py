"""The server of `vlmlens view` over real sockets: who is let in, what it survives, how it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
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
        self, method: str, path: str, body: bytes | None = None, **changed: str | None
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("view")
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
    content = BytesIO()
    Image.new("RGB", (width, height), "red").save(content, "PNG")
    return content.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A small PNG of very many black pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * (1 << 20), 9)
    kinds = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in kinds)


# Who is let in


def test_the_apps_own_pages_are_answered(server: Server) -> None:
    assert server.ask("GET", "/live/model").status == 200
    made = server.ask("POST", "/live/pictures", png())
    assert made.status == 201
    name = json.loads(made.body)["upload"]
    shown = server.ask("GET", f"/live/pictures/{name}")
    assert (shown.status, shown.headers["content-type"]) == (200, "image/png")


@pytest.mark.parametrize(
    "cookie",
    [None, "", f"vlmlens-1={TOKEN}", f"token={TOKEN}", f"vlmlens={TOKEN}", "vlmlens-{port}=wrong",
     "vlmlens-{port}=", f"vlmlens-{{port}}={TOKEN}x", "vlmlens-{port}=\xe9"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/static/view.css"), ("POST", "/live/jobs"), ("GET", "/none")],
)
def test_without_the_token_nothing_is_told(
    server: Server, cookie: str | None, method: str, path: str
) -> None:
    given = cookie and cookie.replace("{port}", str(server.port))
    found = server.ask(method, path, cookie=given)
    assert found.status == 403
    assert TOKEN.encode() not in found.body


def test_the_token_of_the_address_becomes_a_cookie(server: Server) -> None:
    found = server.ask("GET", f"/live?token={TOKEN}&text=a%0d%0ab", cookie=None, origin=None)
    assert found.status == 303
    assert found.headers["location"] == "/live?text=a%0D%0Ab"
    cookie = found.headers["set-cookie"]
    assert cookie.startswith(f"vlmlens-{server.port}={TOKEN};")
    assert {"httponly", "samesite=strict", "path=/"} <= {
        part.strip().lower() for part in cookie.split(";")
    }
    assert found.headers["referrer-policy"] == "no-referrer"
    for wrong in ("", "wrong", TOKEN[:-1], "%ff", "%ed%a0%80"):
        assert server.ask("GET", f"/?token={wrong}", cookie=None).status == 403
        assert server.ask("GET", f"/?token={wrong}").status == 403
    assert server.ask("POST", f"/live/jobs?token={TOKEN}", cookie=None).status == 403


@pytest.mark.parametrize(
    "path",
    ["//evil.example", "/\\evil.example", "/%2f%2fevil.example", "/%5cevil.example",
     "/%09/evil.example", "/%0d%0aset-cookie:a=b", "/..//evil.example", "/%00", "/@evil.example"],
)  # fmt: skip
def test_it_leads_to_no_other_place(server: Server, path: str) -> None:
    found = server.ask("GET", f"{path}?token={TOKEN}", cookie=None)
    location = found.headers.get("location", "/")
    assert found.status == 303
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))
    assert not set("\t\r\n\\ ") & set(location)
    assert found.headers["set-cookie"].startswith(f"vlmlens-{server.port}=")


@pytest.mark.parametrize(
    "changed",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": None},
        {"origin": "http://127.0.0.1:1"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
    ],
)
def test_other_pages_change_nothing(server: Server, changed: dict[str, str | None]) -> None:
    body = json.dumps({"kind": "directions"}).encode()
    assert server.ask("POST", "/live/jobs", body).status == 202
    assert server.ask("POST", "/live/jobs", body, **changed).status == 403
    assert server.ask("POST", "/live/pictures", png(), **changed).status == 403
    assert server.ask("DELETE", "/live/jobs/x", **changed).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_pages_show_nothing_of_it(server: Server, site: str) -> None:
    name = json.loads(server.ask("POST", "/live/pictures", png()).body)["upload"]
    for path in (f"/live/pictures/{name}", "/static/live.js", "/live/model"):
        for mode in ("no-cors", "cors"):
            found = server.ask("GET", path, sec_fetch_site=site, sec_fetch_mode=mode)
            assert found.status == 403
    frame = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe", "sec_fetch_site": site}
    assert server.ask("GET", "/live", **frame).status == 403
    visit = {**frame, "sec_fetch_dest": "document"}
    assert server.ask("GET", "/live/model", **visit).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "localhost.evil"],
)
def test_rebound_names_are_refused(server: Server, host: str) -> None:
    name = host.replace("{port}", str(server.port))
    assert server.ask("GET", "/live/model", host=name).status == 421
    assert server.ask("GET", f"/?token={TOKEN}", host=name).status == 421
    assert server.ask("GET", "/live/model", host=f"LOCALHOST:{server.port}").status == 200


# What it serves


@pytest.mark.parametrize(
    "path",
    ["/static/../access.py", "/static/..%2faccess.py", "/static/%2e%2e/access.py",
     "/static/..%252faccess.py", "/static/..\\access.py", "/static/..%5caccess.py",
     "/static/view.css%00.py", "/static//etc/passwd", "/static/%2fetc%2fpasswd", "/static/",
     "/live/pictures/..%2f..%2fetc%2fpasswd", "/live/pictures/%00", "/live/jobs/..%2f..",
     "/runs/0/samples/0/pictures/..%2f0", "/runs/..%2f0", "/runs/0/analyses/..%2f..%2frun.json",
     "/runs/-1", "/runs/0", "/runs/" + "9" * 900, "/%", "/%ff%fe", "//", "/../../etc/passwd"],
)  # fmt: skip
def test_no_path_reaches_the_disk(server: Server, path: str) -> None:
    found = server.ask("GET", path)
    assert found.status in (303, 404), found.status
    assert b"root:" not in found.body
    assert b"class Guard" not in found.body


def test_too_long_addresses(server: Server) -> None:
    assert server.ask("GET", "/runs/" + "9" * 5000).status == 414


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/live/model", 200),
        ("HEAD", "/live/model", 200),
        ("GET", "/none", 404),
        ("PUT", "/live/jobs", 405),
        ("OPTIONS", "/live/jobs", 405),
        ("TRACE", "/live/jobs", 405),
        ("PROPFIND", "/live/jobs", 405),
        ("POST", "/live/jobs", 422),
        ("GET", "/live/jobs/none", 404),
        ("GET", "/live/jobs/none?wait=x", 404),
    ],
)
def test_every_answer_has_the_headers(server: Server, method: str, path: str, status: int) -> None:
    refused = server.ask(method, path, cookie=None)
    for found, expected in ((server.ask(method, path), status), (refused, 403)):
        assert found.status == expected
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["cross-origin-resource-policy"] == "same-origin"
        assert found.headers["referrer-policy"] == "no-referrer"
        assert found.headers["cache-control"] == "no-store"
        assert "server" not in found.headers
        assert "access-control-allow-origin" not in found.headers


def test_websockets_are_not_taken(server: Server) -> None:
    upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec_websocket_key": "AAAA"}
    assert server.ask("GET", "/live/model", **upgrade).status in (200, 403)
    assert server.ask("GET", "/live/model", cookie=None, **upgrade).status == 403


# Pictures


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"PK\x03\x04" + b"\0" * 100,
        png(64, 64)[:-30],
        png()[:20],
        bomb(50_000, 50_000),
        bomb(1, 2**31 - 1),
        bomb(10_000, 6_000),
        bomb(0, 0),
    ],
)
def test_what_is_no_usable_picture_is_refused(server: Server, content: bytes) -> None:
    began = time.process_time()
    found = server.ask("POST", "/live/pictures", content)
    assert found.status == 422, found.body
    assert "cannot be used" in json.loads(found.body)["message"]
    assert time.process_time() - began < 5


def test_damaged_pictures_of_all_formats_are_refused(server: Server) -> None:
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "ICO", "TGA"):
        content = BytesIO()
        Image.effect_noise((32, 32), 50).convert("RGB").save(content, kind)
        whole = content.getvalue()
        assert server.ask("POST", "/live/pictures", whole).status == 201, kind
        for at in (5, 30, len(whole) // 2):
            flipped = (
                whole[:at] + bytes(255 - byte for byte in whole[at : at + 8]) + whole[at + 8 :]
            )
            assert server.ask("POST", "/live/pictures", flipped).status in (201, 422), (kind, at)
            assert server.ask("POST", "/live/pictures", whole[:at]).status in (201, 422), (kind, at)


def test_too_long_pictures_are_refused_by_their_length(server: Server) -> None:
    head = "\r\n".join(f"{name}: {value}" for name, value in server.own.items())
    start = f"POST /live/pictures HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\n{head}\r\n"
    said = server.raw(f"{start}content-length: 20000001\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 413"), said
    assert b"20 MB" in said
    for odd in ("-1", "1e3", "x", "0x10"):
        answered = server.raw(f"{start}content-length: {odd}\r\n\r\n".encode())
        assert answered.startswith(b"HTTP/1.1 400"), answered


@pytest.mark.parametrize(("path", "most"), [("pictures", 20_000_000), ("jobs", 64 * 1024)])
def test_an_endless_body_is_refused_on_the_way(server: Server, path: str, most: int) -> None:
    head = "\r\n".join(f"{name}: {value}" for name, value in server.own.items())
    start = f"POST /live/{path} HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\n{head}\r\n"
    part = b"%x\r\n%s\r\n" % (1 << 16, b"\0" * (1 << 16))
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(f"{start}transfer-encoding: chunked\r\n\r\n".encode())
        sent = 0
        try:
            while sent < most + (8 << 20):
                connection.sendall(part)
                sent += 1 << 16
            said = connection.recv(1 << 16)
        except OSError:
            said = b"HTTP/1.1 413"
        assert said.startswith(b"HTTP/1.1 413"), (sent, said)
    assert server.ask("GET", "/live/model").status == 200


# Questions


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[" * 60_000, b'{"kind": NaN}', b'{"kind": "answer"', b"\xff", b"null",
     b'{"kind": "nothing"}', b'{"kind": "answer", "question": {"text": "\\ud800"}}',
     b'{"kind": ' + b"7" * 9000 + b"}", b'{"__proto__": {}, "kind": "answer"}',
     b'{"kind": "answer", "question": {"text": "?", "edits": ["x/last = ./evil.py:Evil"]}}',
     b'{"kind": "answer", "question": {"text": "?", "edits": ["x/last = add(/etc/passwd)"]}}'],
)  # fmt: skip
def test_what_is_no_question_is_refused(server: Server, body: bytes) -> None:
    found = server.ask("POST", "/live/jobs", body)
    assert found.status == 422, found.body
    assert json.loads(found.body)["message"]


def test_too_long_questions(server: Server) -> None:
    assert server.ask("POST", "/live/jobs", b" " * 66_000).status == 413


def test_odd_waits(server: Server) -> None:
    job = json.loads(server.ask("POST", "/live/jobs", b'{"kind": "directions"}').body)["job"]
    for wait in ("nan", "-1", "inf", "1e999", "0"):
        assert server.ask("GET", f"/live/jobs/{job}?wait={wait}").status == 200
    assert server.ask("GET", f"/live/jobs/{job}?wait=x").status == 422


# Its connections, and its end


def test_unfinished_requests_hold_nobody_up(server: Server) -> None:
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
    try:
        for each in slow:
            each.sendall(b"GET / HTTP/1.1\r\nhost: ")
        assert server.ask("GET", "/live/model").status == 200
        slow[0].settimeout(60)
        assert slow[0].recv(10) == b"", "it is closed after a while"
    finally:
        for each in slow:
            each.close()
    assert server.raw(b"\x16\x03\x01nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
    said = server.raw(b"GET / HTTP/1.1\r\nx: " + b"a" * 200_000)
    assert said == b"" or said.startswith(b"HTTP/1.1 400")


def test_it_ends_while_the_model_works(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    more = ("--adapter", "./slow.py:Slow", "--no-open", "--json")
    with _program.started("view", *more, cwd=tmp_path, VLMLENS_VIEW_TOKEN=TOKEN) as program:
        program.until(lambda: "url" in program.said()[0])
        server = Server(program, urlsplit(json.loads(program.said()[0])["url"]).port or 0)
        asked = json.dumps({"kind": "answer", "question": {"text": "?"}}).encode()
        jobs = [json.loads(server.ask("POST", "/live/jobs", asked).body)["job"] for _ in range(2)]
        program.until(
            lambda: (
                json.loads(server.ask("GET", f"/live/jobs/{jobs[0]}").body)["state"] == "loading"
            )
        )
        assert json.loads(server.ask("GET", f"/live/jobs/{jobs[1]}").body)["ahead"] == 1
        assert server.ask("DELETE", f"/live/jobs/{jobs[1]}").body == b'{"state":"cancelled"}'
        os.kill(program.pid, signal.SIGINT)
        assert program.wait(60) == 0
        assert program.said()[1] == ""
