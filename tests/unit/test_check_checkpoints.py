"""scripts/check_checkpoints: which checkpoints are there, what fits, what is kept, what is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from scripts import models_page
from scripts.check_checkpoints import page, telling
from scripts.check_checkpoints.__main__ import main
from scripts.check_checkpoints.listed import Listed, listed
from scripts.check_checkpoints.machine import KIT, fit
from scripts.check_checkpoints.places import TINY, Place, find
from scripts.check_checkpoints.records import Record, Records, held, version_of
from scripts.check_checkpoints.small_runs import SMALL, analyses, small_run
from scripts.check_checkpoints.tiny import suites

from vlmlens.errors import RunError, SpecError
from vlmlens.manifest import Checkpoint, Manifest, PluginKind
from vlmlens.registry import Registry

_ADAPTER = Manifest(PluginKind.ADAPTER, "x", "x:Y", "")
_GB = 10**9


def _weights(folder: Path, shape: tuple[int, ...], *, name: str = "model.safetensors") -> Place:
    """A folder with a config and a safetensors file whose header says a shape; it has no data."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]}}).encode()
    (folder / name).write_bytes(len(header).to_bytes(8, "little") + header)
    return Place(folder)


def _one(*, parameters: float | None = None, gated: bool = False) -> Listed:
    return Listed(_ADAPTER, Checkpoint("org/name", parameters=parameters, gated=gated))


def _record(step: str, outcome: Any = "passed", **other: Any) -> Record:
    under = {"digest": "d", "versions": {"torch": "2"}, "device": "cpu"}
    given: dict[str, Any] = {"text": "ok", "under": under, "full": True, **other}
    return Record("org/name", "x", step, outcome, **given)


# ------------------------------------------------------------------ which, and where


def test_checkpoints_are_those_of_the_manifests_and_can_be_chosen() -> None:
    everything = listed()
    on_the_page = [c.id for m in models_page.manifests() for c in m.checkpoints]
    assert [one.id for one in everything] == on_the_page
    assert {one.adapter.name for one in listed(family="siglip")} == {"clip"}
    assert "not installed" not in {version_of(one.distribution) for one in everything}
    assert [one.id for one in listed(only=["QWEN2-vl-2b*"])] == ["Qwen/Qwen2-VL-2B-Instruct"]
    for wrong in ({"family": "lava"}, {"only": ["no-such*"]}, {"family": "hf"}):
        with pytest.raises(SpecError):
            listed(**wrong)  # type: ignore[arg-type]


def test_every_family_has_tiny_copies_of_listed_checkpoints() -> None:
    copied = []
    for adapter in {one.adapter.name: one.adapter for one in listed()}.values():
        own = [checkpoint for checkpoint, _ in suites(adapter)]
        assert own, adapter.name
        assert set(own) <= {checkpoint.id for checkpoint in adapter.checkpoints}
        copied += own
    assert len(copied) == len(set(copied))


def test_a_checkpoint_is_found_in_both_layouts(tmp_path: Path) -> None:
    assert find(tmp_path, "org/name") is None
    cached = tmp_path / "models--org--name"
    (cached / "snapshots").mkdir(parents=True)
    assert find(tmp_path, "org/name") is None
    for revision in ("aaa", "bbb"):
        _weights(cached / "snapshots" / revision, (1,))
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("aaa\n")
    found = find(tmp_path, "org/name")
    assert found is not None
    assert (found.folder.name, found.revision) == ("aaa", "aaa")
    _weights(tmp_path / "org/name", (1,))
    plain = find(tmp_path, "org/name")
    assert plain == Place(tmp_path / "org/name")


@pytest.mark.parametrize("said", ["../../../else", "..", ".", "", "{tmp}/else", "\udcff", "zzz"])
def test_a_branch_never_leads_out_of_the_snapshots(tmp_path: Path, said: str) -> None:
    _weights(tmp_path / "else", (1,))
    cached = tmp_path / "models/models--org--name"
    _weights(cached / "snapshots/aaa", (1,))
    (cached / "refs").mkdir()
    text = said.format(tmp=tmp_path).encode(errors="surrogateescape")
    (cached / "refs/main").write_bytes(text)
    found = find(tmp_path / "models", "org/name")
    assert found is not None
    assert found.folder == cached / "snapshots/aaa"


