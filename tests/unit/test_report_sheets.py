"""Figures of one sample at a time: what the page holds of them, with scripts and without."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit import _report_sheets as sheets

from vlmlens.report import html
from vlmlens.report._embed import Words, data_block, rounded
from vlmlens.report.figures import figure_png, figure_svg
from vlmlens.report.files import to_json
from vlmlens.results import Figure, Finding, Result, Sheet, Table
from vlmlens.samples import Sample

EXAMPLES = runpy.run_path(str(Path(__file__).with_name("test_report_examples.py")))
SAMPLES: list[Sample] = EXAMPLES["samples"](3)
BLOCK = re.compile(r'<script type="application/json" class="([\w-]+)">(.*?)</script>', re.DOTALL)


def blocks(source: str) -> dict[str, list[Any]]:
    """The page's data by name."""
    found: dict[str, list[Any]] = {}
    for name, text in BLOCK.findall(source):
        found.setdefault(name, []).append(json.loads(text))
    return found


def page(results: Sequence[Result], samples: Sequence[Sample] = SAMPLES) -> str:
    return html.render(results, title="t", facts={}, spec_yaml="a: 1", samples=samples)


@given(st.recursive(st.text() | st.integers() | st.none(), st.lists, max_leaves=9))
def test_nothing_in_data_ends_its_block(data: Any) -> None:
    made = data_block([data, "</script><!--", "\u2028&"], "x")
    inner = made.removeprefix('<script type="application/json" class="x">')
    inner = inner.removesuffix("</script>")
    assert not set(inner) & set("<>&\u2028\u2029")
    assert json.loads(inner) == [data, "</script><!--", "\u2028&"]


def test_words_are_embedded_once() -> None:
    words = Words()
    assert words.numbers(["a", "b", "a\x07", "a"]) == [0, 1, 2, 0]
    assert words.listed() == ["a", "b", "a\\x07"]


@pytest.mark.parametrize(("value", "short"), [(0.123456789, 0.1235), (12345.6, 12350.0), (0, 0)])
def test_numbers_are_rounded_for_the_page(value: float, short: float) -> None:
    assert rounded(value) == short


def test_sheets_are_read_back_from_json() -> None:
    result = sheets.result([sheets.lens(SAMPLES[:1]), sheets.patches(SAMPLES[:1])])
    again = Result.from_dict(json.loads(to_json(result)))
    assert to_json(again) == to_json(result)
    assert again.figures[1].sheets[0].boxes == result.figures[1].sheets[0].boxes


def test_results_of_earlier_versions_are_read() -> None:
    data = json.loads(to_json(EXAMPLES["probe"]()))
    for figure in data["figures"]:
        del figure["sheets"]
    for finding in data["findings"]:
        del finding["samples"]
    for table in data["tables"]:
        del table["keys"]
    assert Result.from_dict(data).figures[0].sheets == ()


@pytest.mark.parametrize("name", ["cells", "texts", "tips"])
def test_sheets_that_do_not_fit_their_figure_are_refused(name: str) -> None:
    good = sheets.patches(SAMPLES[:1]).sheets[0]
    short = replace(good, **{name: getattr(good, name)[:-1]})
    narrow = replace(good, **{name: [row[:-1] for row in getattr(good, name)]})
    for wrong in (short, narrow):
        with pytest.raises(ValueError, match=f"the {name} of sheet 'demo-0-color, red'"):
            Figure("f", "F", "patches", [], y=sheets.LAYERS, sheets=[wrong])


def test_the_page_holds_every_sheet_and_each_picture_once() -> None:
    source = page([sheets.result([sheets.lens(SAMPLES), sheets.patches(SAMPLES)])])
    found = blocks(source)
    lens, patches = found["sheets-data"]
    assert [len(lens["sheets"]), len(patches["sheets"])] == [6, 6]
    words = lens["words"]
    assert [words[i] for i in lens["sheets"][0]["texts"][1][:3]] == ["red", "cube", "\u2423sky"]
    assert {name: words[i] for name, i in lens["sheets"][1]["facets"].items()} == {
        "task": "number", "label": "1",
    }  # fmt: skip
    assert patches["sheets"][0]["boxes"][1] == [0.25, 0.0, 0.5, 0.25]
    assert patches["sheets"][0]["boxes"][15] is None
    numbers = {sheet["picture"] for sheet in patches["sheets"]}
    assert len(numbers) == 3, "two questions on each of three images"
    assert all(found["pictures-data"][0][i][0].startswith("data:image/") for i in numbers)


