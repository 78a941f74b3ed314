"""The viewer's overview, analyses, tables by slice, features, and the frame around all pages."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

import pytest
from starlette.testclient import TestClient
from tests.unit import _view_figures as planted
from tests.unit._view_pages import EVIL, Elements, client_of, make_run, page_of, runs_nothing

from vlmlens.report import _markup
from vlmlens.report._overview import draw_grid
from vlmlens.results import Figure, Glance, Result
from vlmlens.runs.run import Run
from vlmlens.samples import Sample
from vlmlens.spec.model import assign
from vlmlens.view.commands import Asked
from vlmlens.view.page import short_title
from vlmlens.view.pages.features import part_of, search
from vlmlens.view.pages.tables import SLICE, ordered
from vlmlens.view.shown_run import ShownRun

CSS = Path(__file__).parents[2] / "core/vlmlens/view/static/view.css"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "one"
    results = [planted.small(), planted.drawn()]
    given = {"probe": {"folds": 3, "targets": ["a b", "c"]}, "sae": {}}
    return make_run(folder, planted.SAMPLES, results, analysis=given)


@pytest.fixture(scope="module")
def client(run: Run) -> TestClient:
    return client_of(run)


def elements(html: str, tag: str, look: str) -> list[dict[str, str | None]]:
    found = Elements(html).of(tag)
    return [each for each in found if look in str(each.get("class") or "").split()]


def test_each_cell_leads_to_the_finding_about_its_subject(client: TestClient) -> None:
    links = [str(each["href"]) for each in elements(page_of(client, "/runs/0"), "a", "evidence")]
    assert len(links) == 3
    for link, subject in zip(links, ("color", "artist@color", "shape"), strict=True):
        address, part = urldefrag(link)
        page = page_of(client, address)
        (item,) = re.findall(rf'<li[^>]*id="{part}".*?</li>', page)
        assert f"{subject} is read." in item
        assert 'class="about"' in item
        assert len(elements(page, "li", "about")) == 1
        captions = re.findall(r'<figure class="[^"]*about[^"]*".*?<figcaption>([^ <]+)', page)
        assert captions == [f"probe-{subject.replace('@', '-')}"]
    assert not elements(page_of(client, "/runs/0/analyses/probe"), "li", "about")


def test_a_cell_that_says_nothing_is_no_link() -> None:
    cells = [Glance("a", "looks", ""), Glance("b", "looks", "yes")]
    grid = draw_grid(cells, {"looks": "#question"}, lambda cell: f"#{cell.subject}")
    assert [each["href"] for each in Elements(grid).of("a")] == ["#question", "#b"]
    plain = draw_grid(cells, {"looks": "#question"})
    assert [each["href"] for each in Elements(plain).of("a")] == ["#question"]


def test_findings_lead_to_their_samples_and_figures(client: TestClient, run: Run) -> None:
    page = page_of(client, "/runs/0/analyses/probe")
    links = [unescape(str(each["href"])) for each in elements(page, "a", "behind")]
    named = [link for link in links if "finding=" in link]
    assert named == ["/runs/0/samples?finding=probe:3"]
    rows = client.get(named[0].replace("samples?", "samples/rows?")).json()
    assert rows["count"] == 2
    assert {link for link in links if link.startswith("#")} == {f"#figure-{i}" for i in range(3)}
    for link in links:
        if link.startswith("#"):
            assert f'id="{link[1:]}"' in page
    assert page.index("is read.") < page.index("<figure"), "the answer comes first"
    assert page.index("Few samples.") < page.index("is read.")


def test_what_is_said_of_the_run_and_its_analyses(client: TestClient, run: Run) -> None:
    page = page_of(client, "/runs/0")
    assert "Few samples." in page
    assert "color is read." in page, "notable"
    assert shlex.join(["vlmlens", "analyze"]) not in page
    assert "<dt>state</dt><dd>finished</dd>" in page
    navigation = page[page.index("<nav") : page.index("</nav>")]
    assert re.findall(r'aria-current="page">(.*?)<', navigation) == ["Overview"]
    for name in ("Features", "Samples", "What is read", "Sparse autoencoders"):
        assert f">{name}</a>" in navigation
    assert page_of(client, "/runs/0").count("<h1") == 1


@pytest.mark.parametrize("name", ["probe", "sae"])
def test_links_within_a_page_lead_somewhere(client: TestClient, name: str) -> None:
    page = page_of(client, f"/runs/0/analyses/{name}")
    links = (str(each["href"]) for each in Elements(page).of("a"))
    parts = {link[1:] for link in links if link.startswith("#")}
    assert {"main", "findings", "figures", "repeat"} <= parts
    ids = [each["id"] for _, each in Elements(page).found if "id" in each]
    assert parts <= set(ids)
    assert len(ids) == len(set(ids)), "each element id is there once"


def test_an_unknown_analysis_is_told_with_those_there_are(client: TestClient) -> None:
    answer = client.get("/runs/0/analyses/prob", headers={"accept": "text/html"})
    assert answer.status_code == 404
    assert "probe, sae" in answer.text


def test_a_page_holds_a_slice_and_the_others_come_by_number(client: TestClient) -> None:
    page = page_of(client, "/runs/0/analyses/probe")
    table = page[page.index('id="table-0"') : page.index('id="table-1"')]
    assert table.count("<tr>") == 1 + SLICE
    assert "1,234 rows" in table
    address = Elements(table.split(">", 1)[0] + ">").found
    assert 'data-rows="/runs/0/analyses/probe/tables/0"' in table, address
    seen: list[list[Any]] = []
    while True:
        told = client.get(f"/runs/0/analyses/probe/tables/0?from={len(seen)}").json()
        if not told["rows"]:
            break
        seen += told["rows"]
    assert len(seen) == told["count"] == planted.ROWS
    assert [row[3] for row in seen] == list(map(str, range(planted.ROWS)))
    name, link = seen[1][0]
    assert (name, link) == (planted.SAMPLES[1].id, "/runs/0/samples/1")
    assert client.get(link).status_code == 200


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("column", [1, 2])
def test_rows_are_sorted_over_the_whole_table(client: TestClient, column: int, down: bool) -> None:
    query = f"sort={column}&down={int(down)}"
    told = client.get(f"/runs/0/analyses/probe/tables/0?{query}").json()
    values = (planted.SCORES, planted.WORDS)[column - 1]
    known = [i for i, value in enumerate(values) if value is not None]
    order = sorted(known, key=lambda i: values[i], reverse=down)  # type: ignore[arg-type,return-value]
    assert [int(row[3]) for row in told["rows"]] == order[:SLICE]
    last = client.get(f"/runs/0/analyses/probe/tables/0?{query}&from={planted.ROWS - 5}").json()
    if column == 1:
        assert [row[1] for row in last["rows"]] == [""] * 5, "rows without a value come last"
    assert ordered(planted.small().tables[0], column, down=down) == order + [
        i for i, value in enumerate(values) if value is None
    ]


def test_rows_are_searched_in_their_texts(client: TestClient) -> None:
    told = client.get("/runs/0/analyses/probe/tables/0?find=word 12").json()
    wanted = [i for i, word in enumerate(planted.WORDS) if word == "Word 12"]
    assert told["count"] == len(wanted)
    assert [int(row[3]) for row in told["rows"]] == wanted[:SLICE]
    assert client.get("/runs/0/analyses/probe/tables/0?find=nowhere").json()["count"] == 0


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("probe/tables/0?sort=9", 404), ("probe/tables/7", 404), ("nothing/tables/0", 404),
        ("probe/tables/0?from=-1", 422), ("probe/tables/0?from=1e3", 422),
        ("probe/tables/0?sort=%D9%A3", 422), ("probe/tables/0?from=99999999999999", 422),
        ("probe/tables/1", 200), ("probe/tables/0?from=999999", 200),
    ],
)  # fmt: skip
def test_wrong_slices_are_told(client: TestClient, asked: str, status: int) -> None:
    answer = client.get(f"/runs/0/analyses/{asked}")
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["message"]


def test_copied_commands_say_what_was_asked_for(client: TestClient, run: Run) -> None:
    page = page_of(client, "/runs/0/analyses/probe")
    shell, python = (
        unescape(each) for each in re.findall(r"<code>(.*?)</code>", page, re.DOTALL)[-2:]
    )
    words = shlex.split(shell)
    assert words[:5] == ["vlmlens", "analyze", str(run.path), "--analysis", "probe"]
    values: dict[str, Any] = {}
    for flag, value in zip(words[5::2], words[6::2], strict=True):
        assert flag == "--set"
        assign(values, value)
    assert values == {"analysis": {"probe": {"folds": 3, "targets": ["a b", "c"]}}}
    call = ast.parse(python).body[-1].value  # type: ignore[attr-defined]
    assert [ast.literal_eval(each) for each in call.args] == [str(run.path), values["analysis"]]


def test_commands_repeat_edits_samples_and_seed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", planted.SAMPLES, [planted.small()])
    edits = ["llm.block.1/last = zero", "tuned 1234abcd"]
    run.update(drawn={"probe": 9}, edited={"probe": edits}, seeds={"probe": 4})
    asked = Asked.of(ShownRun(run, 0), planted.small())
    words = shlex.split(asked.shell())
    assert words[words.index("--set") + 1] == "analysis.probe.folds=5", "all options are known"
    assert words[-8:] == ["--samples", "9", "--seed", "4", "--edit", edits[0],
                          "--tuned", "CHECKPOINT"]  # fmt: skip
    called = ast.parse(asked.python()).body[-1].value  # type: ignore[attr-defined]
    given = {each.arg: ast.literal_eval(each.value) for each in called.keywords}
    assert given == {"samples": 9, "seed": 4, "edits": [edits[0]], "tuned": "CHECKPOINT"}


def features_figure() -> Figure:
    (figure,) = [each for each in planted.drawn().figures if each.kind == "features"]
    return figure


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, [7, 40, 41]), ({"find": "40"}, [40]), ({"find": "AUC 0.99"}, [7]),
        ({"find": "color: RED"}, [7]), ({"find": "color: blue"}, []), ({"find": "really"}, [7]),
        ({"find": "color?"}, [7, 40]), ({"find": "What"}, []), ({"find": "nothing like"}, []),
        ({"find": planted.SAMPLES[1].id}, [7, 40]), ({"active": "never"}, [41]),
        ({"active": "some"}, [7, 40]), ({"active": "rare"}, []),
        ({"sort": "density"}, [7, 40, 41]), ({"sort": "auc", "find": "4"}, [40, 41]),
    ],
)  # fmt: skip
def test_features_are_found_by_what_is_known_of_them(
    asked: dict[str, str], found: list[int]
) -> None:
    """The label of 40 is not clear, and "What" has no code: neither finds it."""
    assert [each.number for each in search(features_figure().pages, **asked)] == found


def test_a_feature_with_the_number_comes_first() -> None:
    page = features_figure().pages[0]
    pages = [replace(page, number=number, name=f"n{number}") for number in (17, 70, 7)]
    assert [each.number for each in search(pages, "7")] == [7, 17, 70]
    assert [each.number for each in search(pages, "", sort="number")] == [7, 17, 70]


def test_a_part_of_the_features_is_a_figure_of_its_own(client: TestClient) -> None:
    figure = features_figure()
    part = part_of(figure, figure.pages[:1])
    firing = {number for scene in part.scenes for number, _ in scene.fires}
    assert firing == {7} < {number for scene in figure.scenes for number, _ in scene.fires}
    page = page_of(client, "/runs/0/features?find=40")
    (data,) = re.findall(r'class="features-data">(.*?)</script>', page)
    assert [each["number"] for each in json.loads(data)["features"]] == [40]
    assert "1 feature of 3" in page
    (pictures,) = re.findall(r'class="pictures-data">(.*?)</script>', page)
    for source, wide, high in json.loads(pictures):
        answer = client.get(source, headers={"accept": "image/*"})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("image/")
        assert (wide, high) == planted.SAMPLES[0].open_images()[0].size


@pytest.mark.parametrize("asked", ["of=1", "of=x", "active=often", "sort=size", "from=-2"])
def test_wrong_searches_are_told(client: TestClient, asked: str) -> None:
    answer = client.get(f"/runs/0/features?{asked}")
    assert answer.status_code in (404, 422)
    assert answer.json()["message"]


def test_features_have_their_own_page(client: TestClient) -> None:
    page = page_of(client, "/runs/0/analyses/sae")
    assert "features-data" not in page
    assert '<a href="/runs/0/features?of=0">' in page
    assert "sheets-data" in page
    assert "scatter-data" in page


def test_empty_runs_say_what_makes_results(tmp_path: Path) -> None:
    client = client_of(make_run(tmp_path / "empty", planted.SAMPLES))
    assert "vlmlens analyze" in page_of(client, "/runs/0")
    page = page_of(client, "/runs/0/features")
    assert "This run has no features" in page
    assert "--analysis sae" in page
    assert ">Features</a>" not in page


def test_titles_in_the_navigation_are_short_and_differ() -> None:
    assert short_title("probe", "What (on 3 of 1,000 samples)") == "What"
    assert short_title("probe:mlp", "What") == "What (mlp)"
    assert short_title("probe:mlp", "What, mlp") == "What, mlp"


def evil_client(folder: Path) -> TestClient:
    html_tests = runpy.run_path(str(Path(__file__).with_name("test_report_html.py")))
    cells = [Glance(EVIL, EVIL, EVIL, beside=EVIL)]
    made: Result = replace(html_tests["evil_result"](EVIL), overview=cells)
    seen = Sample(EVIL, EVIL, planted.SAMPLES[0].images, EVIL, task=EVIL)
    runs = [make_run(folder / f"r{i}", [seen], [made]) for i in range(2)]
    for run in runs:
        run.update(warnings=[EVIL], model={"class": EVIL}, edited={EVIL: [EVIL]})
    return client_of(*runs)


EVIL_PAGES = ("/runs/0", "/runs/0/features", "/beside", "/beside?tests=1")


def test_data_stays_text(tmp_path: Path) -> None:
    client = evil_client(tmp_path)
    first = page_of(client, "/runs/0")
    links = (str(each["href"]) for each in Elements(first).of("a"))
    (analysis,) = {re.split("[?#]", link)[0] for link in links if "/analyses/" in link}
    for address in (*EVIL_PAGES, analysis, f"{analysis}?subject={EVIL}"):
        page = page_of(client, address)
        assert runs_nothing(page), address
        assert "style=" not in re.sub(r">[^<]*<", "><", page), address
        assert _markup.text(EVIL) in page, address
    told = client.get(f"{analysis}/tables/0").json()
    assert told["rows"][0][0] == [EVIL, "/runs/0/samples/0"]


def test_the_check_sees_a_missing_escape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = evil_client(tmp_path)
    monkeypatch.setattr(_markup, "escape", lambda value, quote: value)
    assert not any(runs_nothing(page_of(client, address)) for address in EVIL_PAGES)


def test_the_apps_colours_contrast_in_light_and_dark() -> None:
    contrast = runpy.run_path(str(Path(__file__).with_name("test_report_html.py")))["contrast"]
    report = CSS.parents[2] / "report" / "static" / "report.css"
    names = dict.fromkeys(re.findall(r"--([a-z-]+): #", report.read_text()))
    known = {
        name: re.findall(rf"--{name}: (#[0-9a-f]{{6}});", report.read_text()) for name in names
    }
    pairs = [("ink", "paper"), ("ink", "raised"), ("ink", "grid"), ("soft", "paper"),
             ("soft", "raised"), ("link", "paper"), ("link", "raised"), ("link", "info-bg"),
             ("info", "info-bg"), ("unsure", "unsure-bg")]  # fmt: skip
    for ink, ground in pairs:
        assert len(known[ink]) == len(known[ground]) == 2
        for a, b in zip(known[ink], known[ground], strict=True):
            assert contrast(a, b) >= 4.5, (ink, ground)
    assert not re.findall(r"#[0-9a-f]{3,6}\b", CSS.read_text()), "colours are the report's"
