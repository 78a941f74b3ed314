"""What the server of `vlmlens view` survives, and how it ends, over real sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests._viewer import Server, png, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("view")) as made:
        yield made


def bomb(width: int, height: int) -> bytes:
    """A small PNG of very many black pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * (1 << 20), 9)
    kinds = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in kinds)


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
    with serving(tmp_path) as server:
        program = server.program
        asked = json.dumps({"kind": "answer", "question": {"text": "?"}}).encode()
        jobs = [json.loads(server.ask("POST", "/live/jobs", asked).body)["job"] for _ in range(2)]

        def told(job: str) -> dict[str, Any]:
            found: dict[str, Any] = json.loads(server.ask("GET", f"/live/jobs/{job}").body)
            return found

        program.until(lambda: told(jobs[0])["state"] == "loading")
        assert told(jobs[1])["ahead"] == 1
        assert server.ask("DELETE", f"/live/jobs/{jobs[1]}").body == b'{"state":"cancelled"}'
        os.kill(program.pid, signal.SIGINT)
        assert program.wait(60) == 0
        assert program.said()[1] == ""
