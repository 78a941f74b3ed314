"""Drawn charts: what is drawn is what is said, always the same, and asked as a chart set is."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from vlmlens.errors import DataNotFound, SpecError
from vlmlens.samples import Sample
from vlmlens_plugins.demo.charts import (
    CHART_SIZE,
    CHART_TASKS,
    CHARTS_VERSION,
    HIGHEST,
    Chart,
    chart_questions,
    draw_chart,
    make_chart,
)
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions
from vlmlens_plugins.demo.scenes import COLORS

PINNED = [(9, 8, 4), (9, 6, 4), (6, 4, 5), (9, 4, 5, 2)]
CHARTS = [make_chart(index) for index in range(300)]
BARS = ("red", "green", "blue", "orange")


def samples(count: int = 4, **options: int) -> list[Sample]:
    return DemoDataset("charts", DemoOptions(charts=count, **options)).samples([])


def test_charts_stay_as_they_are() -> None:
    """Otherwise CHARTS_VERSION has to be raised."""
    assert CHARTS_VERSION == 1
    assert [make_chart(index).values for index in range(4)] == PINNED
    pixels = b"".join(draw_chart(chart).tobytes() for chart in CHARTS[:20])
    assert hashlib.sha256(pixels).hexdigest()[:16] == "9be5bbb5ba57ebd0"
    code = "from vlmlens_plugins.demo.charts import make_chart; print(make_chart(3).values)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(PINNED[3])


def test_values_are_different_whole_and_evenly_drawn() -> None:
    assert {len(chart.values) for chart in CHARTS} == {3, 4}
    for chart in CHARTS:
        assert len(set(chart.values)) == len(chart.values)
        assert set(chart.values) <= set(range(1, HIGHEST + 1))
    first = Counter(chart.values[0] for chart in CHARTS)
    assert min(first.values()) > len(CHARTS) / HIGHEST / 2
    assert make_chart(0, seed=1) != make_chart(0)
    with pytest.raises(ValueError, match="-1"):
        make_chart(-1)


def test_bars_are_as_high_as_their_values() -> None:
    """Counted in the pixels of each bar's color, without the boxes."""
    for chart in CHARTS[:60]:
        pixels = np.asarray(draw_chart(chart))
        heights = [
            int((pixels == COLORS[color]).all(-1).any(1).sum())
            for color in BARS[: len(chart.values)]
        ]
        unit = heights[0] / chart.values[0]
        assert heights == [round(unit * value) for value in chart.values]
        widths = [int((pixels == COLORS[c]).all(-1).any(0).sum()) for c in BARS]
        assert len(set(widths[: len(chart.values)])) == 1
        assert widths[len(chart.values) :] == [0] * (4 - len(chart.values))


def test_boxes_hold_exactly_their_bars() -> None:
    for chart in CHARTS[:60]:
        pixels = np.asarray(draw_chart(chart))
        assert pixels.shape == (CHART_SIZE, CHART_SIZE, 3)
        for (left, top, right, bottom), color in zip(chart.boxes.values(), BARS, strict=False):
            inside = (pixels[top:bottom, left:right] == COLORS[color]).all(-1)
            assert inside.all()
            assert inside.sum() == (pixels == COLORS[color]).all(-1).sum()


def test_answers_follow_from_the_table_alone() -> None:
    for chart in CHARTS:
        rows = [line.split(" | ") for line in chart.table.splitlines()[1:]]
        values = {name: int(value) for name, value in rows}
        value, maximum, difference = chart_questions(chart)
        assert value.label == str(values["A"])
        assert maximum.label == max(values, key=lambda name: values[name])
        assert difference.label == str(abs(values["A"] - values["B"]))
        assert difference.fact == f"{values['A']} and {values['B']}"
        assert not value.fact
        assert not maximum.fact
        for name, number in values.items():
            assert f"{name} has the value {number}" in chart.description


def test_samples_are_those_of_a_chart_set() -> None:
    found = samples()
    assert [sample.task for sample in found[:3]] == list(CHART_TASKS)
    assert {sample.group for sample in found} == {f"chart-{i:05d}" for i in range(4)}
    for sample in found:
        assert sample.label
        assert not sample.choices
        assert sample.attributes["benchmark"] == "chartqa"
        assert sample.attributes["table"].startswith("bar | value\n")
        boxes = json.loads(str(sample.attributes["regions"]))
        assert set(str(sample.attributes["region"]).split("+")) <= set(boxes)
        (picture,) = sample.open_images()
        index = int(str(sample.group).split("-")[1])
        assert picture.tobytes() == draw_chart(make_chart(index)).tobytes()
    assert [("fact" in sample.attributes) for sample in found[:3]] == [False, False, True]
    assert found[0].images != samples(seed=1)[0].images


def test_prompts_of_the_user_have_no_label() -> None:
    asked = DemoDataset("charts", DemoOptions(charts=2)).samples(["How many bars?", "Sum?"])
    assert [sample.id for sample in asked][:2] == ["chart-00000#0", "chart-00000#1"]
    assert {sample.label for sample in asked} == {None}
    assert {sample.task for sample in asked} == {"How many bars?", "Sum?"}
    assert "benchmark" not in asked[0].attributes


def test_wrong_sources_and_options_are_refused() -> None:
    with pytest.raises(DataNotFound, match="chart'"):
        DemoDataset("chart", DemoOptions()).samples([])
    with pytest.raises(SpecError, match="demo:scenes"):
        DemoDataset("charts", DemoOptions(scenes=3)).samples([])
    with pytest.raises(SpecError, match="demo:charts"):
        DemoDataset("scenes", DemoOptions(charts=3)).samples([])


def test_a_wrong_bar_would_be_seen() -> None:
    honest = make_chart(0)
    liar = Chart(honest.index, honest.seed, (honest.values[0] - 1, *honest.values[1:]))
    assert draw_chart(liar).tobytes() != draw_chart(honest).tobytes()
