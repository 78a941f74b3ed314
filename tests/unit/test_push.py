"""`push`: what goes to the hub, in one commit or not at all, and what is refused before."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants
from tests.unit._fake_hub import TOKEN, FakeHub, Repo, connected, serving
from tests.unit._hub_runs import found, made_run, painted

import vlmlens
from vlmlens import VlmlensError
from vlmlens.errors import HubError, RunNotFound
from vlmlens.results import Finding, Glance
from vlmlens.runs.run import Run
from vlmlens.sharing._card import text

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=")  # the hub's client, of httpx
HOSTILE = '<script>alert("x")</script> | [x](javascript:1) ![p](http://e.org/p.png) `a` \x1b[31m'


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    result = found(
        findings=[Finding(f"It sees {HOSTILE}", subject=HOSTILE, notable=True)],
        overview=(Glance(HOSTILE, HOSTILE, "yes", value=0.5, beside=HOSTILE),),
        warnings=[HOSTILE],
        figures=[],
    )
    return made_run(folder / "first", painted(folder / "photos"), result)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with connected(monkeypatch) as hub:
        yield hub


def changed(run: Run, folder: Path, **values: object) -> Path:
    """A copy of a run with other entries in run.json."""
    shutil.copytree(run.path, folder)
    Run(folder).update(**values)
    return folder


def test_a_run_becomes_a_private_repository_in_one_commit(kept: Run, hub: FakeHub) -> None:
    done = vlmlens.push(kept, "me/x")
    assert hub.repos["me/x"].private
    assert done.private
    assert len(hub.repos["me/x"].commits) == 2
    files = hub.files("me/x")
    assert {*files} - {".gitattributes"} == {*done.files}
    assert done.files == {name: len(files[name]) for name in done.files}
    assert (done.commit, done.url) == (hub.repos["me/x"].head, f"{hub.url}/datasets/me/x")
    assert {"README.md", "run.json", "spec.yaml", "samples.jsonl", "report.html"} <= {*files}
    told = json.loads(files["run.json"])
    assert not {"signed", "working_folder", "planned"} & {*told}
    spec = yaml.safe_load(files["spec.yaml"])
    assert (spec["data"], spec["out"], spec["storage"]) == ("photos", None, "safetensors")


def test_the_card_says_what_was_found_and_holds_no_markup_of_others(
    kept: Run, hub: FakeHub
) -> None:
    card = vlmlens.push(kept, "me/x", dry_run=True).card
    _, front, body = card.split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["configs"][0] == {
        "config_name": "overview.overview",
        "data_files": "results/overview.overview.parquet",
        "default": True,
    }
    headings = re.findall(r"^## (.*)$", body, re.MULTILINE)
    assert headings[0] == "What was found"
    assert headings[-1] == "What is not here"
    assert "vlmlens pull me/x --to run" in body
    assert "the pictures of the samples" in body
    assert "<script" not in body
    assert not re.search(r"(?<!\\)!?\[|\x1b|https?://", body)
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}


def test_markdown_of_others_is_shown_as_it_is() -> None:
    assert text("a\n# b") == "a \\# b"
    assert text("x" * 5000) == "x" * 600 + "…"


def test_a_second_push_updates_and_removes_what_is_no_longer_sent(
    kept: Run, hub: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vlmlens.push(kept, "me/x", images=True)
    assert any(name.startswith("images/") for name in hub.files("me/x"))
    vlmlens.push(kept, "me/x")
    assert not any(name.startswith("images/") for name in hub.files("me/x"))
    assert "Earlier commits keep them" in caplog.text
    assert len(hub.repos["me/x"].commits) == 3
    other = changed(kept, tmp_path / "other", started="2026-01-01T00:00:00+00:00")
    with pytest.raises(HubError, match="another run") as told:
        vlmlens.push(other, "me/x")
    assert "--replace" in told.value.hint
    vlmlens.push(other, "me/x", replace=True)
    assert json.loads(hub.files("me/x")["run.json"])["started"].startswith("2026-01-01")


def test_a_dry_run_needs_neither_network_nor_token(
    kept: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = vlmlens.push(kept, "me/x", dry_run=True)
    assert (hub.requests, done.commit) == ([], "")
    assert done.size == sum(done.files.values()) > 10_000


@pytest.mark.parametrize(
    "name",
    ["x", "a/b/c", "", "../x", "a/..", "me/x.git", "me/a--b", "me/é", "-me/x", "me/x y", "me/x\n"],
)
def test_names_that_are_none_are_refused_first(kept: Run, hub: FakeHub, name: str) -> None:
    for ask in (lambda: vlmlens.push(kept, name), lambda: vlmlens.pull(name)):
        with pytest.raises(HubError, match="is no name of a repository"):
            ask()
    assert hub.requests == []


def test_runs_that_cannot_be_sent_are_refused_first(
    kept: Run, hub: FakeHub, tmp_path: Path
) -> None:
    with pytest.raises(RunNotFound):
        vlmlens.push(tmp_path / "none", "me/x")
    killed = changed(kept, tmp_path / "killed", state="running")
    with pytest.raises(HubError, match="is not finished") as told:
        vlmlens.push(killed, "me/x")
    assert "--resume" in told.value.hint
    shutil.rmtree(killed / "results")
    Run(killed).update(state="finished")
    with pytest.raises(HubError, match="no results"):
        vlmlens.push(killed, "me/x")
    shutil.rmtree(killed / "columns", ignore_errors=True)
    (killed / "columns").unlink(missing_ok=True)
    with pytest.raises(HubError, match="has no activations"):
        vlmlens.push(killed, "me/x", activations=True)
    assert hub.requests == []


def test_activations_elsewhere_are_refused_with_a_way_out(
    kept: Run, hub: FakeHub, tmp_path: Path
) -> None:
    away = changed(kept, tmp_path / "away")
    spec = (away / "spec.yaml").read_text()
    (away / "spec.yaml").write_text(spec.replace("storage: sqlite", "storage: zarr+s3://b/x"))
    with pytest.raises(HubError, match=r"at zarr\+s3://b/x") as told:
        vlmlens.push(away, "me/x", activations=True)
    assert "vlmlens export" in told.value.hint
    assert hub.requests == []
    vlmlens.push(away, "me/x")
    assert not hub.holds(b"s3://b")


def test_repositories_with_something_else_are_left_alone(kept: Run, hub: FakeHub) -> None:
    hub.repos["me/x"] = other = Repo(private=True)
    other.commit({"train.csv": b"1", "README.md": b"mine"})
    with pytest.raises(HubError, match=r"something else: train\.csv"):
        vlmlens.push(kept, "me/x", replace=True)
    other.commit({"README.md": b"mine"})
    with pytest.raises(HubError, match="a card without one"):
        vlmlens.push(kept, "me/x")
    assert hub.files("me/x") == {"README.md": b"mine"}


@pytest.mark.parametrize("public", [True, False])
def test_nobody_sees_more_than_was_asked_for(kept: Run, hub: FakeHub, public: bool) -> None:
    vlmlens.push(kept, "me/x", public=public)
    assert hub.repos["me/x"].private is not public
    seen = "public" if public else "private"
    with pytest.raises(HubError, match=f"exists already, and is {seen}"):
        vlmlens.push(kept, "me/x", public=not public)
    assert len(hub.repos["me/x"].commits) == 2


def refused(kept: Run, hub: FakeHub, match: str, repo: str = "me/x") -> str:
    with pytest.raises(HubError, match=match) as told:
        vlmlens.push(kept, repo)
    assert TOKEN not in str(told.value)
    assert all(len(each.commits) == 1 for each in hub.repos.values())
    return told.value.hint


def test_who_may_not_write_is_told_before_anything_is_made(
    kept: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmlens.sharing._push.copied", lambda *a, **k: pytest.fail("it was made"))
    hub.role = "read"
    assert "can write" in refused(kept, hub, "can read only")
    hub.role = "write"
    assert "me, lab" in refused(kept, hub, "'me' cannot write", "stranger/x")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "hf auth login" in refused(kept, hub, "does not accept this token")
    monkeypatch.setattr("vlmlens.sharing._hub.token_here", lambda: None)
    assert "HF_TOKEN" in refused(kept, hub, "There is no token")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(kept, hub, "HF_HUB_OFFLINE is set")


def test_a_hub_that_is_away_is_told(
    kept: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "HF_ENDPOINT" in refused(kept, hub, "cannot be reached")


@pytest.mark.parametrize(
    ("where", "status", "said"),
    [
        ("POST /api/repos/create", 403, "does not allow it"),
        ("POST /api/repos/create", 409, "changed at the same time"),
        ("POST .*/preupload/", 403, "does not allow it"),
        ("POST .*/preupload/", 429, "too many requests"),
        ("POST .*/batch", 413, "too large"),
        ("POST .*/commit/", 409, "changed at the same time"),
        ("POST .*/commit/", 412, "changed at the same time"),
        ("POST .*/commit/", 500, "did not do it"),
        ("PUT /lfs/", 500, "did not do it"),
        ("PUT /lfs/", "drop", "did not do it"),
    ],
)
def test_what_goes_wrong_is_said_and_leaves_no_half_run(
    kept: Run, hub: FakeHub, where: str, status: int | str, said: str
) -> None:
    hub.fail(where, *[status] * 40)
    refused(kept, hub, said)
    hub.faults.clear()
    if where.startswith("POST /api/repos"):
        hub.repos.clear()
    vlmlens.push(kept, "me/x")
    assert "run.json" in hub.files("me/x")


def test_a_connection_that_is_lost_once_is_nothing_to_tell(kept: Run, hub: FakeHub) -> None:
    hub.fail("PUT /lfs/", "drop")
    hub.fail("POST .*/preupload/", 503)
    vlmlens.push(kept, "me/x")
    assert "report.html" in hub.files("me/x")


def test_what_was_uploaded_is_not_uploaded_again(kept: Run, hub: FakeHub) -> None:
    hub.fail("POST .*/commit/", 500)
    refused(kept, hub, "did not do it")
    before = sum(request.startswith("PUT") for request in hub.requests)
    vlmlens.push(kept, "me/x")
    assert before > 0
    assert sum(request.startswith("PUT") for request in hub.requests) == before


def test_somebody_elses_commit_meanwhile_is_not_overwritten(kept: Run, hub: FakeHub) -> None:
    vlmlens.push(kept, "me/x")
    commit = hub.files("me/x")
    hub.fail("POST .*/preupload/", 503)
    found = hub.fault

    def meanwhile(request: str) -> int | str | None:
        if "/preupload/" in request:
            hub.repos["me/x"].commit({**commit, "run.json": b"theirs"})
        return found(request)

    hub.fault = meanwhile  # type: ignore[method-assign]
    with pytest.raises(HubError, match="changed at the same time"):
        vlmlens.push(kept, "me/x", images=True)
    assert hub.files("me/x")["run.json"] == b"theirs"


def test_the_token_goes_to_no_other_place(kept: Run, hub: FakeHub) -> None:
    with serving(FakeHub()) as other:
        hub.fail("PUT /lfs/", other.url.replace("127.0.0.1", "localhost") + "/lfs/elsewhere")
        hub.fail("POST .*/preupload/", other.url.replace("127.0.0.1", "localhost") + "/x")
        with pytest.raises(VlmlensError):
            vlmlens.push(kept, "me/x")
        assert not other.holds(TOKEN.encode())
        assert TOKEN not in "".join(other.tokens)


def test_nothing_is_left_on_the_disk(
    kept: Run, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = {path: path.read_bytes() for path in kept.path.rglob("*") if path.is_file()}
    vlmlens.push(kept, "me/x", activations=True)
    hub.fail("POST .*/commit/", 500)
    with pytest.raises(HubError):
        vlmlens.push(kept, "me/y")
    assert list(tmp_path.iterdir()) == []
    assert {path: path.read_bytes() for path in before} == before
