"""The HTML page: what it says, in which order, and that data stays text."""

from __future__ import annotations

import base64
import hashlib
import re
import runpy
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.unit import _report_features as features
from tests.unit import _report_scatter as scatter
from tests.unit import _report_sheets as sheets

from vlmlens.report import _markup, _theme, html
from vlmlens.report._figure import draw_figures
from vlmlens.results import (
    Figure,
    Finding,
    Glance,
    GraphEdge,
    GraphNode,
    Result,
    Series,
    Table,
    Verdict,
)
from vlmlens.samples import Sample

EXAMPLES = runpy.run_path(str(Path(__file__).with_name("test_report_examples.py")))
EVIL = """'"><script>x()</script><img src=x onerror="x()"></style></title>&lt;b&gt;"""


class Page(HTMLParser):
    """Elements, attributes and texts of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.raw: dict[str, str] = {}
        self.stack: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"img", "meta", "br", "input"}:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] in {"script", "style"}:
            if "type" not in self.elements[-1][1]:
                self.raw[self.stack[-1]] = data
        else:
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def render(results: list[Result] | None = None, **options: Any) -> str:
    values = {"title": "demo", "facts": EXAMPLES["FACTS"], "spec_yaml": EXAMPLES["SPEC"], **options}
    return html.render(EXAMPLES["examples"]() if results is None else results, **values)


def evil_result(evil: str) -> Result:
    series = [
        Series(evil, [0.1, None], [0.0, None], [0.2, None]),
        Series(evil, [0.3, 0.3], dashed=True),
    ]
    figures = [
        Figure("line", evil, "line", [evil, "b"], evil, evil, series),
        Figure("bar", evil, "bar", [evil, "b"], evil, evil, series),
        Figure(
            "heat", evil, "heatmap", [evil], evil, evil, y=[evil], cells=[[0.5]], texts=[[evil]]
        ),
        Figure(
            "graph",
            evil,
            "graph",
            [evil],
            evil,
            evil,
            y=[evil, "b"],
            nodes=[GraphNode(evil, 0, 0, 0.5, evil), GraphNode(evil, 1, 0)],
            edges=[GraphEdge(0, 1, 0.5, evil)],
        ),
    ]
    sample = Sample(evil, f"{evil} a b", task=evil)
    figures += [sheets.lens([sample], evil), sheets.patches([sample], evil)]
    figures += [features.features([sample], evil), scatter.points([sample, sample], evil)]
    table = Table(evil, evil, {"sample": [evil], evil: [evil], "n": [1.5]})
    finding = Finding(evil, Verdict.ENCODED, evil, {evil: evil}, samples=[evil])
    return Result(evil, evil, [finding], [table], figures, {evil: evil}, [evil], [evil])


def evil_page(evil: str) -> str:
    sample = Sample(evil, evil, (Image.new("RGB", (8, 8)),), evil, task=evil)
    missing = Sample("m", evil, (f"/nowhere/{evil}.png",))
    results = [evil_result(evil), evil_result(evil)]
    return render(
        results, title=evil, facts={evil: evil, "g" + evil: {evil: evil}}, spec_yaml=evil,
        warnings=[evil], samples=[sample, missing], reproduce=evil,
    )  # fmt: skip


def is_harmless(source: str) -> bool:
    page = Page(source)
    handlers = [
        key for _, attributes in page.elements for key in attributes if key.startswith("on")
    ]
    pictures = [item.get("src") or "" for item in page.all("img")]
    scripts = [item.get("type") for item in page.all("script")]
    own = scripts.count(None) == len(page.all("style")) == 1
    own = own and set(scripts) == {None, "application/json"}
    return own and not handlers and all(src.startswith("data:image/") for src in pictures)


def test_data_stays_text() -> None:
    source = evil_page(EVIL)
    assert is_harmless(source)
    page = Page(source)
    assert page.stack == []
    assert sum(EVIL in text for text in page.texts) > 40


def test_the_check_sees_a_missing_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_markup, "escape", lambda value, quote: value)
    with pytest.raises((AssertionError, IndexError)):
        assert is_harmless(evil_page(EVIL))


def test_the_answer_comes_first_then_figures_then_findings_with_folded_numbers() -> None:
    results = EXAMPLES["examples"]()
    source = render(results)
    page = Page(source)
    order = ["<nav", "<h1", 'id="overview"', 'class="notable"', 'id="warnings"', "<figure",
             'class="findings"', 'id="method"', 'id="run"', 'id="reproduce"']  # fmt: skip
    places = [source.index(part) for part in order]
    assert places == sorted(places)
    text = " ".join(page.texts)
    for result in results:
        for finding in result.findings:
            assert finding.text in text
            assert finding.verdict.value in text
    found = source[source.index('class="findings"') :]
    found = found[: found.index("</ul>")]
    assert found.count("<details><summary>numbers</summary>") == 6
    assert "<dt>selectivity</dt><dd>0.6" in found
    assert source.count("surface, accuracy is 80%") == 2, "notable: on the first screen, too"


def test_findings_come_first_where_the_overview_has_no_answer_of_the_analysis() -> None:
    figure = Figure("f", "F", "bar", ["a"], series=[Series("s", [1.0])])
    source = render([Result("a", "A", [Finding("Seen.", Verdict.DIFFERS)], figures=[figure])])
    assert source.index("Seen.") < source.index("<figure")
    assert 'id="overview"' not in source
    assert 'class="verdicts"' in source


def test_every_verdict_has_a_chip_of_its_own_and_a_word_on_what_it_means() -> None:
    result = Result("x", "X", [Finding(f"{each.name}.", each) for each in Verdict])
    page = render([result])
    legend = page[page.index('class="verdicts"') :]
    legend = legend[: legend.index("</ul>")]
    tested = [each for each in Verdict if each is not Verdict.INFO]
    assert legend.count("<li>") == len(tested)
    looks = {_theme.verdict_look(each)[:2] for each in (Verdict.PARTLY, Verdict.INCONCLUSIVE)}
    assert len(looks) == 2
    for each in tested:
        symbol, look, _ = _theme.verdict_look(each)
        assert f'class="chip {look}"' in legend
        assert f"{symbol}</i>{each.value}" in legend
        assert str(_markup.text(each.meaning)) in legend
    assert len({each.meaning for each in Verdict}) == len(Verdict)
    assert 'class="verdicts"' not in render([Result("x", "X", [Finding("a")])])


def test_chips_contrast_in_light_and_dark() -> None:
    css = (Path(html.__file__).parent / "static" / "report.css").read_text()
    classes = {_theme.verdict_look(each)[1] for each in Verdict}
    for name in classes:
        assert f".chip.{name} {{ color: var(--{name}); background: var(--{name}-bg); }}" in css
        inks = re.findall(rf"--{name}: (#[0-9a-f]{{6}});", css)
        grounds = re.findall(rf"--{name}-bg: (#[0-9a-f]{{6}});", css)
        assert len(inks) == len(grounds) == 2
        for ink, ground in zip(inks, grounds, strict=True):
            assert contrast(ink, ground) >= 4.5


def overview(source: str) -> str:
    part = source[source.index('class="scroll overview"') :]
    return part[: part.index("</table>")]


def test_the_overview_has_a_row_per_task_and_a_column_per_question() -> None:
    source = render()
    page = Page(f"<div {overview(source)}</table></div>")
    assert overview(source).count('scope="row"') == len(EXAMPLES["TASKS"])
    links = [item["href"] for item in page.all("a")]
    assert links == ["#analysis-0-probe", "#analysis-1-logit-lens", "#analysis-2-blind-test"]
    row = overview(source)[overview(source).index('scope="row">photographer') :]
    for said in ("not encoded", ">○<", "<b>0.2", "nowhere", "controls 0.25", "over 13 layers: 0.2"):
        assert said in row[: row.index("</td>")], said
    assert ">i<" not in overview(source), "a description without a test has no mark"


def test_the_overview_leaves_out_what_is_not_known() -> None:
    cells = [
        Glance("red", "is seen", "late", value=float("nan"), curve=[None, None, 0.5]),
        Glance("blue", "is said", "", Verdict.ENCODED, -0.001, curve=[3.0, None, -2.0, 1.0]),
    ]
    page = overview(render([Result("a", "A", overview=cells)]))
    assert page.count("<td></td>") == 2
    assert "nan" not in page
    assert "<b>0.00</b>" in page, "no minus before a zero"
    assert page.count("<svg") == 1
    (path,) = re.findall(r'class="line" d="([^"]+)"', page)
    assert path == "M2.0 2.0h0M42.0 18.0L62.0 8.4h0", "a gap, and its own range"


def test_verdicts_in_the_overview_differ_without_colour() -> None:
    cells = [Glance(each.value, "q", "", each) for each in Verdict if each is not Verdict.INFO]
    page = overview(render([Result("a", "A", overview=cells)]))
    signs = re.findall(r'<i aria-hidden="true" class="mark-(\w+)"[^>]*>(.)</i>', page)
    assert len(signs) == len(cells)
    of_sign = {sign: {look for look, other in signs if other == sign} for _, sign in signs}
    assert all(len(looks) == 1 for looks in of_sign.values())
    assert {sign for look, sign in signs if look == "yes"} == {"●", "≠"}
    assert all(f'class="unseen">{cell.verdict.value}<' in page for cell in cells)


def test_the_contents_name_every_section() -> None:
    page = Page(render(samples=EXAMPLES["samples"](), lead=["6 images", "today"]))
    sections = [item["id"] for item in page.all("section")]
    nav = [item["href"] for item in page.all("a")][: len(sections)]
    assert nav == [f"#{name}" for name in sections]
    assert [name for name in sections if "analysis" not in str(name)] == [
        "overview", "warnings", "samples", "method", "run", "reproduce",
    ]  # fmt: skip
    assert "6 images · today" in page.texts


def test_nothing_is_written_as_python_writes_it() -> None:
    options = {"targets": ["label", "a@b"], "depth": None, "each": {"k": [1]}, "words": []}
    values = {"p": None, "low": float("nan"), "gap": -0.0}
    table = Table("t", "T", {"a": ["x", "y"], "b": [None, 1.5]})
    heat = Figure("h", "H", "heatmap", ["a"], y=["b"], cells=[[-0.001]])
    result = Result("a", "A", [Finding("F.", values=values)], [table], [heat], options)
    facts = {"Model": {"quantization": None, "dtype": "float32"}}
    texts = Page(render([result], facts=facts)).texts
    assert "label, a@b" in texts
    assert "k: 1" in texts
    assert {"not set", "none"} <= set(texts)
    for text in texts:
        assert text not in ("None", "nan", "-", "-0.00", "-0")
        assert "['" not in text
    assert "quantization" not in texts


def test_lines_contrast_with_the_page_in_light_and_dark() -> None:
    css = (Path(html.__file__).parent / "static" / "report.css").read_text()
    papers = re.findall(r"--paper: (#[0-9a-f]{6});", css)
    for paper, colours in zip(papers, (_theme.SERIES_LIGHT, _theme.SERIES_DARK), strict=True):
        for colour in colours:
            assert contrast(colour, paper) >= 3
    (sought,) = re.findall(r"td\.sought { outline: 2px solid (#[0-9a-f]{6})", css)
    assert contrast(sought, papers[0]) >= 3


def test_the_page_loads_nothing() -> None:
    source = render(samples=EXAMPLES["samples"]())
    source = source.replace("http://www.w3.org/2000/svg", "", 1)  # a name, not an address
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", source)
    assert addresses
    assert all(item.startswith(("data:image/", "#")) for item in addresses)
    assert "http:" not in source
    assert "https:" not in source


def test_policy_allows_only_its_own_style_and_script() -> None:
    page = Page(render())
    policy = next(item["content"] for item in page.all("meta") if "http-equiv" in item) or ""
    for name in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.raw[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not [key for _, attributes in page.elements for key in attributes if key == "style"]


def test_long_tables_are_cut_with_a_note() -> None:
    source = render(max_rows=50)
    assert "The first 50 of 480 rows; all of them are in " in source
    assert "logit-lens.tokens.parquet" in source
    assert "of 6 rows" not in source


def test_tables_and_figures_are_accessible() -> None:
    page = Page(render(samples=EXAMPLES["samples"]()))
    assert all("scope" in item for item in page.all("th"))
    assert all("alt" in item for item in page.all("img"))
    drawn = [item for item in page.all("svg") if "aria-hidden" not in item]
    assert drawn
    assert all(item["role"] == "img" and item["aria-label"] for item in drawn)
    assert len(page.all("h1")) == 1
    identities = [item["id"] for _, item in page.elements if "id" in item]
    assert len(set(identities)) == len(identities)
    links = {(item["href"] or "").removeprefix("#") for item in page.all("a")}
    assert links <= set(identities)


def test_gaps_break_a_line() -> None:
    figure = Figure(
        "f", "F", "line", list("abcd"), series=[Series("s", [1, None, float("nan"), 2])]
    )
    source = render([Result("a", "A", figures=[figure])])
    assert source.count('class="mark"') == 2 * 2 + 1, "two points in two sizes, one in the legend"
    assert "nan" not in source[source.index("<figure") : source.index("</figure>")]


VALUES = st.one_of(st.floats(-1e12, 1e12), st.none(), st.just(float("nan")), st.just(float("inf")))
LABELS = st.one_of(st.text(max_size=40), st.integers(0, 40).map("llm.block.{}/last".format))


@st.composite
def figures(draw: st.DrawFn) -> Figure:
    kind = draw(st.sampled_from(["line", "bar", "heatmap"]))
    x = draw(st.lists(LABELS, max_size=25))
    row = st.lists(VALUES, min_size=len(x), max_size=len(x))
    if kind == "heatmap":
        y = draw(st.lists(LABELS, max_size=5))
        return Figure("f", "F", kind, x, y=y, cells=[draw(row) for _ in y])
    some = st.one_of(st.none(), row)
    made = st.builds(Series, st.text(), row, low=some, high=some, dashed=st.booleans())
    return Figure("f", "F", kind, x, "x", "y", draw(st.lists(made, max_size=10)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(figures(), max_size=3))
def test_any_figure_is_drawn_with_finite_numbers(drawn: list[Figure]) -> None:
    page = Page(draw_figures(drawn, ["f.svg"] * len(drawn)))
    assert page.stack == []
    assert len(page.all("figure")) == len(drawn)
    places = ("x", "y", "x1", "x2", "y1", "y2", "width", "height", "d", "transform", "viewbox")
    for _, attributes in page.elements:
        numbers = " ".join(attributes[key] or "" for key in places if key in attributes)
        assert "nan" not in numbers
        assert "inf" not in numbers
        assert not numbers.startswith("-") or "height" not in attributes


def test_layers_are_named_once_and_numbered() -> None:
    figure = EXAMPLES["probe"]().figures[0]
    source = render([Result("a", "A", figures=[figure])])
    drawn = source[source.index('class="wide"') : source.index('class="narrow"')]
    assert re.findall(r'class="group"[^>]*>(?:<title>[^<]*</title>)?([^<]+)', drawn) == [
        "vision.block", "projector", "llm.block",
    ]  # fmt: skip
    assert "<title>vision.block.3/image.mean</title>3<" in drawn


def test_heat_map_texts_contrast_in_light_and_dark() -> None:
    for stops in (_theme.RAMP_LIGHT, _theme.RAMP_DARK):
        for colour in _theme.ramp(stops):
            assert contrast(colour, _theme.ink(colour)) >= 4.5
    assert contrast("#ffffff", "#000000") == pytest.approx(21)


def contrast(first: str, second: str) -> float:
    """WCAG 2 contrast ratio."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_samples_on_one_image_share_a_card() -> None:
    source = render(samples=EXAMPLES["samples"](3))
    still = source[source.index('class="still"') : source.index('class="live browser"')]
    assert still.count("<article>") == 3
    assert still.count("Color of the main object:") == 3


