"""How public objects show themselves, and that they can be sent to another process."""

from __future__ import annotations

import multiprocessing
import pickle
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from tests.unit._activation_reading import mean_of
from tests.unit._report_features import features
from tests.unit.test_contract import public, stable_modules

import vlmlens
from vlmlens import Column, Run, Sample, Selector, errors
from vlmlens.abc import (
    ColumnBlock,
    ColumnInfo,
    EditedRows,
    ForwardOutput,
    Generation,
    LoadRequest,
    Part,
    Spread,
    Values,
    WorkUnit,
)
from vlmlens.abc.storage import ChunkCheck
from vlmlens.manifest import Checkpoint, Manifest, PluginKind
from vlmlens.pairs import Dropped, Pair
from vlmlens.passes.edits import function_edits
from vlmlens.results import (
    Figure,
    Finding,
    Glance,
    GraphEdge,
    GraphNode,
    Result,
    ScatterPoint,
    ScatterSpace,
    Series,
    Sheet,
    Table,
    Verdict,
)
from vlmlens.samples import BadSample
from vlmlens.sites import Axis, Rename, SiteMap, SiteTemplate
from vlmlens.spec.model import RunSpec
from vlmlens.stores.writing import Form
from vlmlens.videos import FrameRule, Video

HOSTILE = '<script>alert("x")</script> & \x1b[31m'
LONG = "word " * 500
RED = Image.new("RGB", (64, 64), (200, 30, 30))


@cache
def traced() -> Any:
    vlm = vlmlens.load("demo", device="cpu")
    return vlm, vlm.trace(RED, "Color:", ["llm.block.*"], logits="last")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    sample = Sample("red", "Color:", (RED,), label="red", attributes={"lit": True})
    folder = tmp_path_factory.mktemp("shown") / '<b>"a" & #b'
    sites = ["llm.block.0/last", "llm.block.5/last"]
    return vlmlens.run(data=[sample], sites=sites, analysis="logit-lens", out=folder)


def table(rows: int = 30) -> Table:
    columns = {"task": [HOSTILE] * rows, "n": list(range(rows)), "mixed": [1, "a", None] * 10}
    return Table("numbers", LONG, columns)


def figures(title: str = HOSTILE) -> list[Figure]:
    line = Series("right", [0.5, None], low=[0.1, None], high=[0.9, None])
    sheet = Sheet("s", [[0.1, 0.2]], facets={"word": "red"})
    nodes = [GraphNode(title, 0, 0, 0.5), GraphNode(title, 1, 0)]
    edge = GraphEdge(0, 1, 0.5)
    return [
        Figure("line", title, "line", ["a", "b"], series=[line]),
        Figure("lens", title, "lens", ["a", "b"], y=["llm.block.0"], sheets=[sheet]),
        Figure("graph", title, "graph", ["a"], y=["b", "c"], nodes=nodes, edges=[edge]),
    ]


def result() -> Result:
    finding = Finding(HOSTILE + LONG, Verdict.ENCODED, subject=HOSTILE)
    cell = Glance(HOSTILE, "can be read from", "nowhere", value=0.5)
    return Result(
        "probe",
        HOSTILE,
        findings=[finding] * 30,
        tables=[table()],
        figures=figures(),
        warnings=[HOSTILE],
        overview=[cell],
    )


def of_features() -> list[Any]:
    """A figure of features, and one of each of its parts."""
    figure = features([Sample("a", LONG), Sample("b", LONG)], LONG)
    page, scene = figure.pages[0], figure.scenes[0]
    shown = page.samples[0]
    return [figure, page, shown, *shown.maps[:1], *page.labels[:1], scene, *scene.places[:1]]


