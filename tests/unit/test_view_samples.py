"""The sample browser: filters by numpy's measure, slices, addresses, hostile data."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image
from tests.unit._view_pages import (
    COLORS,
    EVIL,
    Client,
    Elements,
    all_numbers,
    client_of,
    make_run,
    numbers_in,
    page_of,
    planted,
    planted_results,
    runs_nothing,
    write_results,
)

from vlmlens.results import Result, Table
from vlmlens.runs.stored_samples import StoredSamples
from vlmlens.runs.stored_tables import StoredFile
from vlmlens.samples import Sample
from vlmlens.view import sample_filter

ANSWERS = "blind-test/answers"
ROWS = "/runs/0/samples/rows"


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("planted")
    samples, found = planted(folder / "pictures")
    samples[7] = replace(samples[7], prompt=f"{'long ' * 3_000} ends in Zebrafish")
    samples[9] = replace(samples[9], prompt="Wo steht das GRÖSSTE Ding? 最大")
    run = make_run(folder / "run", samples, planted_results(samples, found))
    return {**found, "samples": samples, "run": run}


@pytest.fixture(scope="module")
def client(values: dict[str, Any]) -> Client:
    return client_of(values["run"])


def where(*conditions: str, **more: str) -> str:
    return urlencode([*(("where", each) for each in conditions), *more.items()])


def bound(values: dict[str, Any]) -> float:
    """A score that a sample has, so that the sign of a comparison matters."""
    return float(np.nanmax(values["score"][:50]))


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (lambda v: where(f"{ANSWERS}/score>={bound(v)}"), lambda v: v["score"] >= bound(v)),
        (lambda v: where(f"{ANSWERS}/score<={bound(v)}"), lambda v: v["score"] <= bound(v)),
        (lambda v: where(f"{ANSWERS}/score={bound(v)}"), lambda v: v["score"] == bound(v)),
        (lambda v: where(f"{ANSWERS}/flipped=yes"), lambda v: np.arange(240) % 5 == 0),
        (lambda v: where(f"{ANSWERS}/answer~RE"), lambda v: np.isin(v["answer"], ["red", "green"])),
        (
            lambda v: where(f"{ANSWERS}/right=right"),
            lambda v: np.array(v["answer"]) == np.array(COLORS)[np.arange(240) % 3],
        ),
        (lambda v: where("shifts/blanks/shift (noise)>=230.5"), lambda v: np.arange(240) >= 230),
        (
            lambda v: where(f"{ANSWERS}/score>=0.5", f"{ANSWERS}/answer=red", task="shape"),
            lambda v: (
                (v["score"] >= 0.5) & (np.array(v["answer"]) == "red") & (np.arange(240) % 2 == 1)
            ),
        ),
        (lambda v: "label=red&label=blue", lambda v: np.arange(240) % 3 != 1),
        (lambda v: "q=THING+23", lambda v: [i == 23 or i >= 230 for i in range(240)]),
        (lambda v: "q=zebraFISH", lambda v: np.arange(240) == 7),
        (lambda v: urlencode({"q": "größte"}), lambda v: np.arange(240) == 9),
        (lambda v: urlencode({"q": "最大"}), lambda v: np.arange(240) == 9),
        (lambda v: "q=nowhere%00", lambda v: np.zeros(240)),
        (lambda v: "among=5,7+239", lambda v: np.isin(np.arange(240), [5, 7, 239])),
        (lambda v: "finding=blind-test:0", lambda v: np.isin(np.arange(240), [3, 5, 8])),
        (lambda v: "", lambda v: np.ones(240)),
    ],
)
def test_a_filter_keeps_what_numpy_keeps(
    client: Client,
    values: dict[str, Any],
    query: Callable[[dict[str, Any]], str],
    wanted: Callable[[dict[str, Any]], Any],
) -> None:
    kept = np.flatnonzero(np.asarray(wanted(values))).tolist()
    assert all_numbers(client, query(values)) == kept


@pytest.mark.parametrize("order", ["up", "down"])
def test_sorting_puts_samples_without_a_number_last(
    client: Client, values: dict[str, Any], order: str
) -> None:
    score, sign = values["score"], -1 if order == "down" else 1
    known = [i for i in range(240) if not np.isnan(score[i])]
    wanted = sorted(known, key=lambda i: sign * score[i])
    found = all_numbers(client, urlencode({"sort": f"{ANSWERS}/score", "order": order}))
    assert found[: len(known)] == wanted
    assert set(found[len(known) :]) == set(range(240)) - set(known)


def test_the_first_slice_stands_in_the_page_and_a_link_leads_on(client: Client) -> None:
    page = page_of(client, "/runs/0/samples?task=color")
    assert numbers_in(page) == list(range(0, 100, 2))
    links = [str(each["href"]) for each in Elements(page).of("a") if each.get("rel") == "next"]
    assert links == ["/runs/0/samples?task=color&from=50"]
    assert numbers_in(page_of(client, links[0])) == list(range(100, 200, 2))
    assert "120 of 240 samples" in page


def test_a_wrong_answer_is_told_beside_the_label(client: Client, values: dict[str, Any]) -> None:
    page = page_of(client, f"/runs/0/samples?{where(f'{ANSWERS}/right=wrong')}")
    row = r'<b>(\w+)</b><span class="task">\w+</span><span class="wrong".*?<b>(\w+)'
    told = re.findall(row, page)
    wrong = [i for i in range(240) if values["answer"][i] != COLORS[i % 3]][:50]
    assert told == [(COLORS[i % 3], values["answer"][i]) for i in wrong]


def test_a_filter_can_be_shared_and_each_part_removed(client: Client) -> None:
    query = where(
        f"{ANSWERS}/flipped=yes", f"{ANSWERS}/score>=0.2", q="thing", finding="blind-test:0"
    )
    page = Elements(page_of(client, f"/runs/0/samples?{query}"))
    (search,) = [each for each in page.of("input") if each.get("data-role") == "q"]
    assert search["value"] == "thing"
    gone = [
        each["href"] for each in page.of("a") if str(each.get("aria-label")).startswith("Without")
    ]
    assert len(gone) == 3
    assert "flipped" not in str(gone[0])
    assert "flipped" in str(gone[1])
    assert "Three samples are odd." in page.text


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("where=nix>=3", "The columns are"),
        (where(f"{ANSWERS}/score>=lots"), "is no number"),
        (where(f"{ANSWERS}/score>=nan"), "is no number"),
        (where(f"{ANSWERS}/score!3"), "Write COLUMN"),
        (where(f"{ANSWERS}/answer>=3"), "Compare it with = or ~"),
        ("&".join(["where=a=1"] * 21), "At most 20"),
        ("sort=nix", "The columns are"),
        (urlencode({"sort": f"{ANSWERS}/answer"}), "It holds no numbers."),
        ("sort=&order=sideways", "Write up or down."),
        ("task=nix", "No sample has this task."),
        ("among=1,x", "0 to 239"),
        ("among=240", "0 to 239"),
        ("among=-1", "0 to 239"),
        ("finding=nix:0", "ANALYSIS:NUMBER"),
        ("finding=blind-test:99", "ANALYSIS:NUMBER"),
        (f"q={'a' * 2_000}", "1,000 characters"),
        ("page=2", "There are task, label"),
        ("from=-50", None),
        ("from=1e3", None),
    ],
)
def test_what_cannot_be_asked_is_said(client: Client, query: str, hint: str | None) -> None:
    answer = client.get(f"{ROWS}?{query}")
    assert answer.status_code == 422
    said = answer.json()
    assert hint is None or hint in said["hint"]
    page = client.get(f"/runs/0/samples?{query}", headers={"accept": "text/html"})
    assert page.status_code == 422
    assert "This did not work" in page.text


def test_a_column_says_what_can_be_asked_of_it(client: Client, values: dict[str, Any]) -> None:
    number = client.get("/runs/0/samples/column", params={"name": f"{ANSWERS}/score"}).json()
    known = values["score"][~np.isnan(values["score"])]
    assert (number["kind"], number["low"], number["high"]) == ("number", known.min(), known.max())
    texts = client.get("/runs/0/samples/column", params={"name": f"{ANSWERS}/answer"}).json()
    assert set(texts["values"]) == set(COLORS)
    assert client.get("/runs/0/samples/column?name=nix").status_code == 404


def evil_run(folder: Path) -> Any:
    picture = folder / f"{EVIL}.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(picture)
    texts = [EVIL, "javascript:alert(1)", "\u202egnp.exe\u2066", "x" * 50_000, "\x00\x1b[31m"]
    samples = [
        Sample(f"{text[:300]}{i}", text, (str(picture),), text, (text, "b"),
               task=text[:500], attributes={text[:100]: text})
        for i, text in enumerate(texts)
    ]  # fmt: skip
    cells = {EVIL: texts, "javascript:alert(1)": [1.0, None, float("nan"), 2.0, 3.0]}
    table = Table(EVIL, EVIL, {"sample": [one.id for one in samples], "label": texts,
                               "answer": texts, **cells})  # fmt: skip
    return make_run(folder / "run", samples, [Result("evil", EVIL, tables=[table])])


def test_nothing_in_the_data_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = evil_run(tmp_path)
    client = client_of(run)
    tables = client.shown[0].tables
    name = next(name for name in tables.columns if name.endswith("javascript:alert(1)"))
    labels = [
        str(each["value"]) for each in Elements(page_of(client, "/runs/0/samples")).of("option")
    ]
    chosen = next(value for value in labels if value.startswith("\"'>"))
    pages = [
        page_of(client, "/runs/0/samples"),
        page_of(client, f"/runs/0/samples?{where(f'{name}>=1', sort=name, label=chosen)}"),
        *(page_of(client, f"/runs/0/samples/{i}?{where(f'{name}>=1')}") for i in range(5)),
        client.get(f"{ROWS}?{urlencode({'q': '<script>'})}").json()["html"],
    ]
    assert all(map(runs_nothing, pages))
    assert "<script>alert" in Elements(pages[0]).text
    assert not any("\u202e" in page or "\x1b" in page for page in pages)
    from vlmlens.report import _markup

    monkeypatch.setattr(_markup, "escape", lambda value, quote: value)
    assert not runs_nothing(page_of(client, "/runs/0/samples"))


def test_a_run_without_samples_or_results_is_shown(tmp_path: Path) -> None:
    client = client_of(make_run(tmp_path / "run", []))
    assert "The run has no samples." in page_of(client, "/runs/0/samples")
    assert client.get(ROWS).json()["count"] == 0
    assert client.get("/runs/0/samples/0").status_code == 404


def test_what_is_written_while_the_page_is_open_is_seen(tmp_path: Path) -> None:
    samples, values = planted(tmp_path / "pictures", 60)
    run = make_run(tmp_path / "run", samples[:20])
    client = client_of(run)
    assert client.get(f"{ROWS}?{where(f'{ANSWERS}/score>=0')}").status_code == 422
    run.update(samples=60)
    run.write_samples(samples)
    write_results(run, planted_results(samples, values))
    kept = np.flatnonzero(values["score"] >= 0).tolist()
    assert all_numbers(client, where(f"{ANSWERS}/score>=0")) == kept


def test_damage_and_a_run_that_is_gone_are_said(tmp_path: Path) -> None:
    samples, _ = planted(tmp_path / "pictures", 60)
    run = make_run(tmp_path / "run", samples)
    client = client_of(run)
    lines = (run.path / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (run.path / "samples.jsonl").write_bytes(b"".join([*lines[:30], b"{oops\n", *lines[31:]]))
    assert "line 31" in client.get(ROWS).json()["message"]
    (run.path / "samples.jsonl").write_bytes(b"".join(lines[:59]))
    assert "59 lines, and 60" in client.get(ROWS).json()["message"]
    (run.path / "run.json").unlink()
    assert "holds no run any more" in client.get(ROWS).json()["message"]


def test_a_slice_reads_no_more_than_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [Sample(f"s{i}", "What is it?", label="red") for i in range(3_000)]
    ids = [one.id for one in samples]
    texts = [f"{i} {'w' * 300}" for i in range(3_000)]
    table = Table("t", "T", {"sample": ids, "score": [i / 7 for i in range(3_000)], "text": texts})
    run = make_run(tmp_path / "run", samples, [Result("a", "A", tables=[table])])
    client = client_of(run)
    page_of(client, "/runs/0/samples")
    read: list[int] = []
    lines: list[int] = []
    whole, records = StoredFile.read, StoredSamples.records

    def read_counted(self: StoredFile, start: int, stop: int) -> bytes:
        read.append(stop - start)
        return whole(self, start, stop)

    def records_counted(self: StoredSamples, some: range) -> list[dict[str, Any]]:
        lines.append(len(some))
        return records(self, some)

    monkeypatch.setattr(StoredFile, "read", read_counted)
    monkeypatch.setattr(StoredSamples, "records", records_counted)
    assert numbers_in(client.get(f"{ROWS}?from=1000").json()["html"]) == list(range(1000, 1050))
    assert sum(read) == 0
    assert sum(lines) <= 50 + 2 * 64
    kept = client.get(f"{ROWS}?{where('a/t/score>=400')}").json()
    assert kept["count"] == 200
    numbers = sum(len(str(i / 7)) + 8 for i in range(3_000))
    assert 0 < sum(read) < 3 * numbers < sum(map(len, texts))
    before = len(read)
    assert client.get(f"{ROWS}?{where('a/t/score>=400')}&from=50").json()["count"] == 200
    assert sum(read[before:]) < 50 * 40


def test_what_was_asked_for_last_is_kept_and_no_more(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[str] = []
    apply = sample_filter.SampleFilter.apply

    def counted(self: sample_filter.SampleFilter, run: Any) -> Any:
        applied.append(self.query())
        return apply(self, run)

    monkeypatch.setattr(sample_filter.SampleFilter, "apply", counted)
    for start in (0, 50, 100):
        client.get(f"{ROWS}?q=thing&sort={ANSWERS}/score&from={start}")
    assert len(applied) == 1
    for i in range(40):
        client.get(f"{ROWS}?q=thing+{i}")
    shown = client.shown[0]
    assert len(shown.kept("selections", shown.state, dict)) <= 16
