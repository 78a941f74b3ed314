"""Results as data: round trips through JSON, and tables."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmlens.report.files import to_json
from vlmlens.results import Figure, Finding, Result, Series, Sheet, Table, Verdict

CELL = st.none() | st.booleans() | st.integers() | st.floats(-9, 9) | st.text(max_size=5)
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False)
FINDING = st.builds(
    Finding,
    text=st.text(),
    verdict=st.sampled_from(Verdict),
    subject=st.text(),
    values=st.dictionaries(st.text(), CELL, max_size=3),
)
TABLE = st.builds(
    Table,
    name=st.text(),
    title=st.text(),
    columns=st.dictionaries(st.text(), st.lists(CELL, min_size=2, max_size=2), max_size=3),
)
SERIES = st.builds(
    Series,
    name=st.text(),
    y=st.lists(NUMBER, min_size=2, max_size=2),
    low=st.none() | st.lists(NUMBER, min_size=2, max_size=2),
    high=st.none() | st.lists(NUMBER, min_size=2, max_size=2),
    dashed=st.booleans(),
)
SHEET = st.builds(
    Sheet,
    sample=st.text(),
    cells=st.lists(st.lists(NUMBER, min_size=2, max_size=2), min_size=1, max_size=1),
    texts=st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=1),
    tips=st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=1),
    x=st.just([]) | st.just(["a", "b"]),
    boxes=st.just([]) | st.just([None, (0.0, 0.0, 0.5, 1.0)]),
    facets=st.dictionaries(st.text(), st.text(), max_size=2),
)
FIGURE = st.builds(
    Figure,
    name=st.text(),
    title=st.text(),
    kind=st.sampled_from(["line", "bar", "heatmap"]),
    x=st.lists(st.text(), min_size=2, max_size=2),
    series=st.lists(SERIES, max_size=2),
    y=st.just(["row"]),
    cells=st.lists(st.lists(NUMBER, min_size=2, max_size=2), min_size=1, max_size=1),
    texts=st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=1),
    y_range=st.none() | st.tuples(st.floats(0, 1), st.floats(1, 2)),
    sheets=st.lists(SHEET, max_size=2).map(tuple),
)
RESULT = st.builds(
    Result,
    analysis=st.text(),
    title=st.text(),
    findings=st.lists(FINDING, max_size=2),
    tables=st.lists(TABLE, max_size=2),
    figures=st.lists(FIGURE, max_size=2),
    options=st.dictionaries(st.text(), CELL, max_size=2),
    notes=st.lists(st.text(), max_size=2),
    warnings=st.lists(st.text(), max_size=2),
)


def through_json(result: Result) -> Result:
    data: dict[str, Any] = json.loads(to_json(result))
    return Result.from_dict(data)


@settings(max_examples=60, deadline=None)
@given(RESULT)
def test_json_round_trip(result: Result) -> None:
    assert through_json(result) == result


def test_a_round_trip_gives_the_types_back() -> None:
    figure = Figure("f", "F", "line", ["0"], series=[Series("s", [1.0])], y_range=(0.0, 1.0))
    result = Result("probe", "Probe", [Finding("x", Verdict.ENCODED)], figures=[figure])
    back = through_json(result)
    assert back.findings[0].verdict is Verdict.ENCODED
    assert isinstance(back.figures[0].series[0], Series)
    assert back.figures[0].y_range == (0.0, 1.0)


def test_an_unknown_verdict_is_refused() -> None:
    data = json.loads(to_json(Result("a", "A", [Finding("x")])))
    data["findings"][0]["verdict"] = "perhaps"
    with pytest.raises(ValueError, match="perhaps"):
        Result.from_dict(data)


def test_tables() -> None:
    table = Table("t", "T", {"layer": [0, 1], "accuracy": [0.5, None]})
    assert len(table) == 2
    assert table.rows() == [(0, 0.5), (1, None)]
    assert (len(Table("t", "T", {})), Table("t", "T", {}).rows()) == (0, [])
    with pytest.raises(ValueError, match="'t' differ in length"):
        Table("t", "T", {"a": [1, 2], "b": [1]})


@pytest.mark.parametrize(
    "parts",
    [
        {"kind": "line", "series": [Series("s", [1.0, 2.0])]},
        {"kind": "heatmap", "y": ["r"], "cells": [[1.0, 2.0]]},
        {"kind": "heatmap", "y": ["r"], "cells": [[1.0]], "texts": [[]]},
        {"kind": "heatmap", "y": ["r", "s"], "cells": [[1.0]]},
    ],
)
def test_a_figure_whose_parts_do_not_match_is_refused(parts: Any) -> None:
    with pytest.raises(ValueError, match="figure 'f'"):
        Figure("f", "F", x=["0"], **parts)


def test_a_result_finds_its_tables_by_name() -> None:
    result = Result("a", "A", tables=[Table("one", "", {}), Table("two", "", {})])
    assert result.table("two") is result.tables[1]
    with pytest.raises(KeyError, match=r"no table 'three'; there are \['one', 'two'\]"):
        result.table("three")


def test_defaults_are_not_shared() -> None:
    assert Result("a", "A").options is not Result("a", "A").options
    assert Finding("a").values is not Finding("b").values
