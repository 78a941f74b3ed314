"""Results in the terminal."""

from __future__ import annotations

import io
import runpy
from pathlib import Path

from rich.console import Console

from vlmlens.report.terminal import print_results
from vlmlens.results import Finding, Result, Table, Verdict

EXAMPLES = runpy.run_path(str(Path(__file__).with_name("test_report_examples.py")))


def printed(results: list[Result], *, width: int = 100, colour: bool = False) -> str:
    sink = io.StringIO()
    system = "truecolor" if colour else None
    print_results(
        results, Console(file=sink, width=width, color_system=system, force_terminal=colour)
    )
    return sink.getvalue()


def test_all_findings_come_before_any_table() -> None:
    results = EXAMPLES["examples"]()
    text = " ".join(printed(results).split())
    last = max(text.index(finding.text[:40]) for item in results for finding in item.findings)
    assert last < text.index("Every column and task")
    assert text.index("! Class 'seven'") < text.index("Every column and task")


def test_long_tables_say_where_the_rest_is() -> None:
    text = printed(EXAMPLES["examples"]())
    assert "70 rows more in probe.layers.parquet" in text
    assert "Figure probe.selectivity.svg: Selectivity" in text
    assert "more in blind-test" not in text


def test_wide_tables_say_how_many_columns_are_left_out() -> None:
    table = Table("wide", "Wide", {f"column {i}": [i] for i in range(30)})
    text = printed([Result("a", "A", tables=[table])], width=60)
    shown = sum(f"column {i} " in text for i in range(30))
    assert 0 < shown < 30
    assert f"{30 - shown} columns more in a.wide.parquet" in text


def test_verdicts_have_colour_and_symbol() -> None:
    found = [Finding(f"about {verdict}", verdict) for verdict in Verdict]
    text = printed([Result("a", "A", found)], colour=True)
    assert "\x1b[1;32m● encoded" in text
    assert "\x1b[1;36m◐ partly uses the image" in text
    assert "\x1b[1;33m? inconclusive" in text
    assert all(verdict.value in text for verdict in Verdict)


def test_text_from_data_is_no_markup_and_no_escape_code() -> None:
    evil = "[bold red]x[/] [/nope] \x1b[2J\x07 :smile:"
    table = Table(evil, evil, {evil: [evil, None]})
    result = Result("a", evil, [Finding(evil)], [table], warnings=[evil])
    text = printed([result], width=200)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert text.count("[bold red]x[/] [/nope] \\x1b[2J\\x07 :smile:") >= 5


def test_nothing_is_said_to_be_nothing() -> None:
    assert "nothing to report" in printed([Result("a", "A")])
    assert printed([]) == ""