def test_a_partial_download_is_not_run(tmp_path: Path) -> None:
    place = _weights(tmp_path, (10,), name="model-1.safetensors")
    names = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (tmp_path / "model-2.safetensors").symlink_to(tmp_path / "blobs/not-there-yet")
    found = fit(_one(), place, 100 * _GB, _GB)
    for step in (KIT, "probe"):
        assert "has 1 of the 2 files of weights" in found.reason(step)
    (tmp_path / "model-2.safetensors").unlink()
    whole = _weights(tmp_path, (10,), name="model-2.safetensors")
    assert not fit(_one(), whole, 100 * _GB, _GB).reason(KIT)


@pytest.mark.parametrize("cached", [False, True])
def test_tiny_copies_never_take_the_place_of_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cached: bool
) -> None:
    (one,) = (each for each in listed("clip") if each.id == suites(each.adapter)[0][0])
    name = f"models--{one.slug}/snapshots/abc" if cached else one.id
    place = _weights(tmp_path / name, (3,))
    before = place.digest()
    assert main(["tiny", str(tmp_path), "--only", one.id]) == 2
    assert "no tiny copy of it" in capsys.readouterr().err
    assert place.digest() == before
    assert [path.name for path in tmp_path.iterdir()] == [name.partition("/")[0]]


def test_sizes_come_from_headers_and_damaged_ones_are_not_trusted(tmp_path: Path) -> None:
    place = _weights(tmp_path / "a", (3, 1000))
    (place.folder / "pytorch_model.bin").write_bytes(b"x" * 5000)
    assert place.parameters == 3000
    (tmp_path / "b").mkdir()
    (tmp_path / "b/model.safetensors").write_bytes(b"\xff" * 64)
    assert Place(tmp_path / "b").parameters == 0
    (tmp_path / "b/model.safetensors").unlink()
    (tmp_path / "b/consolidated.00.pth").write_bytes(b"x" * 100)
    assert Place(tmp_path / "b").parameters == 50


def test_copies_of_the_same_weights_count_once(tmp_path: Path) -> None:
    for name in ("model-1.safetensors", "model-2.safetensors", "consolidated.safetensors"):
        _weights(tmp_path, (10,), name=name)
    assert Place(tmp_path).parameters == 30
    index = tmp_path / "model.safetensors.index.json"
    for damaged in ("{", "[]", '{"weight_map": 3}'):
        index.write_text(damaged)
        assert Place(tmp_path).parameters == 30
    files = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "../../else.safetensors"}
    index.write_text(json.dumps({"weight_map": files}))
    assert Place(tmp_path).parameters == 20
    index.unlink()
    _weights(tmp_path, (7,))
    assert Place(tmp_path).parameters == 7


def test_a_digest_changes_with_any_file(tmp_path: Path) -> None:
    place = _weights(tmp_path, (4,))
    seen = {place.digest()}
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/tokenizer.json").write_text("{}")
    seen.add(place.digest())
    (tmp_path / "sub/tokenizer.json").write_text("[]")
    seen.add(place.digest())
    assert len(seen) == 3
    assert place.digest() in seen


# ------------------------------------------------------------------ what fits


