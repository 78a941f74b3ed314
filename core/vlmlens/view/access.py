"""Who may use the app: a secret token, the app's own address, and nothing from other pages."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
_LOCAL_NAMES = (LOOPBACK, "localhost", "[::1]")
_SAFE_METHODS = ("GET", "HEAD")
_LONGEST_PATH = 1000
_HTTP = 80
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The content security policy of every answer: what the app itself serves, and nothing else."""

_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """What a browser must know and say.

    Args:
        host: The address that the app listens at.
        port: The port.
        token: The secret in the address that is printed; it is never part of an answer's text.
        codes: Secrets that stand for the token once.
    """

    host: str
    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    codes: set[str] = field(default_factory=set, repr=False)

    @property
    def url(self) -> str:
        """The address to open once: its token becomes a cookie."""
        return self.address("/")

    def address(self, page: str) -> str:
        """The address of a page for people.

        Args:
            page: Its path, with or without a query.
        """
        return self._address(page, self.token)

    def address_once(self, page: str) -> str:
        """An address that works once, for starting a browser: other users see its command line."""
        code = secrets.token_urlsafe(24)
        self.codes.add(code)
        return self._address(page, code)

    def _address(self, page: str, secret: str) -> str:
        mark = "&" if "?" in page else "?"
        return f"http://{_bracketed(self.host)}:{self.port}{page}{mark}token={secret}"

    @property
    def cookie(self) -> str:
        """The cookie's name; it differs by port, since browsers send cookies to all ports."""
        return f"vlmlens-{self.port}"

    def is_token(self, given: str) -> bool:
        """Whether a text is the token, in a time that does not depend on it."""
        return _is_same(given, self.token)

    def may_enter(self, given: str) -> bool:
        """Whether a text from an address is the token, or a code that was not used yet."""
        if self.is_token(given):
            return True
        found = next((code for code in self.codes if _is_same(given, code)), None)
        self.codes.discard(found or "")
        return found is not None

    def is_own_host(self, host: str) -> bool:
        """Whether a request's Host names this app; another name is one that was rebound to it."""
        if self.is_open:
            return True
        names = (*_LOCAL_NAMES, _bracketed(self.host))
        known = {f"{name}:{self.port}" for name in names} | (
            {*names} if self.port == _HTTP else set()
        )
        return host.lower() in known

    @property
    def is_open(self) -> bool:
        """Whether others than this machine can reach it, under names that are not known here."""
        return _bracketed(self.host) not in _LOCAL_NAMES


class Guard:
    """Lets requests through that hold the token and come from the app's own pages.

    It stands around the whole app, so that every answer has its headers.

    Args:
        app: What is guarded.
        access: What a request must know.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            answer = self._refused(scope)
            await (answer or self._app)(scope, receive, _with_headers(send))
        else:
            await send({"type": f"{scope['type']}.close"})

    def _refused(self, scope: Scope) -> Response | None:
        """The answer to a request that goes no further; None lets it through."""
        headers = Headers(scope=scope)
        if len(scope["path"]) > _LONGEST_PATH:
            return PlainTextResponse("This address is too long.", 414)
        if not self._access.is_own_host(headers.get("host", "")):
            return PlainTextResponse("This address is not the app's own.", 421)
        if not _is_same_origin(scope["method"], headers):
            return PlainTextResponse("Another page may not ask for this.", 403)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if given is not None and scope["method"] == "GET":
            if not self._access.may_enter(given):
                return _unknown()
            return self._entered(scope["path"], [each for each in query if each[0] != "token"])
        known = cookie_parser(headers.get("cookie", "")).get(self._access.cookie, "")
        return None if self._access.is_token(known) else _unknown()

    def _entered(self, path: str, query: list[tuple[str, str]]) -> Response:
        """The same address without the token, which stays in a cookie."""
        clean = "/" + path.lstrip("/\\")
        answer = RedirectResponse(clean + ("?" + urlencode(query) if query else ""), 303)
        answer.set_cookie(
            self._access.cookie, self._access.token, httponly=True, samesite="strict", path="/"
        )
        return answer


def _is_same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), secret.encode())


def _is_same_origin(method: str, headers: Mapping[str, str]) -> bool:
    """Whether the app's own pages, or the address bar, made a request."""
    site = headers.get("sec-fetch-site", "same-origin")
    if method in _SAFE_METHODS:
        return site in ("same-origin", "none") or _is_visit(headers)
    own = [f"{scheme}://{headers.get('host')}" for scheme in ("http", "https")]
    return site == "same-origin" and headers.get("origin") in own


def _is_visit(headers: Mapping[str, str]) -> bool:
    """Whether a person followed a link to the app: its page fills the window."""
    whole = headers.get("sec-fetch-dest", "document") == "document"
    return whole and headers.get("sec-fetch-mode") == "navigate"


def _unknown() -> Response:
    return PlainTextResponse(
        "The token is missing or wrong. Open the address that `vlmlens view` printed.", 403
    )


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sent


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
