"""A hub on this machine: the HTTP API that huggingface_hub uses, with faults on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import pytest

TOKEN = "hf_" + "TestTokenOfTheFakeHub" * 2
USER = "me"
LARGE = 4_000
"""Files of this size are uploaded apart from the commit, as large files are."""

Fault = int | str
"""A status to answer with; "drop": the connection ends; another text: a redirect to that URL."""


@dataclass
class Repo:
    """A dataset repository: its commits, the newest last, each with all files."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def head(self) -> str:
        """The newest commit."""
        return list(self.commits)[-1]

    def commit(self, files: dict[str, bytes]) -> str:
        """Add a commit with these files."""
        said = [str(len(self.commits)), *sorted(f"{name}{len(files[name])}" for name in files)]
        made = hashlib.sha1("".join(said).encode()).hexdigest()
        self.commits[made] = files
        return made


class FakeHub:
    """The hub. `received` holds what was sent to it, decoded where it was encoded."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.received: list[bytes] = []
        self.requests: list[str] = []
        self.tokens: list[str] = []
        self.faults: list[tuple[re.Pattern[str], list[Fault]]] = []
        self.role = "write"
        self.lies: dict[str, bytes] = {}
        self.url = ""

    def fail(self, pattern: str, *faults: Fault) -> None:
        """Answer requests whose "METHOD PATH" matches with these faults, one after the other."""
        self.faults.append((re.compile(pattern), list(faults)))

    def holds(self, text: bytes) -> bool:
        """Whether anything that was sent contains these bytes."""
        return any(text in each for each in self.received)

    def fault(self, request: str) -> Fault | None:
        """The fault that a request meets."""
        for pattern, faults in self.faults:
            if faults and pattern.search(request):
                return faults.pop(0)
        return None

    def files(self, repo: str) -> dict[str, bytes]:
        """The files of a repository's newest commit."""
        return self.repos[repo].commits[self.repos[repo].head]


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """Answer requests to `hub.url` in threads."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    timeout = 20
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and content go together: else a client waits 40 ms for the second

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""

    def _serve(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        fault = hub.fault(f"{self.command} {path}")
        length = int(self.headers.get("Content-Length") or 0)
        if fault == "drop":
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(length)
        hub.requests.append(f"{self.command} {path}")
        hub.tokens.append(self.headers.get("Authorization", ""))
        hub.received += [body, self.path.encode()]
        if isinstance(fault, int):
            self._answer(fault, {"error": "as asked"})
        elif fault is not None:
            self._answer(302, {}, {"Location": fault})
        else:
            self._route(path, body)

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815 - as http.server wants them

    def _route(self, path: str, body: bytes) -> None:
        for pattern, answer in _ROUTES:
            if found := pattern.fullmatch(f"{self.command} {path}"):
                answer(self, body, **found.groupdict())
                return
        self._answer(200 if path == "/" else 404, {})

    def _answer(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _repo(self, name: str) -> Repo | None:
        found = self.hub.repos.get(name)
        seen = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if found is None or (found.private and not seen):
            self._answer(404, {"error": "no"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return found

    def whoami(self, body: bytes) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid user token"})
            return
        auth = {"accessToken": {"role": self.hub.role}}
        self._answer(200, {"name": USER, "orgs": [{"name": "lab"}], "auth": auth})

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        if name in self.hub.repos:
            self._answer(409, {"error": "You already created this dataset repo"})
            return
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.repos[name] = made = Repo(private)
        made.commit({".gitattributes": b"*.parquet filter=lfs\n"})
        self._answer(200, {"url": f"{self.hub.url}/datasets/{name}"})

    def info(self, body: bytes, repo: str, revision: str = "main") -> None:
        if (found := self._repo(repo)) is None:
            return
        commit = _commit_of(found, revision)
        if commit is None:
            self._answer(404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"})
            return
        self._answer(200, {"id": repo, "sha": commit, "private": found.private, "tags": []})

    def tree(self, body: bytes, repo: str, revision: str) -> None:
        if (found := self._repo(repo)) is not None:
            files = found.commits[_commit_of(found, revision) or ""]
            self._answer(200, [_entry(name, content) for name, content in files.items()])

    def validate(self, body: bytes) -> None:
        self._answer(200, {"errors": [], "warnings": []})

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        files = json.loads(body)["files"]
        self.hub.received += [base64.b64decode(each["sample"]) for each in files]
        modes = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["size"] > LARGE else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for each in files
        ]
        self._answer(200, {"files": modes})

    def batch(self, body: bytes, repo: str) -> None:
        objects = []
        for each in json.loads(body)["objects"]:
            href = f"{self.hub.url}/lfs/{each['oid']}"
            known = each["oid"] in self.hub.large
            actions = {} if known else {"actions": {"upload": {"href": href}}}
            objects.append({"oid": each["oid"], "size": each["size"], **actions})
        self._answer(200, {"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.large[oid] = body
        self._answer(200, {})

    def commit(self, body: bytes, repo: str, revision: str) -> None:
        if (found := self._repo(repo)) is None:
            return
        files, lines = dict(found.commits[found.head]), [*map(json.loads, body.splitlines())]
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit") not in (None, found.head):
                self._answer(412, {"error": "A commit has happened since"})
                return
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                self.hub.received.append(files[value["path"]])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        made, place = found.commit(files), f"{self.hub.url}/datasets/{repo}"
        self._answer(200, {"commitUrl": f"{place}/commit/{made}", "commitOid": made})

    def resolve(self, body: bytes, repo: str, revision: str, name: str) -> None:
        if (found := self._repo(repo)) is None:
            return
        commit = _commit_of(found, revision) or ""
        content = found.commits[commit].get(name)
        if content is None:
            self._answer(404, {}, {"X-Error-Code": "EntryNotFound"})
            return
        entry = _entry(name, content)
        content = self.hub.lies.get(name, content)
        etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        self._answer(200, content, headers)


def _commit_of(repo: Repo, revision: str) -> str | None:
    if revision == "main":
        return repo.head
    return next((each for each in repo.commits if each.startswith(revision)), None)


def _entry(name: str, content: bytes) -> dict[str, Any]:
    """A file as the hub lists it: with its id in git, and SHA-256 where it is large."""
    git = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    made: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": git}
    if len(content) > LARGE:
        sha = hashlib.sha256(content).hexdigest()
        made["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 130}
    return made


_NAME = r"(?P<repo>[^/]+/[^/]+)"
_DATASET = rf"/api/datasets/{_NAME}"
_ROUTES: list[tuple[re.Pattern[str], Callable[..., None]]] = [
    (re.compile(pattern), answer)
    for pattern, answer in [
        (r"GET /api/whoami-v2", _Handler.whoami),
        (r"POST /api/repos/create", _Handler.create),
        (r"POST /api/validate-yaml", _Handler.validate),
        (rf"GET {_DATASET}", _Handler.info),
        (rf"GET {_DATASET}/revision/(?P<revision>[^/]+)", _Handler.info),
        (rf"GET {_DATASET}/tree/(?P<revision>[^/]+)/?", _Handler.tree),
        (rf"POST {_DATASET}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
        (rf"POST {_DATASET}/commit/(?P<revision>[^/]+)", _Handler.commit),
        (r"POST /datasets/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.batch),
        (r"PUT /lfs/(?P<oid>\w+)", _Handler.put),
        (
            rf"(?:GET|HEAD) /datasets/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<name>.+)",
            _Handler.resolve,
        ),
    ]
]


@contextmanager
def connected(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub of its own that this process uses, with the user's token."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    from vlmlens import _hub

    with serving(FakeHub()) as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
        monkeypatch.setattr(_hub, "_last", None)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub
