"""What keeps runs of very many samples small: packed samples, images read once, what is missing."""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import sqlite3
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests._program import python

import vlmlens.compose.image_cache as image_cache
from vlmlens import Run
from vlmlens.compose.image_check import check_images
from vlmlens.compose.plan import Plan, compose
from vlmlens.errors import FingerprintMismatch, ImageError, RunError
from vlmlens.images import ImageRules
from vlmlens.registry import Registry
from vlmlens.runner.execution import execute
from vlmlens.runner.missing import Missing
from vlmlens.sample_table import SampleTable, Seen
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec

ROOT = Path(__file__).parents[2]
SITES = ["llm.block.0/last", "llm.block.1/last"]


def sample(number: int, **values: Any) -> Sample:
    known: dict[str, Any] = {"label": "red", "choices": ("red", "blue"), "task": f"t{number % 3}"}
    chosen = {**known, "attributes": {"x": 0.1 * number, "none": None, "ok": True}, **values}
    return Sample(f"s{number}", f"Wer ist {number}? é漢", (f"/p/{number}.png",), **chosen)


def test_a_table_is_like_a_list() -> None:
    given = [sample(i, rules=ImageRules(bits=12)) if i == 70 else sample(i) for i in range(200)]
    table = SampleTable(iter(given))
    assert list(table) == given
    assert table == given
    assert table != given[:-1]
    assert table != [*given[:-1], given[0]]
    assert (len(table), table.ids) == (200, [each.id for each in given])
    assert [table[i] for i in (0, 63, 64, 199, -1)] == [given[i] for i in (0, 63, 64, 199, -1)]
    for part in (
        slice(3),
        slice(60, 70),
        slice(128, 192),
        slice(199, 500),
        slice(9, 2),
        slice(0, 99, 7),
    ):
        assert table[part] == given[part], part
    with pytest.raises(IndexError):
        table[200]
    assert [len(some) for some in table.slices(90)] == [90, 90, 20]
    assert table.get("s64") == given[64]
    assert table.get("x") is None
    assert table.tasks["t1"] == 67
    assert pickle.loads(pickle.dumps(table)) == given
    assert not SampleTable()


def test_images_in_memory_and_odd_values_stay_as_they_are() -> None:
    picture = Image.new("RGB", (2, 2))
    given = [sample(0), replace(sample(1), images=(picture,)), sample(2, attributes={"x": {1, 2}})]
    table = SampleTable(given)
    assert table[1].images[0] is picture
    assert list(table) == given


def test_a_table_takes_a_fraction_of_the_memory() -> None:
    held = sum(sys.getsizeof(chunk) for chunk in SampleTable(map(sample, range(6400)))._chunks)
    assert held < 60 * 6400


def test_what_was_seen_goes_with_the_samples() -> None:
    table = SampleTable(map(sample, range(100)))
    table.seen = Seen(range(100), range(100, 200), (f"{i:032x}" for i in range(100)))
    kept = table.without({"s0", "s50"})
    assert kept.ids[0] == "s1"
    assert len(kept) == 98
    assert kept.seen is not None
    assert (kept.seen.areas[49], kept.seen.sides[49]) == (51, 151)
    assert kept.seen.fingerprint(49) == f"{51:032x}"
    assert table.without(()) is table


class Store:
    """A store that has some samples."""

    def __init__(self, **columns: str) -> None:
        self._columns = columns

    def columns(self) -> list[Any]:
        return [type("Info", (), {"name": n, "samples": len(i)}) for n, i in self._columns.items()]

    def ids(self, column: str) -> list[str]:
        return list(self._columns[column])


def test_missing_columns_of_each_sample() -> None:
    samples = SampleTable(Sample(name, "?") for name in "abcde")
    columns = ["x", "y", "z", "new", "none"]
    store: Any = Store(x="edcba", y="ca", z="caq", none="")
    found = Missing.of(store, columns, samples)
    have = {name: set(store._columns.get(name, "")) for name in columns}
    wanted = [tuple(n for n in columns if each not in have[n]) for each in samples.ids]
    assert list(found) == wanted
    assert found[1:3] == wanted[1:3]
    assert not found.nothing
    assert Missing.of(store, ["x"], samples).nothing
    many: Any = Store(
        **{f"c{i}": "".join(n for k, n in enumerate("abcde") if (i >> k) & 1) for i in range(32)}
    )
    names = [f"c{i}" for i in range(32)] * 3
    found = Missing.of(many, names, samples)
    assert found[0] == tuple(name for name in names if "a" not in many.ids(name))
    assert len({*found}) == 5