def test_an_image_that_is_gone_is_said() -> None:
    source = render(samples=[Sample("a", "What?", ("/nowhere/a.png",))])
    assert "No picture: " in source


def test_large_pictures_become_small() -> None:
    noise = Image.effect_noise((1500, 900), 80)
    source = render(samples=[Sample("a", "What?", (noise,))])
    assert "data:image/jpeg" in source
    assert len(source) - len(render()) < 60_000


def test_a_run_without_results_is_a_page() -> None:
    assert "No analysis found anything" in render([])
    figure = Figure("f", "F", "bar", [])
    assert "Nothing to draw" in render([Result("a", "A", figures=[figure])])


def test_write_report(tmp_path: Path) -> None:
    path = html.write_report(tmp_path / "run" / "report.html", render())
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [item.name for item in path.parent.iterdir()] == ["report.html"]


def test_a_demo_report_is_quick_and_small() -> None:
    start = time.process_time()
    source = render(samples=EXAMPLES["samples"](12))
    assert time.process_time() - start < 2.0
    assert len(source.encode()) < 3_000_000


def test_imports_are_light() -> None:
    code = (
        "import sys, vlmlens.report, vlmlens.report.html, vlmlens.report.files,"
        " vlmlens.report.terminal, vlmlens.report.figures\n"
        "heavy = {'matplotlib', 'pyarrow', 'rich', 'PIL', 'torch'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_warning_of_an_analysis_stands_on_the_page_once() -> None:
    result = Result("a", "A title", warnings=["few samples"])
    page = render([result], title="t", warnings=["few samples", "the disk is slow"])
    assert page.count("few samples") == page.count("A title: few samples") == 1
    assert page.count("the disk is slow") == 1
