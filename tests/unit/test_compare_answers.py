"""A comparison shows what each run answers: the encoder alone, the model around it, its answers."""

from __future__ import annotations

import io

from rich.console import Console

from vlmlens.comparison import Side, compare
from vlmlens.report.terminal import print_answers
from vlmlens.results import Glance, Result, Verdict

READ, USES = "can be read from", "uses the image"


def probe(value: float) -> Result:
    cell = Glance("color", READ, "vision.block.1 on", Verdict.ENCODED, value, "baseline 0.3")
    return Result("probe", "P", overview=[cell])


def blind() -> Result:
    return Result("blind-test", "B", overview=[Glance("color", USES, "no", value=0.5)])


def beside(*sides: Side) -> Result:
    return compare(sides, draws=99)


def test_probes_of_both_and_the_answers_of_one_stand_in_one_table() -> None:
    made = beside(
        Side("eye", {"probe": probe(1.0)}),
        Side("whole", {"probe": probe(0.9), "blind-test": blind()}),
    )
    table = made.table("compare-answers")
    assert dict(table.columns) == {
        "task": ["color"],
        f"{READ} (eye)": ["vision.block.1 on 1.00, baseline 0.3"],
        f"{READ} (whole)": ["vision.block.1 on 0.90, baseline 0.3"],
        f"{USES} (whole)": ["no 0.50"],
    }
    assert [cell.verdict for cell in made.overview[:2]] == [Verdict.ENCODED] * 2
    shown = io.StringIO()
    print_answers(made, Console(file=shown, width=200))
    head, row, *_ = shown.getvalue().splitlines()
    assert f"{READ} (eye)" in head
    assert f"{USES} (whole)" in head
    assert row.startswith("color")
    assert "0.50" in row


def test_one_run_with_answers_has_nothing_beside_it() -> None:
    made = beside(Side("a", {"probe": probe(1.0)}), Side("b", {"x": Result("x", "X")}))
    assert not made.overview
    assert [table.name for table in made.tables] == ["compare-tests", "compare-runs"]
    shown = io.StringIO()
    print_answers(made, Console(file=shown))
    assert not shown.getvalue()


def test_one_column_of_a_run_has_no_answers() -> None:
    first = Side("a@x", {"probe": probe(1.0)}, column="x")
    assert not beside(first, Side("b", {"probe": probe(1.0)})).overview
