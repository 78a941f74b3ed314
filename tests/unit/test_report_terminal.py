"""Results in the terminal."""

from __future__ import annotations

import io
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vlmlens.report.terminal import print_results, print_summary
from vlmlens.results import Finding, Glance, Result, Table, Verdict

EXAMPLES = runpy.run_path(str(Path(__file__).with_name("test_report_examples.py")))
TASKS = EXAMPLES["TASKS"]


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


# ------------------------------------------------------------------------------- the answer first


def answers(tasks: int = 6) -> list[Result]:
    """Three analyses that fill the grid, one that does not."""
    names = [*TASKS, *(f"task {i}" for i in range(len(TASKS), tasks))][:tasks]
    verdicts = [Verdict.ENCODED, Verdict.PARTLY, Verdict.NOT_ENCODED]
    notable = Finding("surface is read from the vision encoder, and answered at chance.")
    read = [
        Glance(
            name, "can be read from", "vision.block.12 on", verdicts[i % 3], 0.987, "control 0.5"
        )
        for i, name in enumerate(names)
    ]
    used = [
        Glance(name, "uses the image", "", Verdict.USES_IMAGE, 1, "blind 0.13") for name in names
    ]
    return [
        Result("first", "First", [notable, replace(notable, notable=True)], overview=read),
        Result("second", "Second", overview=[Glance("color", "answer settles", "llm.block.1")]),
        Result("third", "Third", overview=used, warnings=["few samples"]),
    ]


def summary(results: list[Result], width: int = 100, **options: Any) -> list[str]:
    sink = io.StringIO()
    print_summary(results, Console(file=sink, width=width), title="a on b: 3 images", **options)
    return sink.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_the_grid_fits_the_screen_and_loses_no_task_no_number(width: int) -> None:
    lines = summary(answers(), width)
    assert max(map(len, lines)) <= width
    for name in TASKS:
        assert sum(line.startswith(name) for line in lines) >= 1
    assert sum(line.count("0.99") for line in lines) == len(TASKS)
    assert sum(line.count("1.00") for line in lines) == len(TASKS)


@pytest.mark.parametrize("width", [80, 100])
def test_a_row_per_task_and_the_answer_in_words(width: int) -> None:
    lines = summary(answers(), width)
    assert lines[0] == "a on b: 3 images"
    assert lines[1].split("  ")[-1] == "uses the image"
    color = next(line for line in lines if line.startswith("color"))
    assert color.split()[1:3] == ["●", "vision.block.12"]
    assert "  llm.block.1 " in color
    assert color.endswith("● 1.00, blind 0.13")
    assert [line.split()[1] for line in lines[2:8]] == ["●", "◐", "○"] * 2
    assert lines[8] == "● yes   ◐ partly   ○ no"
    assert lines[9].startswith("Notable: surface is read from the vision encoder")
    assert sum("Notable" in line for line in lines) == 1
    assert lines[-1] == "! few samples"
    assert len(lines) <= 13


def test_many_tasks_are_cut_unless_all_are_asked_for() -> None:
    lines = summary(answers(40))
    assert len(lines) < 20
    assert "… and 28 more" in lines
    assert sum("vision.block.12" in line for line in summary(answers(40), rows=99)) == 40


def test_analyses_without_answers_show_their_findings_a_line_each() -> None:
    found = [Finding(f"finding {i} " + "and more " * 30, Verdict.PARTLY) for i in range(30)]
    lines = summary([Result("a", "What a says", found), Result("b", "B says")], 80)
    assert lines[1] == "What a says"
    assert lines[2].startswith("◐ finding 0 and more")
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 14
    assert "… and 24 more" in lines
    assert lines[-1] == "nothing to report"


def test_subjects_and_words_from_data_are_no_markup() -> None:
    evil = "[bold]\x1b[2J\n宽"
    lines = summary([Result("a", "A", overview=[Glance(evil, evil, evil, beside=evil)])])
    assert "\x1b" not in "".join(lines)
    assert "[bold]\\x1b[2J\\n宽" in lines[1]


def test_the_demo_example_has_a_line_per_finding() -> None:
    results = EXAMPLES["examples"]()
    lines = summary(results)
    assert any("Class 'seven'" in line for line in lines)
    assert len(lines) <= 25