@contextmanager
def opened(folder: Path) -> Iterator[Counter[str]]:
    """How often each file of a folder is opened.

    An audit hook would stay to the end of the process, and disturb the tracing of coverage there.
    """
    counts: Counter[str] = Counter()

    def heard(opens: Callable[..., Any]) -> Callable[..., Any]:
        def hear(file: Any, *args: Any, **named: Any) -> Any:
            if str(file).startswith(str(folder)):
                counts[Path(file).name] += 1
            return opens(file, *args, **named)

        return hear

    with pytest.MonkeyPatch.context() as patch:
        for module in (builtins, io, os):
            patch.setattr(module, "open", heard(module.open))
        yield counts


def pictures(folder: Path, count: int = 12) -> Path:
    """A table of samples, two of each image; the images were made long ago."""
    folder.mkdir()
    rows = []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.new("RGB", (64, 64), (number * 9, 40, 90)).save(path)
        rows += [{"id": f"{number}-{k}", "image": path.name, "prompt": f"What{k}?"} for k in (0, 1)]
    table = folder / "table.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return table


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files that a test just made count as made long ago, and the cache is empty."""
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(image_cache, "SETTLED", -60.0)
    monkeypatch.setattr("vlmlens.compose.recall.SETTLED", -60.0)


def plan(table: Path, out: Path, **values: Any) -> Plan:
    chosen = {"data": str(table), "out": str(out), "sites": SITES, "batch_size": 8, **values}
    return compose(make_spec(chosen), Registry.default(), analyse=False)


@pytest.mark.usefixtures("settled")
def test_each_image_is_read_once_in_all(tmp_path: Path) -> None:
    table = pictures(tmp_path / "data")
    samples = [Sample(f"{i}", "?", (str(tmp_path / f"data/{i % 12}.png"),)) for i in range(600)]
    with opened(tmp_path / "data") as counts:
        found = check_images(samples)
    assert counts == {f"{i}.png": 1 for i in range(12)}
    assert found.seen.areas == array("Q", [64 * 64] * 600)
    assert found.seen.fingerprint(13) == samples[13].fingerprint()

    with opened(tmp_path / "data") as counts:
        made = plan(table, tmp_path / "run")
        run = execute(made, extract_only=True)
    probed = (
        3  # samples that are encoded to see whether the model takes them, and how long they are
    )
    assert 0 < sum(counts[f"{i}.png"] - 1 for i in range(12)) <= probed + 2 * 6
    assert made.samples.seen is not None
    records = run.sample_records()
    assert {(each["pixels"], each["side"]) for each in records} == {(64 * 64, 64)}
    assert [each["fingerprint"] for each in records] == [s.fingerprint() for s in run.samples]
    assert run.samples.seen is not None
    assert list(run.samples.seen.areas) == list(made.samples.seen.areas)


@pytest.mark.usefixtures("settled")
def test_a_resumed_run_reads_nothing_again(tmp_path: Path) -> None:
    table, out = pictures(tmp_path / "data"), tmp_path / "run"
    first = execute(plan(table, out), extract_only=True)
    written = (out / "samples.jsonl").stat()
    with opened(tmp_path / "data") as counts:
        made = plan(table, out)
        again = execute(made, mode="resume", extract_only=True)
    assert made.recalled
    assert counts == {"table.jsonl": 1}  # its digest
    assert (out / "samples.jsonl").stat().st_ino == written.st_ino
    assert again.samples == first.samples
    assert again.info["signed"] == first.info["signed"]
    assert (
        execute(plan(table, out), mode="resume", extract_only=True).own_samples() == first.samples
    )


@pytest.mark.usefixtures("settled")
def test_another_process_finds_nothing_changed(tmp_path: Path) -> None:
    table, out = pictures(tmp_path / "data"), tmp_path / "run"
    execute(plan(table, out), extract_only=True)
    code = """if True:
        import sys
        from pathlib import Path
        from tests.unit.test_many_samples import plan
        assert plan(Path(sys.argv[1]), Path(sys.argv[2])).recalled
    """
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = python(code, str(table), str(out), cwd=Path.cwd(), PYTHONPATH=path)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("settled")
def test_whatever_changes_is_looked_at_again(tmp_path: Path) -> None:
    table, out = pictures(tmp_path / "data"), tmp_path / "run"
    execute(plan(table, out), extract_only=True)
    assert plan(table, out).recalled
    assert not plan(table, out, limit=20).recalled
    assert not plan(table, out, max_pixels=10_000).recalled
    assert not plan(table, tmp_path / "other").recalled
    info = json.loads((out / "run.json").read_text())
    forged = {**info, "planned": {**info["planned"], "guesses": ["forged"]}}
    (out / "run.json").write_text(json.dumps(forged))
    assert not plan(table, out).recalled
    (out / "run.json").write_text(json.dumps(info))
    assert plan(table, out).recalled
    text = (out / "samples.jsonl").read_text()
    (out / "samples.jsonl").write_text(text.replace("What0?", "Why00?", 1))
    assert not plan(table, out).recalled
    (out / "samples.jsonl").write_text(text)
    rows = table.read_text()
    table.write_text(rows.replace("What0?", "Why00?", 1))
    assert not plan(table, out).recalled
    table.write_text(rows)
    picture = tmp_path / "data" / "3.png"
    before, old = picture.stat(), picture.read_bytes()
    changed = old[:-40] + bytes(40)
    picture.write_bytes(changed)
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert picture.stat().st_size == before.st_size
    with pytest.raises(ImageError, match=r"3\.png"):
        plan(table, out)
    Image.new("RGB", (64, 64), (1, 2, 3)).save(picture)
    made = plan(table, out)
    assert not made.recalled
    with pytest.raises(FingerprintMismatch, match="another prompt or image"):
        execute(made, mode="resume", extract_only=True)


@pytest.mark.usefixtures("settled")
def test_a_killed_check_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path / "data")
    samples = [Sample(f"{i}", "?", (str(tmp_path / f"data/{i}.png"),)) for i in range(12)]
    monkeypatch.setattr("vlmlens.compose.image_check._AT_ONCE", 4)

    def killed(done: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_images(samples, advance=killed)
    with opened(tmp_path / "data") as counts:
        assert check_images(samples).bad == []
    assert counts == {f"{i}.png": 1 for i in range(8, 12)}


@pytest.mark.usefixtures("settled")
def test_bad_images_are_looked_at_again(tmp_path: Path) -> None:
    pictures(tmp_path / "data", 2)
    bad = tmp_path / "data" / "0.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:-30])
    samples = [Sample(f"{i}", "?", (str(tmp_path / f"data/{i}.png"),)) for i in range(2)]
    assert [each.id for each in check_images(samples).bad] == ["0"]
    bad.write_bytes(whole)
    assert check_images(samples).bad == []
    assert [each.id for each in check_images(samples, max_pixels=64 * 63).bad] == ["0", "1"]


def test_an_image_that_may_still_change_is_not_remembered(tmp_path: Path) -> None:
    pictures(tmp_path / "data", 1)
    samples = [Sample("a", "?", (str(tmp_path / "data/0.png"),))]
    for _ in range(2):
        os.utime(tmp_path / "data" / "0.png")
        with opened(tmp_path / "data") as counts:
            check_images(samples)
        assert counts == {"0.png": 1}


@pytest.mark.usefixtures("settled")
def test_a_cache_that_cannot_be_used_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path / "data", 2)
    samples = [Sample(f"{i}", "?", (str(tmp_path / f"data/{i}.png"),)) for i in range(2)]
    (tmp_path / "cache").mkdir()
    file = tmp_path / "cache" / "image-check-1.sqlite"
    file.write_bytes(b"no database at all, however long it is" * 40)
    assert check_images(samples).bad == []
    file.unlink()
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE images (path TEXT)")
    other.close()
    assert check_images(samples).bad == []
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path / "data" / "0.png"))
    assert check_images(samples).bad == []
    assert caplog.text.count("not kept for later runs") == 3


def test_runs_of_older_versions_are_read(tmp_path: Path) -> None:
    table, out = pictures(tmp_path / "data"), tmp_path / "run"
    run = execute(plan(table, out), extract_only=True)
    records = run.sample_records()
    lines = [{k: v for k, v in each.items() if k not in ("pixels", "side")} for each in records]
    (out / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    info = {k: v for k, v in run.info.items() if k not in ("images", "planned")}
    (out / "run.json").write_text(json.dumps(info))
    old = Run(out, trust=True)
    assert old.samples == run.samples
    assert old.samples.seen is None
    assert execute(plan(table, out), mode="resume", extract_only=True).samples == run.samples


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    run = execute(plan(pictures(tmp_path / "data"), tmp_path / "run"), extract_only=True)
    lines = (run.path / "samples.jsonl").read_bytes().splitlines(keepends=True)
    for damage in (b"{", b"[1]\n", b'{"id": 1}\n', b"\n", lines[4].strip() + b"," + lines[5]):
        (run.path / "samples.jsonl").write_bytes(b"".join([*lines[:4], damage, *lines[5:]]))
        with pytest.raises(RunError, match="line 5 "):
            _ = Run(run.path, trust=True).samples
    (run.path / "samples.jsonl").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(RunError, match="24 were written"):
        _ = Run(run.path, trust=True).samples
