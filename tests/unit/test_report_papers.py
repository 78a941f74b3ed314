"""Figures and tables as files for papers."""

from __future__ import annotations

import csv
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.unit import _report_sheets as sheets

from vlmlens.errors import SpecError
from vlmlens.report.papers import table_csv, table_latex, write_papers
from vlmlens.results import Table

EXAMPLES = runpy.run_path(str(Path(__file__).with_name("test_report_examples.py")))


def test_every_format_of_everything(tmp_path: Path) -> None:
    written = write_papers(
        EXAMPLES["examples"](), tmp_path / "p", figures=["svg", "png"],
        tables=["csv", "latex", "parquet"],
    )  # fmt: skip
    names = {path.name for path in written}
    assert names == {path.name for path in (tmp_path / "p").iterdir()}
    assert {"probe.selectivity.svg", "probe.selectivity.png", "probe.layers.tex"} <= names
    assert len(names) == 5 * 2 + 3 * 3
    with Image.open(tmp_path / "p" / "probe.selectivity.png") as opened:
        assert opened.width > 1000
        assert len(opened.convert("RGB").getcolors(2**24) or ()) > 50
    assert pq.read_table(tmp_path / "p" / "probe.layers.parquet").num_rows == 78


def test_a_figure_by_sample_is_a_file_for_each(tmp_path: Path) -> None:
    samples = EXAMPLES["samples"](2)
    made = [sheets.result([sheets.patches(samples)])]
    with_pictures = write_papers(made, tmp_path / "a", figures=["svg"], samples=samples)
    assert [path.name for path in with_pictures] == [
        f"logit-lens.map.{n}-demo-{i}-{task}-red.svg"
        for n, (i, task) in enumerate([(0, "color"), (0, "number"), (1, "color"), (1, "number")], 1)
    ]
    assert b"<image" in with_pictures[0].read_bytes()
    without = write_papers(made, tmp_path / "b", figures=["svg"])
    assert with_pictures[0].read_bytes().count(b"<image") > without[0].read_bytes().count(b"<image")


@pytest.mark.parametrize(("figures", "tables"), [(["pdf"], []), ([], ["latx"])])
def test_unknown_formats_are_refused_before_anything_is_written(
    tmp_path: Path, figures: list[str], tables: list[str]
) -> None:
    with pytest.raises(SpecError, match="There is no format") as caught:
        write_papers(EXAMPLES["examples"](), tmp_path / "p", figures=figures, tables=tables)
    assert "There are" in caught.value.hint
    assert not (tmp_path / "p").exists()


HOSTILE = 'a,"b"\n\\end{tabular} & 50% $x_1^2$ #{}~<>|'


def test_csv_gives_back_what_was_there() -> None:
    table = Table("t", "T", {HOSTILE: [HOSTILE, None], "n": [0.1 + 0.2, float("nan")]})
    rows = list(csv.reader(io.StringIO(table_csv(table).decode(), newline="")))
    assert rows == [[HOSTILE, "n"], [HOSTILE, repr(0.1 + 0.2)], ["", ""]]


def test_latex_has_no_active_character_of_the_data() -> None:
    table = Table("t", HOSTILE, {HOSTILE: [HOSTILE], "n": [1.5]})
    lines = table_latex(table).decode().splitlines()
    assert lines[1] == r"\begin{tabular}{lr}"
    assert lines[0].startswith("% ")
    expected = (
        r'a,"b"\textbackslash{}n\textbackslash{}end\{tabular\} \& 50\% \$x\_1\textasciicircum{}2\$ '
        r"\#\{\}\textasciitilde{}\textless{}\textgreater{}\textbar{}"
    )
    assert lines[5] == rf"{expected} & 1.500 \\"
    assert len(lines) == 8


@pytest.mark.parametrize(("backend", "kept"), [("not-there", False), ("svg", True), ("", False)])
def test_the_shells_plotting_backend_does_not_matter(backend: str, kept: bool) -> None:
    code = (
        "from vlmlens.report.figures import figure_png, figure_svg\n"
        "from vlmlens.results import Figure, Series\n"
        "figure = Figure('f', 'F', 'line', ['a', 'b'], series=[Series('s', [1.0, 2.0])])\n"
        "assert b'<svg' in figure_svg(figure) and figure_png(figure)[:4] == b'\\x89PNG'\n"
        "import os, matplotlib\n"
        "found = matplotlib.rcParams._get('backend') == os.environ['MPLBACKEND']\n"
        "print(found, os.environ['MPLBACKEND'])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "MPLBACKEND": backend}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{kept} {backend}\n"


@pytest.mark.parametrize(
    "text",
    ["=1", "+1+1", "-1+cmd", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\uff1d1", "+49 30", "-"],
)
def test_csv_holds_no_formula(text: str) -> None:
    """In cells and headers; what is guarded can be read again without the apostrophe."""
    table = Table("t", "T", {text: [text, "plain"]})
    header, (cell,), (plain,) = csv.reader(io.StringIO(table_csv(table).decode(), newline=""))
    assert (header[0][0], cell[0], plain) == ("'", "'", "plain")
    assert cell[1:] == text.replace("\r", "\\x0d")


@pytest.mark.parametrize("number", ["-1", "+3", "-1.5e-3", ".5", "-.5", "12."])
def test_csv_leaves_numbers_alone(number: str) -> None:
    table = Table("t", "T", {"label": [number], "value": [-0.25]})
    assert table_csv(table).decode().splitlines()[1] == f"{number},-0.25"
