"""A run of somebody else is read, and does nothing else: no code, no network, no other files."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shlex
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vlmlens
from vlmlens.abc.storage import ColumnBlock, Values
from vlmlens.cli._options import SpecFlags
from vlmlens.compose.sample_reading import read_samples
from vlmlens.errors import (
    ImageError,
    RunError,
    SpecError,
    StoreError,
    UntrustedRun,
    VlmlensError,
)
from vlmlens.registry import Registry, names_file
from vlmlens.runner.bare_store import run_beside
from vlmlens.runner.run_report import render_again
from vlmlens.runs.run import Run
from vlmlens.runs.signing import KEY, is_own, signature
from vlmlens.runs.trust import with_whole_paths
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec, read_yaml
from vlmlens.transfer import origin_of

COLUMN = "llm.block.1/last"
ROWS = ColumnBlock(("a", "b"), {COLUMN: Values(np.ones((2, 3), np.float32), "float32")})
EVIL = """
from pathlib import Path
Path({mark!r}).touch()
from vlmlens_plugins.storage.sqlite import SqliteStore as S
from vlmlens_plugins.demo.adapter import DemoAdapter as A
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key of this test's own."""
    monkeypatch.setenv("VLMLENS_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "state"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "private.png"
    Image.new("RGB", (8, 8), "red").save(path)
    return path


def made(folder: Path, picture: Path, **spec: Any) -> Run:
    run = Run.create(folder, make_spec({"storage": "sqlite", **spec}), {"state": "finished"})
    run.write_samples([Sample("a", "What?", (str(picture),), label="x"), Sample("b", "?")])
    with run.store(mode="a") as store:
        store.write(ROWS)
    run.update(columns=[COLUMN])
    return Run(folder)


def received(folder: Path, state: Path) -> Run:
    """The same run, for a user who has another key."""
    (state / KEY).write_bytes(bytes(32))
    return Run(folder)


def edited(run: Run, **values: Any) -> Run:
    text = make_spec({**read_yaml(run.path / "spec.yaml"), **values}).to_yaml()
    (run.path / "spec.yaml").write_text(text)
    return Run(run.path)


def looks(run: Run) -> dict[str, Callable[[], Any]]:
    """Everything that only looks at a run."""
    registry = Registry.default()

    def origin() -> Any:
        with origin_of(registry, str(run.path)) as found:
            return found.about()

    return {
        "store": lambda: run.store().close(),
        "activations": lambda: run.activations[COLUMN],
        "analyze": lambda: vlmlens.analyze(run, "logit-lens"),
        "own analyses": lambda: vlmlens.analyze(str(run.path)),
        "report": lambda: render_again(run),
        "export": lambda: vlmlens.export(run, run.path.parent / "out.npz"),
        "origin": origin,
        "samples": lambda: [sample.open_images() for sample in run.samples],
        "as data": lambda: read_samples(make_spec({"data": str(run.path)}), registry),
        "facts": lambda: (run.facts, run.results, run.overview, repr(run), run._repr_html_()),
        "compare": lambda: vlmlens.compare(run, run),
    }


def test_a_run_of_this_user_is_trusted_and_stays_so_when_moved(
    tmp_path: Path, state: Path, picture: Path
) -> None:
    run = made(tmp_path / "a", picture)
    assert run.trusted
    moved = Run(shutil.move(run.path, tmp_path / "moved"))
    assert moved.trusted
    assert moved.samples[0].open_images()[0].size == (8, 8)
    assert (state / KEY).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", ["spec", "signature", "stolen", "missing", "no key"])
def test_an_edited_run_is_not(tmp_path: Path, state: Path, picture: Path, change: str) -> None:
    run = made(tmp_path / "a", picture)
    other = made(tmp_path / "b", picture, seed=3)
    if change == "spec":
        edited(run, seed=7)
    elif change == "signature":
        run.update(signed={"spec.yaml": "0" * 64})
    elif change == "stolen":
        run.update(signed=other.info["signed"])
    elif change == "missing":
        run.update(signed=["spec.yaml"])
    else:
        (state / KEY).unlink()
    assert not Run(run.path).trusted
    assert Run(run.path, trust=True).trusted
    assert pickle.loads(pickle.dumps(Run(run.path, trust=True))).trusted


PLACES = [
    {"storage": "evil.py:S"},
    {"storage": "./evil.py:S"},
    {"storage": "evil.py:S://x"},
    {"storage": "evil.py:S+http://x"},
    {"adapter": "evil.py:A"},
    {"extractor": "evil.py:A"},
    {"analysis": {"evil.py:A": {}}},
    {"analysis": {"evil.py": {}}},
    {"analysis": {"probe": {"explainer": "evil.py:tell"}}},
    {"data": "evil.py:A:x"},
]


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_files_that_a_received_run_names_are_not_imported(
    tmp_path: Path, state: Path, picture: Path, place: dict[str, Any]
) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(EVIL.format(mark=str(mark)))
    run = edited(made(tmp_path / "a", picture), **place)
    for name, look in looks(run).items():
        with suppress(VlmlensError):
            look()
        assert not mark.exists(), name


@pytest.mark.parametrize("place", [PLACES[0], PLACES[2]], ids=str)
def test_the_error_says_what_is_refused_and_the_flag_allows_it(
    tmp_path: Path, state: Path, picture: Path, place: dict[str, Any]
) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(EVIL.format(mark=str(mark)))
    run = edited(made(tmp_path / "a", picture), **place)
    with pytest.raises(UntrustedRun, match=r"storage: evil.py:S.*--trust") as caught:
        run.store()
    assert caught.value.exit_code == 2
    with suppress(SpecError, StoreError):  # the class may not suit what is stored
        Run(run.path, trust=True).store().close()
    assert mark.exists()


@pytest.mark.parametrize(
    "place",
    [
        {"adapter": "hf", "model": "ck", "trust_remote_code": True},
        {"adapter": "hf", "model": "someone/model"},
        {"options": {"plugins": {"run-log": {"to": "wandb", "online": True}}}},
    ],
    ids=str,
)
def test_analyses_neither_run_remote_code_nor_go_online(
    tmp_path: Path, state: Path, picture: Path, place: dict[str, Any]
) -> None:
    (tmp_path / "ck").mkdir()
    run = edited(made(tmp_path / "a", picture), **place)
    with pytest.raises(UntrustedRun):
        vlmlens.analyze(run, "logit-lens")


@pytest.mark.parametrize(
    "uri", ["zarr+http://127.0.0.1:9/x", "zarr+s3://b/x", "sqlite:////etc/x.db", "zarr://h/x"]
)
def test_places_elsewhere_are_not_opened(
    tmp_path: Path, state: Path, picture: Path, uri: str
) -> None:
    run = edited(made(tmp_path / "a", picture), storage=uri)
    with pytest.raises(UntrustedRun, match="storage"):
        run.store()


def test_shards_are_judged_one_by_one(tmp_path: Path, state: Path, picture: Path) -> None:
    run = made(tmp_path / "a", picture)
    shard = made(run.path / "shards" / "0-of-1", picture)
    run.store().close()
    edited(shard, storage="evil.py:S")
    with pytest.raises(UntrustedRun, match="0-of-1"):
        Run(run.path).store()


def test_code_in_the_folder_of_a_run_is_not_covered_by_its_signature(
    tmp_path: Path, state: Path, picture: Path
) -> None:
    run = Run.create(tmp_path / "a", make_spec({"storage": f"{tmp_path}/a/x.py:S"}), {})
    (run.path / "x.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UntrustedRun, match=r"x\.py:S"):
        Run(run.path).store()


def test_a_spec_names_code_by_whole_paths(state: Path, tmp_path: Path) -> None:
    """Else a file of that name beside a received run would be taken for the user's own."""
    (tmp_path / "ck").mkdir()
    spec = make_spec(
        {
            "storage": "mine.py:S",
            "analysis": {
                "./x.pyz/mine.py:A": {"k": 1},
                "probe": {},
                "sae": {"explainer": "mine.py:tell"},
            },
            "data": "rows.py:R:a.py",
            "model": "ck",
            "trust_remote_code": True,
        }
    )
    found = with_whole_paths(spec)
    assert found.storage == f"{tmp_path}/mine.py:S"
    assert found.analysis == {
        f"{tmp_path}/x.pyz/mine.py:A": {"k": 1}, "probe": {},
        "sae": {"explainer": f"{tmp_path}/mine.py:tell"},
    }  # fmt: skip
    assert found.data == f"{tmp_path}/rows.py:R:a.py"
    assert found.model == str(tmp_path / "ck")
    assert with_whole_paths(make_spec({"model": "ck"})).model == "ck"


OUTSIDE = ["{secret}", "private.png", "a/../private.png", "sha256:../../private"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_pictures_elsewhere_are_not_opened(
    tmp_path: Path, state: Path, picture: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = made(tmp_path / "a", picture)
    (run.path / "images").mkdir()
    record = {**run.sample_records()[0], "images": [name.format(secret=picture)]}
    (run.path / "samples.jsonl").write_text(json.dumps(record) + "\n")
    logging.getLogger("vlmlens").addHandler(caplog.handler)
    try:
        (sample,) = Run(run.path).samples
    finally:
        logging.getLogger("vlmlens").removeHandler(caplog.handler)
    with pytest.raises(ImageError):
        sample.open_images()
    assert "pictures of 1 samples" in caplog.text
    assert "--trust" in caplog.text
    (allowed,) = Run(run.path, trust=True).samples
    assert allowed.open_images()[0].size == (8, 8)


def test_links_out_of_the_folder_are_refused(tmp_path: Path, state: Path, picture: Path) -> None:
    run = made(tmp_path / "a", picture)
    (run.path / "images").mkdir()
    (run.path / "images" / "x.png").symlink_to(picture)
    record = {**run.sample_records()[0], "images": [str(run.path / "images" / "x.png")]}
    (run.path / "samples.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(ImageError):
        Run(run.path).samples[0].open_images()
    (tmp_path / "elsewhere").mkdir()
    (run.path / "results").symlink_to(tmp_path / "elsewhere")
    assert Run(run.path).trusted
    with pytest.raises(UntrustedRun, match="results"):
        received(run.path, state)


def test_pipes_in_a_run_are_refused(tmp_path: Path, state: Path, picture: Path) -> None:
    run = made(tmp_path / "a", picture)
    (run.path / "samples.jsonl").unlink()
    os.mkfifo(run.path / "samples.jsonl")
    with pytest.raises(RunError, match="neither a file nor a folder"):
        Run(run.path)


def test_commands_that_are_shown_do_only_what_they_say(
    tmp_path: Path, state: Path, picture: Path
) -> None:
    """They are meant to be copied into a shell."""
    from vlmlens.cli._results import next_steps
    from vlmlens.report.files import write_result
    from vlmlens.results import Result
    from vlmlens.runner.run_report import command_of

    run = edited(made(tmp_path / "a", picture), adapter="none", data="x; touch RAN #")
    write_result(Result("norms; touch RAN #", "Norms"), run.path / "results")
    for line in (*next_steps(run), command_of(run)):
        assert "touch" not in shlex.split(line, comments=True)[:1] + [
            word for word in shlex.split(line) if word == "touch"
        ]
    assert "vlmlens analyze 'x; touch RAN #'" in command_of(run)


def test_an_export_keeps_the_paths_of_pictures(tmp_path: Path, state: Path, picture: Path) -> None:
    run = made(tmp_path / "a", picture)
    theirs = received(run.path, state)
    with origin_of(Registry.default(), str(theirs.path)) as origin:
        assert origin.about().samples[0].images == (str(picture),)


def test_pictures_of_a_store_elsewhere_are_not_shown(
    tmp_path: Path, state: Path, picture: Path
) -> None:
    (tmp_path / "got").mkdir()
    inside = tmp_path / "got" / "own.png"
    shutil.copy(picture, inside)
    samples = [Sample("a", "?", (str(picture),)), Sample("b", "?", (str(inside),))]
    with (
        Registry.default()
        .load(Registry.default().find(vlmlens.manifest.PluginKind.STORAGE, "sqlite"))
        .open(str(tmp_path / "got" / "x.db"), mode="a", options=_options()) as store
    ):
        store.describe(samples, model="", adapter="")
        store.write(ROWS)
    place = str(tmp_path / "got" / "x.db")
    run = run_beside(place, Registry.default())
    assert [sample.images for sample in run.samples] == [(), (str(inside),)]
    assert "--trust" in run.info["warnings"][0]
    run = run_beside(place, Registry.default(), trust=True)
    assert run.samples[0].images == (str(picture),)


def _options() -> Any:
    from vlmlens_plugins.storage.sqlite import SqliteOptions

    return SqliteOptions()


FILES = {
    "adapter: evil.py:A": "adapter",
    "trust_remote_code: true": "trust_remote_code",
    "analysis: [probe, evil.py:A]": "analysis evil.py:A",
    "analysis: {sae: {explainer: 'evil:tell'}}": "analysis sae, explainer",
    "data: evil.py:A:x": "data",
    "storage: evil.py:S": "storage",
}


@pytest.mark.parametrize("text", FILES)
def test_a_run_file_names_no_code_unless_the_user_says_so(
    text: str, state: Path, tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UntrustedRun) as caught:
        SpecFlags({}, str(file), ()).spec()
    assert FILES[text] in str(caught.value)
    assert SpecFlags({}, str(file), (), trust=True).spec()


def test_what_the_user_types_needs_no_flag(state: Path, tmp_path: Path, picture: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("trust_remote_code: true\nstorage: evil.py:S")
    flags = {"trust_remote_code": True, "storage": "evil.py:S"}
    assert SpecFlags(flags, str(file), ()).spec().trust_remote_code
    assert SpecFlags({"storage": "lmdb"}, str(file), ("trust_remote_code=false",)).spec()
    with pytest.raises(UntrustedRun, match="storage"):
        SpecFlags({"trust_remote_code": True}, str(file), ()).spec()
    assert SpecFlags({"adapter": "evil.py:A"}, None, ("storage=evil.py:S",)).spec()


def test_the_spec_of_a_run_of_this_user_is_a_trusted_run_file(
    state: Path, tmp_path: Path, picture: Path
) -> None:
    run = Run.create(tmp_path / "a", make_spec({"storage": "evil.py:S"}), {})
    spec = str(run.path / "spec.yaml")
    assert SpecFlags({}, spec, ()).spec().storage == "evil.py:S"
    copied = shutil.copy(spec, tmp_path / "spec.yaml")
    with pytest.raises(UntrustedRun):
        SpecFlags({}, str(copied), ()).spec()


def test_an_edited_working_folder_leads_to_no_other_remote_code(
    tmp_path: Path, state: Path
) -> None:
    spec = make_spec({"adapter": "hf", "model": "org/name", "trust_remote_code": True})
    run = Run.create(tmp_path / "a", spec, {})
    (tmp_path / "theirs" / "org" / "name").mkdir(parents=True)
    run.update(working_folder=str(tmp_path / "theirs"))
    assert Run(run.path).trusted
    assert Run(run.path).spec.model == "org/name"


@pytest.mark.parametrize("links", [True, False])
def test_processes_that_begin_at_once_share_one_key(
    links: bool, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(path: Path, target: Path) -> None:
        raise PermissionError("no links here")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", no_links)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: signature("a", b"b"), range(8 if links else 1)))
    assert len(set(made)) == 1
    assert made[0] == signature("a", b"b")
    assert [path.name for path in state.iterdir()] == [KEY]


def test_without_a_place_for_the_key_runs_are_made_all_the_same(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLMLENS_STATE", "/dev/null/state")
    run = made(tmp_path / "a", picture)
    assert not run.trusted
    run.store().close()
    assert not is_own(run.path, "spec.yaml")


@pytest.mark.parametrize(
    ("name", "file"),
    [("a.py", True), ("a.py:S://x", True), ("a.py+x://y", True), ("a.pyx", False), ("hf", False)],
)
def test_names_of_files(name: str, file: bool) -> None:
    assert names_file(name) is file
