"""`pull`: a run comes back as it was sent, is trusted in nothing, and hostile ones do no harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.unit._fake_hub import FakeHub, Repo, connected
from tests.unit._hub_runs import COLUMN, found, made_run, painted
from typer.testing import CliRunner

import vlmlens
from vlmlens.cli._app import app
from vlmlens.errors import HubError, RunExists, StoreLocked, UntrustedRun
from vlmlens.report.files import to_json
from vlmlens.runner.run_report import write_run_report
from vlmlens.runs.run import Run

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=")  # the hub's client, of httpx


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Repo]:
    """A run, and the repository that it became, with pictures and activations."""
    folder = tmp_path_factory.mktemp("sent")
    run = made_run(folder / "run", painted(folder / "photos"))
    with pytest.MonkeyPatch.context() as patch, connected(patch) as hub:
        vlmlens.push(run, "me/x", images=True, activations=True)
        return run, hub.repos["me/x"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, sent: tuple[Run, Repo], in_tmp: Path) -> Iterator[FakeHub]:
    with connected(monkeypatch) as hub:
        hub.repos["me/x"] = Repo(False, dict(sent[1].commits))
        yield hub


def hostile(hub: FakeHub, **changes: bytes | None) -> None:
    """Commit other contents of files; None removes one. `__` stands for a dot, `___` for /."""
    files = dict(hub.files("me/x"))
    for key, content in changes.items():
        name = key.replace("___", "/").replace("__", ".")
        files.pop(name, None)
        if content is not None:
            files[name] = content
    hub.repos["me/x"].commit(files)


def edited(hub: FakeHub, **values: object) -> bytes:
    return json.dumps({**json.loads(hub.files("me/x")["run.json"]), **values}).encode()


def test_a_run_comes_back(sent: tuple[Run, Repo], hub: FakeHub) -> None:
    run, _ = sent
    got = vlmlens.pull("me/x")
    assert got.path == Path("x")
    ours, theirs = run.activations[COLUMN], got.activations[COLUMN]
    assert theirs.dtype == ours.dtype
    assert theirs.tobytes() == ours.tobytes()
    assert {n: to_json(r) for n, r in got.results.items()} == {
        n: to_json(r) for n, r in run.results.items()
    }
    assert got.overview.overview == run.overview.overview
    assert got.overview.title == "demo on photos: 2 images"
    assert got.generated == run.generated
    assert got.sample_prints() == run.sample_prints()
    for mine, yours in zip(run.samples, got.samples, strict=True):
        (one,), (other,) = mine.open_images(), yours.open_images()
        assert np.array_equal(np.asarray(one), np.asarray(other))
        assert yours.label == mine.label
    assert sorted(path.name for path in Path().iterdir()) == ["x"]


def test_commands_look_at_it_and_it_can_be_sent_on(sent: tuple[Run, Repo], hub: FakeHub) -> None:
    done = CliRunner().invoke(app, ["pull", "me/x", "--to", "got", "--json"])
    assert (done.exit_code, json.loads(done.stdout)["results"]) == (0, ["toy"]), done.output
    for command in (
        ["show", "got"], ["report", "got"], ["verify", "got"], ["export", "got", "x.npz"],
        ["compare", "got", str(sent[0].path)],
    ):  # fmt: skip
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, (command, done.output)
    vlmlens.push("got", "me/again", images=True, activations=True)
    again = vlmlens.pull("me/again")
    assert again.activations[COLUMN].tobytes() == sent[0].activations[COLUMN].tobytes()
    assert hub.files("me/again")["samples.jsonl"] == hub.files("me/x")["samples.jsonl"]


def test_it_is_not_trusted_even_if_it_brings_signatures(
    sent: tuple[Run, Repo], hub: FakeHub
) -> None:
    """Signatures that this user's key made, of a spec that names code."""
    spec = hub.files("me/x")["spec.yaml"].replace(b"data: photos", b"data: ./evil.py:Data")
    (Path("evil.py")).write_text("raise SystemExit(7)")
    from vlmlens.runs.signing import signature

    signed = {"spec.yaml": signature("spec.yaml", spec)}
    record = edited(hub, signed=signed, planned={"x": 1}, working_folder="/", pulled={"a": "b"})
    hostile(hub, spec__yaml=spec, run__json=record)
    got = vlmlens.pull("me/x")
    assert not got.trusted
    assert not {"signed", "planned", "working_folder"} & {*got.info}
    with pytest.raises(UntrustedRun, match=r"evil\.py"):
        got.check_trust("data")
    assert CliRunner().invoke(app, ["report", "x"]).exit_code == 0