def instances() -> list[Any]:
    """One of every public class that holds data; adapters, stores and plugins are made by hand."""
    vlm, trace = traced()
    layout = trace.batch.layouts[Axis.VISION].samples[0]
    values = Values(np.zeros((300, 64), np.float32), "float32")
    request = LoadRequest(model="a/b")
    checkpoint = Checkpoint("a/b", 2.0)
    return [
        *figures(LONG),
        *figures()[0].series,
        *figures()[1].sheets,
        *figures(LONG)[2].nodes,
        ScatterPoint(LONG, 0, LONG),
        ScatterSpace(LONG, (LONG, LONG), [(0.0, 0.0)] * 300),
        *of_features(),
        *figures()[2].edges,
        *result().findings[:1],
        *result().overview,
        result(),
        table(),
        trace,
        trace.batch,
        *trace.batch.layouts.values(),
        layout,
        layout.patches,
        Part(0, 2),
        WorkUnit(Sample("a", LONG), {"text": LONG}),
        ForwardOutput(trace.logits),
        Generation(LONG, (1, 2), np.zeros((1, 2, 2), bool)),
        request,
        Sample("a", LONG, (RED,), choices=("a", "b"), attributes={"k": 1}),
        BadSample("a", "a.png", "empty"),
        Video(LONG, (0, 12), fps=24.0),
        FrameRule(count=None, fps=2.0),
        Dropped("a", "same answer"),
        Pair("a", Sample("a", HOSTILE, label=LONG), Sample("b", HOSTILE, label="b")),
        Column.parse("llm.block.3/text[-4:]"),
        Selector.parse("image.mean"),
        function_edits({"llm.block.3/last": len})[0],
        EditedRows(
            vlm.sites.resolve("projector")[0],
            Selector.parse("last"),
            Sample("a", LONG),
            np.arange(3),
        ),
        Spread(3, torch.zeros(9), torch.ones(9)),
        vlm.sites,
        *vlm.sites.resolve("projector"),
        SiteTemplate("llm.block.{i}", ("layers.{i}",), Axis.LLM),
        Rename("a", "b"),
        SiteMap([], ["a.b"]),
        values,
        ColumnInfo("llm.block.3/last", "float32", 64, False, 3),
        ColumnBlock(("a",) * 300, {"llm.block.3/last": values}),
        Form("float32", 64, False),
        ChunkCheck("llm.block.3/last", "a", 3, 12),
        Manifest(PluginKind.ADAPTER, "x", "m:X", "help", checkpoints=(checkpoint,)),
        checkpoint,
        RunSpec(),
        RunSpec().image_rules,
        PluginKind.ADAPTER,
        Verdict.ENCODED,
        *errors_made(),
    ]


def errors_made() -> list[errors.VlmlensError]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    chosen = [kind for kind in kinds if issubclass(kind, errors.VlmlensError)]
    with pytest.raises(errors.SiteNotFound) as caught:
        traced()[1]["llm.block.33"]
    return [*(kind("What.", subject="s", hint="Do.") for kind in chosen), caught.value]


INTERFACES = {
    "Analysis", "AnalysisContext", "ColumnStore", "Dataset", "EditPlace", "Engine", "Extractor",
    "Intervention",
    "ModelAdapter", "ModelWork", "Options", "Pass", "Readout", "VlmlensDeprecationWarning", "Work",
}  # fmt: skip
"""Public classes that are not data: what plugins implement, and what holds functions."""


def test_every_public_data_class_is_looked_at() -> None:
    known = {type(each).__name__ for each in instances()} | {"Axis", "TokenKind"}
    modules = [name for name in stable_modules() if "testing" not in name and "hooks" not in name]
    for module in modules:
        for name in public(module):
            if isinstance(getattr(import_module(module), name), type):
                assert name in known | INTERFACES, f"{module}.{name}"


def small(value: Any) -> bool:
    return isinstance(value, RunSpec | LoadRequest | Manifest)


@pytest.mark.parametrize("index", range(len(instances())))
def test_a_repr_is_one_short_line(index: int) -> None:
    value = instances()[index]
    shown = repr(value)
    assert "\n" not in shown
    assert "tensor(" not in shown
    assert "array(" not in shown
    if not small(value):
        assert len(shown) < 200


def test_reprs_say_what_matters(run: Run) -> None:
    vlm, trace = traced()
    assert repr(vlm).startswith("<DemoAdapter 'float32': ")
    assert repr(trace).startswith("<Trace: 1 sample, 6 sites, llm.block.0")
    assert repr(trace.batch) == "<Batch: 1 sample, axes: llm, vision, projector>"
    assert repr(table()) == "<Table 'numbers': 30 rows, 3 columns>"
    assert repr(result()) == "<Result 'probe': 30 findings, 1 table, 3 figures>"
    assert repr(run.activations).endswith(": 2 columns>")
    assert repr(Sample("a", "Color?")) == "<Sample 'a': 0 images, prompt 'Color?'>"


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor | np.ndarray):
        return bool((a == b).all())
    if type(b).__name__ == "_Found":  # the question of a sample, which was looked for
        return same(a(), b())
    if isinstance(a, errors.VlmlensError):
        return (type(a), a.args, vars(a)) == (type(b), b.args, vars(b))
    if isinstance(a, Image.Image):
        return a.tobytes() == b.tobytes()
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) or type(a).__name__ == "mappingproxy":
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)
    if isinstance(a, SiteMap):
        return (a.canonical, a.modules) == (b.canonical, b.modules)
    return bool(a == b)


@pytest.mark.parametrize("index", range(len(instances())))
def test_public_data_is_pickled(index: int) -> None:
    value = instances()[index]
    again = pickle.loads(pickle.dumps(value))
    assert type(again) is type(value)
    assert same(value, again)


def test_a_pickled_sample_is_still_frozen() -> None:
    again = pickle.loads(pickle.dumps(Sample("a", "x", attributes={"k": 1})))
    with pytest.raises(TypeError):
        again.attributes["k"] = 2


def test_activations_are_read_by_spawned_workers(run: Run) -> None:
    assert run.samples[0].attributes
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(mean_of, (run.activations, 0))
    assert found == mean_of(run.activations, 0)
    again = pickle.loads(pickle.dumps(run))
    assert (again.path, again.spec) == (run.path, run.spec)