def test_the_kit_needs_more_memory_than_the_rest(tmp_path: Path) -> None:
    place = _weights(tmp_path, (1000, _GB // 1000))
    with (tmp_path / "model.safetensors").open("ab") as file:
        file.truncate(2 * _GB)
    small, between, large = (fit(_one(), Place(place.folder), m * _GB, 0) for m in (2, 5, 10))
    assert small.reason(KIT)
    assert "2.6 GB" in small.reason("probe")
    assert (bool(between.reason(KIT)), between.reason("probe")) == (True, "")
    assert (large.reason(KIT), large.reason("probe")) == ("", "")


def test_what_is_not_here_says_its_size_the_disk_and_whether_it_is_gated(tmp_path: Path) -> None:
    said = fit(_one(parameters=7, gated=True), None, 0, 10 * _GB).reason("probe")
    assert all(part in said for part in ("not here", "14.0 GB", "10.0 GB of disk", "gated"))
    assert fit(_one(parameters=1), None, 0, 10 * _GB).reason(KIT).count("GB") == 1
    (tmp_path / "notes.txt").write_text("")
    assert "no config.json" in fit(_one(), Place(tmp_path), _GB, 0).reason(KIT)
    (tmp_path / "config.json").write_text("{}")
    assert "no weights" in fit(_one(), Place(tmp_path), _GB, 0).reason(KIT)


def test_a_tiny_copy_is_never_the_full_checkpoint(tmp_path: Path) -> None:
    small, whole = (
        _weights(tmp_path / "a", (100, 100)),
        _weights(tmp_path / "b", (1000, _GB // 500)),
    )
    assert not small.is_full(0.15)
    assert not small.is_full(None)
    assert whole.is_full(2)
    assert not whole.is_full(7)
    (whole.folder / TINY).write_text("{}")
    assert not whole.is_full(2)


# ------------------------------------------------------------------ what is kept


def test_only_what_passed_under_the_same_conditions_is_kept(tmp_path: Path) -> None:
    records, under = Records(tmp_path), {"digest": "d", "settings": {"heads": (1, 2)}}
    for outcome, kept in (("passed", True), ("not offered", True), ("failed", False)):
        records.write("a", _record("probe", outcome, under=under))
        assert (records.done("a", "probe", under) is not None) is kept
        assert records.done("a", "probe", {**under, "digest": "e"}) is None
    records.write("a", _record("probe", under=under))
    (tmp_path / "state/a/probe.json").write_text('{"step": ')
    assert records.done("a", "probe", under) is None


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(RunError, match="Another process"), held(tmp_path):
        pass
    with held(tmp_path):
        pass


def test_every_installed_analysis_has_a_small_run_with_options_that_it_knows() -> None:
    registry = Registry.default()
    own = {manifest.name: manifest for manifest in analyses(registry)}
    assert set(SMALL) <= set(own)
    for name, small in SMALL.items():
        registry.options(own[name], small.options)
        registry.options(own[name], {**small.options, **small.otherwise})
    assert small_run("a plugin's").data == "demo:scenes"


# ------------------------------------------------------------------ what is told


def test_the_summary_counts_and_names_failures() -> None:
    good, bad = _record(KIT), _record("probe", "failed", text="it broke")
    assert telling.green([good])
    assert not telling.green([good, bad])
    assert not telling.green([])
    assert not telling.green([_record(KIT, "not run")])
    text = telling.summary([good, bad], 3)
    assert "failed: org/name, probe: it broke" in text
    assert "0 of them without a failure" in text
    assert "\x1b" not in telling.line(_record(KIT, text="\x1b[2J"))


@pytest.fixture
def own_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of docs/models.md that may be written, and no table of full checkpoints."""
    copy = tmp_path / "models.md"
    shutil.copy(models_page.PAGE, copy)
    for module in (models_page, page):
        monkeypatch.setattr(module, "PAGE", copy)
        monkeypatch.setattr(module, "CHECKED", tmp_path / "checked.json")
    return copy


def test_the_page_has_full_checkpoints_alone(own_page: Path) -> None:
    copies = [_record(KIT, full=False), _record("probe", full=False)]
    before = own_page.read_text()
    assert page.keep(copies) == 0
    assert own_page.read_text() == before == models_page.page()
    answer = {"answer": "a <b>red|\n`square`", "right": True}
    full = [
        _record(KIT, "failed", data={"passed": 40, "skipped": 0, "failed": 1}),
        _record("probe"), _record("sae", "failed"), _record("look", "not offered"),
        _record("question", data=answer, when="2030-01-02T03:04:05+00:00", commit="abc"),
    ]  # fmt: skip
    assert page.keep([*copies, *full]) == 1
    written = own_page.read_text()
    assert "No full checkpoint" not in written
    (row,) = [line for line in written.splitlines() if line.startswith("| org/name")]
    for part in (
        "`x`", "40 passed, 1 failed", "passed: probe", "failed: sae", "not offered: look",
        r"a \<b\>red\| \`square\` (right)", "2030-01-02, cpu, torch 2 at abc",
    ):  # fmt: skip
        assert part in row, part
    other = [Record(**{**_as_dict(each), "checkpoint": "org/other"}) for each in full]
    page.keep(other)
    assert own_page.read_text().count("| org/") == 2


def _as_dict(record: Record) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(record)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--models", "/no/such/folder"],
        ["--models", ".", "--only", "no-such"],
        ["--models", ".", "--analyses", "prob"],
        ["--models", ".", "--steps", "kits"],
        ["--models", ".", "--device", "gpu"],
        ["tiny", "x", "--family", "lava"],
    ],
)
def test_wrong_input_ends_with_two(
    wrong: list[str], in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(wrong) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not list(in_tmp.iterdir())


def test_where_nothing_is_nothing_is_green(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--models", ".", "--family", "llava"]) == 1
    assert "0 checkpoints were run" in capsys.readouterr().out
    assert main(["--models", ".", "--family", "llava", "--list"]) == 0
    assert capsys.readouterr().out.count("it is not here") == 3