def test_only_names_that_runs_have_are_fetched(hub: FakeHub) -> None:
    names = [
        "../evil", "../../evil", "/etc/evil", "results/../../evil", "a/../../evil.json",
        "setup.py", "columns/key.json", "units.sqlite", "leases/plan.json", "results/x.pkl",
        "<script>x</script>.json", "results/\x1b[31m.json", "images/../../x.png", ".git/hooks/x",
    ]  # fmt: skip
    files = {**hub.files("me/x"), **dict.fromkeys(names, b"evil")}
    hub.repos["me/x"].commit(files)
    before = len(hub.requests)
    done = CliRunner().invoke(app, ["pull", "me/x", "--to", "a/b/got"])
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output + done.stderr
    assert "other files" in done.stderr
    here = {path.relative_to("a/b/got").as_posix() for path in Path("a/b/got").rglob("*")}
    assert not any("evil" in name or "x.p" in name for name in here)
    assert sorted(path.name for path in Path("a/b").iterdir()) == ["got"]
    asked = "\n".join(hub.requests[before:])
    assert not any(f"/{name}" in asked for name in names)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run__json": None}, "it has no run.json"),
        ({"spec__yaml": None}, "it has no spec.yaml"),
        ({"run__json": b"../../etc/passwd"}, "can be read"),
        ({"run__json": b"[" * 100_000}, "can be read"),
        ({"run__json": b'{"samples": "9", "columns": []}'}, "samples in run.json is str"),
        ({"run__json": b'{"samples": 2, "columns": [{}]}'}, "no text"),
        ({"run__json": b'{"samples": 3}'}, "2 lines"),
        ({"spec__yaml": b"!!python/object/apply:os.system [touch evil]"}, "can be read"),
        ({"spec__yaml": b"adapter: [1"}, "can be read"),
        ({"samples__jsonl": b"x\n"}, "can be read"),
        ({"samples__jsonl": b'{"id": "a", "prompt": 1, "images": 5}\n' * 2}, "can be read"),
        ({"generated__jsonl": b'{"id": "a"}\n'}, "id and text"),
        ({"skipped__jsonl": b"5\n"}, "can be read"),
        ({"results___toy__json": b"[" * 100_000}, "can be read"),
        ({"results___toy__json": b"../../etc/passwd"}, "can be read"),
        ({"results___toy__json": b'{"analysis": 1}'}, "can be read"),
        ({"spec__yaml": b"#" * ((1 << 20) + 1)}, "too large: spec.yaml"),
    ],
)
def test_what_is_no_run_is_refused_and_not_kept(
    hub: FakeHub, changes: dict[str, bytes | None], said: str
) -> None:
    hostile(hub, **changes)
    with pytest.raises(HubError) as told:
        vlmlens.pull("me/x")
    assert said in str(told.value)
    assert ".pulling" not in told.value.message, "it is no longer there"
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(("part", "depth"), [("options", 60), ("options", 900), ("values", 900)])
def test_results_that_are_nested_deeply_are_refused(hub: FakeHub, part: str, depth: int) -> None:
    result = json.loads(hub.files("me/x")["results/toy.json"])
    place = result if part == "options" else result["findings"][0]
    for inner, refused in ((30, False), (depth, True)):
        place[part] = {"a": json.loads("[" * inner + "]" * inner)}
        hostile(hub, results___toy__json=json.dumps(result).encode())
        if refused:
            with pytest.raises(HubError, match=r"results/toy\.json holds no result .*50 deep"):
                vlmlens.pull("me/x", f"at-{inner}")
        else:
            write_run_report(vlmlens.pull("me/x", f"at-{inner}"))


def test_pictures_named_elsewhere_are_not_opened(hub: FakeHub, tmp_path: Path) -> None:
    secret = painted(tmp_path / "secret", 1)[0]
    lines = [json.loads(line) for line in hub.files("me/x")["samples.jsonl"].splitlines()]
    lines[0]["images"] = [str(secret)]
    lines[1]["images"] = [f"sha256:../../../{secret.with_suffix('')}"]
    hostile(hub, samples__jsonl="".join(json.dumps(line) + "\n" for line in lines).encode())
    got = vlmlens.pull("me/x")
    for sample in got.samples:
        with pytest.raises(vlmlens.VlmlensError):
            sample.open_images()
    with pytest.raises(HubError, match="picture cannot be sent"):
        vlmlens.push(got, "me/other", images=True)


def test_how_much_may_be_fetched_is_bounded(hub: FakeHub) -> None:
    done = CliRunner().invoke(app, ["pull", "me/x", "--max-size", "1KB"])
    assert done.exit_code == 2
    assert "too large" in done.stderr
    assert "--max-size" in done.stderr
    assert not any("resolve" in request for request in hub.requests)
    assert CliRunner().invoke(app, ["pull", "me/x", "--max-size", "1.5MiB"]).exit_code == 0
    assert CliRunner().invoke(app, ["pull", "me/x", "--max-size", "many"]).exit_code == 2