def test_without_scripts_there_is_a_table_and_a_row_of_maps() -> None:
    source = page([sheets.result([sheets.lens(SAMPLES), sheets.patches(SAMPLES)])])
    still = source[source.index('class="still"') :]
    assert still.count('<div class="scroll lens"') == 6
    assert '<td class="h23" title="\u2423sky  0.500\nother  0.250">\u2423sky</td>' in still
    maps = source[source.index('class="full patches"') :]
    assert maps.count("<image ") == 1
    assert maps.count("<use ") == len(sheets.LAYERS)
    assert "5 more samples can be chosen if scripts are allowed." in maps


@pytest.mark.parametrize(
    "box", [None, (0.5, 0.0, 0.5, 1.0), (float("nan"),) * 4, (1.1, 0.0, 1.2, 1.0)]
)
def test_a_patch_without_a_place_is_left_out(box: Any) -> None:
    sheet = Sheet(SAMPLES[0].id, [[0.5, 0.7]], x=["a", "b"], boxes=[box, (-0.5, 0, 0.5, 2)])
    figure = Figure("f", "F", "patches", [], y=["l"], sheets=[sheet])
    data = blocks(page([sheets.result([figure])]))["sheets-data"][0]
    assert data["sheets"][0]["boxes"] == [None, [0.0, 0.0, 0.5, 1.0]]
    assert b"nan" not in figure_svg(figure)


def test_a_sheet_of_an_unknown_sample_has_no_picture() -> None:
    figure = sheets.patches([Sample("gone", "What?")])
    data = blocks(page([sheets.result([figure])]))["sheets-data"][0]
    assert data["sheets"][0]["picture"] is None


def test_findings_lead_to_their_samples() -> None:
    found = [
        Finding("of a task", subject="color"),
        Finding("of some", samples=("demo-1-color", "demo-2-number")),
        Finding("of nothing known", subject="elsewhere"),
    ]
    links = re.findall(r'<a href="#samples" class[^>]*>[^<]*</a>', page([Result("a", "A", found)]))
    assert links == [
        '<a href="#samples" class="behind" data-task="color">3 samples</a>',
        '<a href="#samples" class="behind" data-among="2 5">2 samples</a>',
    ]


def test_samples_carry_what_analyses_say_of_them() -> None:
    columns = {
        "sample": ["demo-1-color", "demo-0-color", "gone"],
        "flipped": [True, False, None],
        "p": [0.5, 0.25, 0.0],
    }
    twice = Table("twice", "Twice", {"sample": ["demo-0-color"] * 2, "n": [1, 2]})
    made = Result("a", "A", tables=[Table("answers", "Answers", columns), twice])
    data = blocks(page([made]))["browser-data"][0]
    (table,) = data["tables"]
    assert table["columns"] == ["flipped", "p"]
    assert table["chosen"] == [0]
    rows = {i: [data["words"][n] for n in row] for i, row in table["rows"].items()}
    assert rows == {"2": ["yes", "0.500"], "0": ["no", "0.250"]}


def test_what_is_said_of_a_sample_several_times_is_taken_apart() -> None:
    columns = {
        "sample": ["demo-0-color"] * 2 + ["demo-1-color"],
        "blank": ["black", "none", "none"],
        "answer": ["red", "blue", "green"],
    }
    made = Result("a", "A", tables=[Table("answers", "Answers", columns)])
    data = blocks(page([made]))["browser-data"][0]
    said = {table["title"]: table["rows"] for table in data["tables"]}
    assert {title: list(rows) for title, rows in said.items()} == {
        "A: Answers, black": ["0"],
        "A: Answers, none": ["0", "2"],
    }
    assert data["words"][said["A: Answers, none"]["2"][1]] == "green"


@pytest.mark.parametrize("make", [sheets.lens, sheets.patches])
def test_files_for_papers_hold_one_sample(make: Any) -> None:
    figure, picture = make(SAMPLES), SAMPLES[2].open_images()[0]
    drawn = figure_svg(figure, figure.sheets[2], picture)
    root = ElementTree.fromstring(drawn)
    texts = " ".join("".join(item.itertext()) for item in root.iter() if item.tag.endswith("text"))
    assert figure.sheets[2].name in texts
    assert drawn == figure_svg(figure, figure.sheets[2], picture)
    assert drawn != figure_svg(figure)
    assert figure_png(figure).startswith(b"\x89PNG")
