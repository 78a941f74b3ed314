"""Heat maps of one column with a long title: nothing collapses."""

from __future__ import annotations

import warnings

import pytest

from vlmlens.report.figures import figure_svg
from vlmlens.results import Figure

LONG = (
    "Share of answers that change when features are ablated at vision.block.3/image; in brackets, "
    "random features of equal density"
)


@pytest.mark.parametrize("rows", [["feature 10 (all samples: b)"], ["q"] * 4, ["8 features"] * 2])
def test_a_long_title_leaves_room_for_a_single_column(rows: list[str]) -> None:
    cells, texts = [[0.0]] * len(rows), [["0% (0%)"]] * len(rows)
    figure = Figure(
        "a", LONG, "heatmap", x=["all samples"], y=rows, cells=cells, texts=texts,
        y_range=(0.0, 1.0), x_label="task", y_label="features",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = figure_svg(figure).decode()
    assert "Share of answers" in drawn
    assert LONG not in drawn
