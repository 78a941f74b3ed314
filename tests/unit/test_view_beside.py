"""The viewer's page of runs side by side."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.unit import _view_figures as planted
from tests.unit._view_pages import Elements, client_of, make_run, page_of, write_results

from vlmlens.results import Finding, Result
from vlmlens.runs.run import Run
from vlmlens.view.pages import beside

FIRST = ["red", "red", "blue", "red"]
SECOND = ["red", "blue", "blue", "green"]
CHANGED = [1, 3]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("beside")
    first = make_run(folder / "a" / "run", planted.SAMPLES, [planted.answered(FIRST)])
    rest = [planted.SAMPLES[i] for i in (5, 3, 1, 0, 2)]
    second = make_run(folder / "b" / "run", rest, [planted.answered(SECOND), planted.small()])
    return [first, second, make_run(folder / "c" / "other", planted.SAMPLES, [planted.small()])]


@pytest.fixture(scope="module")
def client(runs: list[Run]) -> TestClient:
    return client_of(*runs)


def test_each_runs_answers_stand_beside_each_other(client: TestClient) -> None:
    page = page_of(client, "/beside?runs=0,1")
    grid = page[page.index('class="scroll overview"') : page.index("</table>")]
    heads = re.findall(r'<th scope="col"><a href="(.*?)">(.*?)</a>', grid)
    assert heads == [
        ("/runs/0/analyses/blind-test", "uses the image (run (0))"),
        ("/runs/1/analyses/blind-test", "uses the image (run (1))"),
        ("/runs/1/analyses/probe", "can be read from (run (1))"),
    ]
    links = [unescape(str(each["href"])) for each in Elements(grid).of("a") if each.get("class")]
    assert [link.partition("?")[0] for link in links[:2]] == [address for address, _ in heads[:2]]
    for link in links:
        address, _, part = link.partition("#")
        assert not part or f'id="{part}"' in page_of(client, address)


def test_samples_that_are_answered_differently_lead_to_both_runs(
    client: TestClient, runs: list[Run]
) -> None:
    page = page_of(client, "/beside?runs=0,1")
    assert "2 of 4 samples are answered differently by run (0) and run (1)." in page
    (table,) = re.findall(r'<details class="table" id="table-1000".*?</table>', page, re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)[1:]
    assert len(rows) == len(CHANGED)
    for row, number in zip(rows, CHANGED, strict=True):
        links = [str(each["href"]) for each in Elements(row).of("a")]
        there = runs[1].samples.numbers[planted.SAMPLES[number].id]
        assert there != number, "the runs have the sample at different places"
        assert links == [
            f"/runs/{run}/samples/{at}" for run, at in ((0, number), (0, number), (1, there))
        ]
        assert f">{FIRST[number]}<" in row
        assert f">{SECOND[number]}<" in row
    told = client.get("/beside/tables/1000?runs=0,1").json()
    assert told["count"] == len(CHANGED)
    assert [row[0][0] for row in told["rows"]] == [planted.SAMPLES[i].id for i in CHANGED]
    assert "No analysis of two of these runs" in page_of(client, "/beside?runs=0,2")


def test_generated_texts_are_compared_too(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, planted.SAMPLES) for name in ("a", "b")]
    for run, text in zip(runs, ("A cube.", "A cone."), strict=True):
        texts = {planted.SAMPLES[0].id: text, planted.SAMPLES[1].id: "Red."}
        lines = [json.dumps({"id": name, "text": each}) for name, each in texts.items()]
        (run.path / "generated.jsonl").write_text("\n".join([*lines, ""]))
    assert runs[0].generated[planted.SAMPLES[0].id] == "A cube."
    client = client_of(*runs)
    page = page_of(client, "/beside")
    assert "generated text: 1 of 2 samples are answered differently by a and b." in page
    rows = client.get("/beside/tables/1000").json()["rows"]
    assert [[text for text, _ in row] for row in rows] == [
        [planted.SAMPLES[0].id, "A cube.", "A cone."]
    ]


def test_tests_run_when_they_are_asked_for_and_once(
    runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def compared(places: Any, **_: Any) -> Result:
        asked.append(tuple(places))
        return Result("compare", "C", [Finding("They differ.")], planted.small().tables)

    monkeypatch.setattr(beside, "compare_runs", compared)
    client = client_of(*runs)
    offered = page_of(client, "/beside?runs=1,0")
    assert asked == []
    assert 'href="/beside?runs=1,0&amp;tests=1#tests"' in offered
    for _ in range(2):
        assert "They differ." in page_of(client, "/beside?runs=1,0&tests=1")
    assert client.get("/beside/tables/0?runs=1,0&from=50").json()["rows"][0][3] == "50"
    assert asked == [(str(runs[1].path), str(runs[0].path))]
    write_results(runs[0], [planted.answered([*FIRST, "red"])])
    page_of(client, "/beside?runs=1,0&tests=1")
    write_results(runs[0], [planted.answered(FIRST)])
    assert len(asked) == 2, "the results have changed"


def test_the_real_comparison_is_shown(client: TestClient) -> None:
    page = page_of(client, "/beside?runs=0,1&tests=1")
    assert "share no number" in page or 'class="findings"' in page
    assert "How it was tested" in page
    assert client.get("/beside?runs=0,0&tests=1").status_code == 422


def test_what_the_runs_are_and_how_to_repeat_it(client: TestClient, runs: list[Run]) -> None:
    page = page_of(client, "/beside?runs=0,1")
    part = page[page.index('id="runs"') :]
    assert f"<td>{len(planted.SAMPLES)}</td><td>5</td>" in part
    assert part.index(">samples<") < part.index(">adapter<"), "what differs comes first"
    command = unescape(re.findall(r"<code>(.*?)</code>", part)[0])
    assert shlex.split(command) == ["vlmlens", "compare", *(str(run.path) for run in runs[:2])]


@pytest.mark.parametrize("given", ["7", "0,x", "0,,1", "1,1", "-1", "0,1,2,3", "\u0661"])
def test_wrong_runs_are_told(client: TestClient, given: str) -> None:
    answer = client.get("/beside", params={"runs": given})
    assert answer.status_code == 422
    assert "expected different numbers from 0 to 2" in answer.json()["message"]
    assert client.get("/beside/tables/99?runs=0,1").status_code == 404
    assert client.get("/beside/tables/1099?runs=0,1").status_code == 404


def test_one_run_alone_says_how_to_open_others(runs: list[Run]) -> None:
    page = page_of(client_of(runs[0]), "/beside")
    assert f"vlmlens view {runs[0].path} ANOTHER" in unescape(page)
    assert client_of(runs[0]).get("/beside/tables/0").status_code == 404
