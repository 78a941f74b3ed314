"""Who is let into `vlmlens view`, and what every answer holds, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests._viewer import TOKEN, Server, png, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("view")) as made:
        yield made


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