def test_contents_that_are_not_what_the_repository_says_are_refused(hub: FakeHub) -> None:
    right = hub.files("me/x")["samples.jsonl"]
    hub.lies["samples.jsonl"] = right.replace(b"red", b"tan")
    with pytest.raises(HubError, match=r"samples\.jsonl .* is damaged"):
        vlmlens.pull("me/x")
    assert not Path("x").exists()
    hub.lies.clear()
    assert vlmlens.pull("me/x").samples[0].label == "red"


def test_an_interrupted_pull_goes_on(hub: FakeHub) -> None:
    hub.fail("GET .*/resolve/.*/spec.yaml", *[500] * 40)
    with pytest.raises(HubError, match="did not do it"):
        vlmlens.pull("me/x")
    assert not Path("x").exists()
    fetched = [each for each in hub.requests if each.startswith("GET") and "/resolve/" in each]
    hub.faults.clear()
    hub.requests.clear()
    got = vlmlens.pull("me/x")
    again = [each for each in hub.requests if each.startswith("GET") and "/resolve/" in each]
    assert len(again) < len(fetched)
    assert got.results
    assert [path.name for path in Path().iterdir()] == ["x"]


def test_what_an_interrupted_pull_left_of_another_commit_is_not_used(hub: FakeHub) -> None:
    hub.fail("GET .*/resolve/.*/spec.yaml", *[500] * 40)
    with pytest.raises(HubError):
        vlmlens.pull("me/x")
    hub.faults.clear()
    left = Path(".x.pulling", "samples.jsonl")
    assert left.exists()
    hostile(hub, samples__jsonl=hub.files("me/x")["samples.jsonl"].replace(b"red", b"tan"))
    assert vlmlens.pull("me/x").samples[0].label == "tan"


def test_links_that_somebody_put_in_the_way_are_not_followed(hub: FakeHub) -> None:
    away = Path("away")
    away.mkdir()
    place = Path(".x.pulling")
    place.mkdir()
    source = {"repo": "me/x", "commit": hub.repos["me/x"].head}
    (place / "pulling.json").write_text(json.dumps(source))
    (place / "results").symlink_to(away.absolute())
    assert vlmlens.pull("me/x").results
    assert list(away.iterdir()) == []
    Path(".y.pulling").symlink_to(away.absolute())
    with pytest.raises(RunExists, match="in the way"):
        vlmlens.pull("me/x", "y")
    assert list(away.iterdir()) == []


def test_large_files_are_fetched_too(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmlens.sharing._pull._SMALL", 100)
    assert vlmlens.pull("me/x").results
    hub.lies["samples.jsonl"] = b"x"
    with pytest.raises(HubError):
        vlmlens.pull("me/x", "y")


def test_folders_that_exist_are_left_alone(hub: FakeHub) -> None:
    Path("full").mkdir()
    Path("full", "mine.txt").write_text("mine")
    Path("file").write_text("mine")
    Path("link").symlink_to("full")
    Path("empty").mkdir()
    for name in ("full", "file", "link"):
        with pytest.raises(RunExists, match="--to"):
            vlmlens.pull("me/x", name)
    assert hub.requests == []
    assert vlmlens.pull("me/x", "empty").results
    hub.requests.clear()
    assert vlmlens.pull("me/x", "empty").results
    assert not any("resolve" in request for request in hub.requests)
    hostile(hub, generated__jsonl=None)
    with pytest.raises(RunExists, match="not this run at this commit"):
        vlmlens.pull("me/x", "empty")
    first = list(hub.repos["me/x"].commits)[1]
    assert vlmlens.pull("me/x", "empty", revision=first).generated


def test_two_pulls_to_one_folder_do_not_mix(hub: FakeHub) -> None:
    from vlmlens.sharing._pull import _place

    source = {"repo": "me/x", "commit": hub.repos["me/x"].head}
    with _place(Path("x"), source), pytest.raises(StoreLocked):
        vlmlens.pull("me/x")
    assert vlmlens.pull("me/x").results


def test_repositories_that_are_not_there(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubError, match="There is no dataset 'me/none'"):
        vlmlens.pull("me/none")
    with pytest.raises(HubError, match="no such branch"):
        vlmlens.pull("me/x", revision="v9")
    hub.repos["me/x"].private = True
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match="none that you may see"):
        vlmlens.pull("me/x")


def test_a_run_without_pictures_and_activations_comes_back_too(
    sent: tuple[Run, Repo], hub: FakeHub
) -> None:
    vlmlens.push(sent[0], "me/y")
    got = vlmlens.pull("me/y")
    assert to_json(got.results["toy"]) == to_json(sent[0].results["toy"])
    assert len({sample.images for sample in got.samples}) == 2
    looks = (["show", "y"], ["report", "y"], ["verify", "y"], ["compare", "y", str(sent[0].path)])
    for command in looks:
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, (command, done.output)
    assert to_json(found(title="other")) != to_json(got.results["toy"])