# --------------------------------------------------------------------------- notebooks


def page(value: Any) -> ElementTree.Element:
    """What a notebook shows, which must be well formed, and must hold no markup of the data's."""
    markup = value._repr_html_()
    assert "<script" not in markup
    return ElementTree.fromstring(re.sub("(<img [^>]*)>", r"\1/>", markup))


def words(element: ElementTree.Element) -> str:
    return " ".join(element.itertext())


def test_a_result_shows_findings_figures_and_tables() -> None:
    shown = page(result())
    assert len(shown.findall("ul/li")) == 30
    assert len(shown.findall("img")) == 3
    assert HOSTILE.partition(" ")[0] in words(shown)
    assert len(shown.findall("details//tbody/tr")) == 10
    assert len(result()._repr_html_() or "") < 300_000


def test_a_table_shows_its_first_rows_and_says_so() -> None:
    shown = page(table())
    assert len(shown.findall(".//tbody/tr")) == 10
    assert "20 more rows: .to_pandas() has all" in words(shown)


def test_a_finding_shows_its_verdict() -> None:
    assert words(page(result().findings[0])).startswith("● encoded")


def test_a_run_shows_its_overview_and_a_link(run: Run) -> None:
    shown = page(run)
    (link,) = shown.findall(".//a")
    assert Path(unquote(link.attrib["href"])) == run.report_path
    assert "1 sample, 2 columns, finished" in words(shown)
    if run.overview.overview:
        subjects = {cell.subject for cell in run.overview.overview}
        assert len(shown.findall(".//tbody/tr")) == len(subjects)
    else:
        found = [finding for each in run.results.values() for finding in each.findings]
        assert len(shown.findall(".//li")) == len(found)


def test_the_grid_has_a_row_per_subject() -> None:
    from vlmlens.report.notebook import grid

    cells = [
        Glance("color", "can be read from", "vision.block.2 on", Verdict.ENCODED, 1.0),
        Glance("color", "uses the image", "", Verdict.USES_IMAGE, 1.0, "blind 0.13"),
        Glance("shape", "uses the image", HOSTILE, Verdict.PARTLY),
    ]
    shown = ElementTree.fromstring(grid(cells))
    rows = [[words(cell) for cell in row] for row in shown.findall("tbody/tr")]
    assert rows[0] == ["color", "● vision.block.2 on 1.00", "● 1.00 , blind 0.13"]
    assert rows[1][:2] == ["shape", "-"]
    assert [words(cell) for cell in shown.findall("thead/tr/th")] == [
        "", "can be read from", "uses the image",
    ]  # fmt: skip


def test_sites_rows_and_a_pass_are_shown() -> None:
    vlm, trace = traced()
    sites = page(vlm.sites)
    assert [code.text for code in sites.iter("code")] == list(vlm.sites.canonical)
    assert [each.text for each in sites.iter("summary")] == [
        "vision (5 sites)", "projector (1 site)", "llm (9 sites)",
    ]  # fmt: skip
    layout = trace.batch.layout(0)
    shown = page(layout)
    assert len(list(shown.iter("title"))) == len(layout.patches)
    rows = [words(row).split() for row in page(trace).findall(".//tbody/tr")]
    assert [row[0] for row in rows] == list(trace)
    tensor = trace["llm.block.3"]
    assert rows[3][-1] == f"{float(tensor.abs().max()):.3g}"
    assert rows[3][1:-2] == " x ".join(map(str, tensor.shape)).split()


@pytest.mark.parametrize("index", range(2))
def test_a_figure_is_drawn(index: int) -> None:
    drawn = figures()[index]._repr_svg_()
    assert drawn is not None
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert "<script" not in drawn


def test_without_a_renderer_nothing_is_claimed() -> None:
    code = (
        "from vlmlens.results import Table; print(Table('a', 'b', {})._repr_html_()); "
        "import vlmlens.api; print(Table('a', 'b', {})._repr_html_()[:4])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "<div"]


def test_a_table_becomes_a_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = table().to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["task", "n", "mixed"]
    assert frame["n"].tolist() == list(range(30))
    assert frame["mixed"].tolist()[:2] == ["1", "a"]
    assert table().to_arrow()["mixed"].to_pylist()[:3] == ["1", "a", None]


def test_without_pandas_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(errors.MissingDependency, match=r"pip install pandas.*to_arrow"):
        table().to_pandas()


def test_without_polars_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(errors.MissingDependency, match=r"pip install polars.*to_arrow"):
        table().to_polars()


def test_keys_are_completed(run: Run) -> None:
    assert run.activations._ipython_key_completions_() == ["llm.block.0/last", "llm.block.5/last"]


def test_text_from_data_does_not_steer_the_terminal() -> None:
    finding = Finding("red\x1b]0;title\x07\x1b[2J")
    assert "\x1b" not in repr(finding)
    assert "\\x1b]0;title" in repr(finding)
