"""Serving the app on this machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vlmlens.errors import SpecError
from vlmlens.view.access import LOOPBACK, Access
from vlmlens.view.app import make_app

if TYPE_CHECKING:
    from vlmlens.view.viewer import Viewer

_SHORTEST_TOKEN = 16
_PATIENCE = 1
"""Seconds that requests, and then a pass of the model, may still take when the app ends."""

_FIRST_REQUEST = 5.0
"""Seconds until the first request of a connection must have come."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for browsers; port 0 takes a free one.

    Raises:
        SpecError: The address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except (OSError, OverflowError, UnicodeError) as error:
        made.close()
        raise SpecError(
            f"The address {host}:{port} cannot be used: {error}.",
            subject="port",
            hint="Leave --port out, which takes a free one, or name another.",
        ) from error
    return made


def check_host(host: str, token: str | None) -> None:
    """Check that an address which others can reach has a token that was chosen.

    Raises:
        SpecError: It has none, or a short one.
    """
    if token is not None and len(token) < _SHORTEST_TOKEN:
        raise SpecError(
            f"The token has {len(token)} characters; {_SHORTEST_TOKEN} are the least.",
            subject="token",
            hint="python -c 'import secrets; print(secrets.token_urlsafe(24))' makes one.",
        )
    if token is None and host not in (LOOPBACK, "localhost", "::1"):
        raise SpecError(
            f"Other machines can reach {host}, and no token was given.",
            subject="host",
            hint="Add --token SECRET, or leave --host out and forward the port with ssh.",
        )


def serve(viewer: Viewer, access: Access, at: socket.socket, ready: Callable[[], None]) -> bool:
    """Serve until the process is told to stop; that is no error.

    Args:
        viewer: What is shown.
        access: Who may use it.
        at: From `listen`.
        ready: Called once requests are answered.

    Returns:
        Whether all threads ended; if not, a pass of the model still runs.
    """
    config = uvicorn.Config(
        make_app(viewer, access),
        http=_Patient,
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_PATIENCE,
        lifespan="off",
    )
    ended = True
    try:
        with at, suppress(KeyboardInterrupt):
            _Server(config, viewer, ready).run(sockets=[at])
    finally:
        if viewer.live is not None:
            ended = viewer.live.close(_PATIENCE)
    return ended


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, viewer: Viewer, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._viewer = viewer
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._viewer.live is not None:
            self._viewer.live.ending = True
        super().handle_exit(sig, frame)


class _Patient(H11Protocol):
    """HTTP that closes connections whose first request does not come."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(_FIRST_REQUEST, self._close_idle)

    def _close_idle(self) -> None:
        if self.scope is None and not self.transport.is_closing():
            self.transport.close()
