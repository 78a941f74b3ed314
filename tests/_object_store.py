"""An S3-compatible server on loopback (moto's): it counts requests, and fails when told to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

_BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
BUCKET = "bucket"

Fault = Callable[[dict[str, Any]], str | None]
"""Of a request: None, "busy" (503), "lost" (done, and the connection is cut instead of an answer),
"cut" (half of the answer), "dead" (500) or "slow" (a delay)."""


class ObjectStore:
    """The server. It ends with `close`."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.fault: Fault = lambda environ: None
        self.faults = 0
        self._app = DomainDispatcherApplication(create_backend_app)
        more: dict[str, Any] = {"threaded": True, "request_handler": _Quiet}
        self._server = make_server("127.0.0.1", 0, self._serve, **more)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.client = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1")
        self.client.create_bucket(Bucket=BUCKET)
        self.requests.clear()

    def close(self) -> None:
        """End it."""
        self.client.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def objects(self, prefix: str = "") -> dict[str, int]:
        """The names and sizes of the objects."""
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return {each["Key"]: each["Size"] for each in found.get("Contents", ())}

    def get(self, key: str) -> bytes:
        """An object."""
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def put(self, key: str, content: bytes) -> None:
        """Replace an object."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def _serve(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        fault = self.fault(environ)
        self.faults += fault is not None
        if fault in ("busy", "dead"):
            start(
                "503 Slow Down" if fault == "busy" else "500 Internal Server Error",
                [("Content-Type", "application/xml"), ("Content-Length", str(len(_BUSY)))],
            )
            return [_BUSY if fault == "busy" else b" " * len(_BUSY)]
        if fault == "slow":
            time.sleep(0.3)
        answer = self._app(environ, _Swallow() if fault == "lost" else start)
        if fault == "lost":
            list(answer)
            _hang_up(environ)
        return _half(answer, environ) if fault == "cut" else answer


class _Quiet(WSGIRequestHandler):
    def log(self, *args: Any) -> None:
        """Say nothing."""


class _Swallow:
    def __call__(self, status: str, headers: Any, error: Any = None) -> Callable[[bytes], None]:
        return lambda data: None


def _half(answer: Iterable[bytes], environ: dict[str, Any]) -> Iterator[bytes]:
    whole = b"".join(answer)
    yield whole[: len(whole) // 2]
    _hang_up(environ)


def _hang_up(environ: dict[str, Any]) -> NoReturn:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError
