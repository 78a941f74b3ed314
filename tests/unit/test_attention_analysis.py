"""Attention drawn over pictures of different sizes: what is read, and how it is shown."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import vlmlens
from vlmlens.abc import AnalysisContext, ColumnBlock, Options, Values
from vlmlens.errors import CompositionError, DataError
from vlmlens.report._shades import shades
from vlmlens.report.terminal import print_maps
from vlmlens.results import Figure, Result, Sheet
from vlmlens.samples import Sample
from vlmlens.tokens import TokenKind
from vlmlens_plugins.analysis.attention import AttentionAnalysis
from vlmlens_plugins.analysis.attention.options import AttentionOptions
from vlmlens_plugins.storage.memory import MemoryStore, forget


def weights(count: int, bright: int, heads: int = 2) -> np.ndarray[Any, Any]:
    """Head 0 looks at one token, head 1 nowhere."""
    made = np.zeros((count, heads), np.float32)
    made[bright, 0] = 0.8
    return made


def drawn(vlm: Any, given: Sequence[Sample], blocks: dict[str, Values], **options: Any) -> Result:
    forget("attention")
    with MemoryStore.open("attention", mode="a", options=Options()) as store:
        store.write(ColumnBlock(tuple(sample.id for sample in given), blocks))
        analysis = AttentionAnalysis(AttentionOptions(**options))
        analysis.check(given, list(blocks))
        return analysis.run(AnalysisContext(given, store, lambda: vlm))


def of_maps(result: Result) -> Figure:
    """The only figure of maps."""
    (found,) = [figure for figure in result.figures if figure.kind == "patches"]
    return found


@pytest.fixture
def two(vlm: Any, scenes: list[Sample]) -> tuple[list[Sample], dict[str, Values]]:
    """Two samples; the second layer looks at token 5 of the first, 9 of the second."""
    samples = [scenes[0], scenes[5]]
    counts = [len(vlm.encode([s]).layout(0).positions(TokenKind.IMAGE)) for s in samples]
    dark = np.concatenate([weights(n, 0) * 0 for n in counts])
    bright = np.concatenate([weights(n, 5 + 4 * i) for i, n in enumerate(counts)])
    names = [f"llm.block.{i}.attn/last" for i in (0, 1)]
    values = [Values(each, "float32", tuple(counts)) for each in (dark, bright)]
    return samples, dict(zip(names, values, strict=True))


def test_weights_stand_where_their_tokens_lie(vlm: Any, two: Any) -> None:
    samples, blocks = two
    result = drawn(vlm, samples, blocks, heads=())
    figure = of_maps(result)
    assert [sheet.sample for sheet in figure.sheets] == [sample.id for sample in samples]
    for number, sheet in enumerate(figure.sheets):
        assert not any(sheet.cells[0])
        assert [i for i, value in enumerate(sheet.cells[1]) if value] == [5 + 4 * number]
        assert sheet.cells[1][5 + 4 * number] == pytest.approx(0.4)
        grid = vlm.encode([samples[number]]).layout(0).patches
        assert sheet.boxes[5] == pytest.approx(grid.box[5])
    assert result.findings[0].values["block"] == "llm.block.1"
    table = result.table("attention-last").columns
    assert table["image"] == pytest.approx([0.0, 0.4])


def test_single_heads_are_drawn_where_asked(vlm: Any, two: Any) -> None:
    figure = of_maps(drawn(vlm, *two, heads=[0, 1], maps=1))
    found = {sheet.facets["head"]: max(sheet.cells[1]) for sheet in figure.sheets}
    assert found == {"mean": pytest.approx(0.4), "0": pytest.approx(0.8), "1": 0.0}
    with pytest.raises(CompositionError, match="no head 2"):
        drawn(vlm, *two, heads=[2])


def test_sums_over_regions_hold_nothing_to_draw(vlm: Any, scenes: list[Sample]) -> None:
    values = Values(np.full((2, 6), 0.1, np.float32), "float32")
    blocks = {"llm.block.0.attn/last": values}
    with pytest.raises(CompositionError, match="No column has a weight per image token") as raised:
        drawn(vlm, scenes[:2], blocks, source="columns")
    assert "regions=patches" in str(raised.value.hint)
    from_model = drawn(vlm, scenes[:2], blocks, methods=["attention"])
    assert len(of_maps(from_model).y) == 6


def test_the_terminal_shows_the_bright_patch(vlm: Any, two: Any) -> None:
    result = drawn(vlm, *two, heads=())
    lines = shades(of_maps(result))
    assert sum(line.count("\u2588") for line in lines[:-1]) > 0
    assert "llm.block.1.attn" in lines[0]
    sink = io.StringIO()
    print_maps(result, Console(file=sink, width=100))
    assert sink.getvalue().splitlines()[0] == lines[0]


@pytest.mark.parametrize(
    ("boxes", "lines"), [([(0, 0, 1, 0.5), (0, 0.5, 1, 1)], 32), ([None] * 2, 0)]
)
def test_maps_keep_their_shape(boxes: Any, lines: int) -> None:
    sheet = Sheet("s", [[0.0, 1.0]], boxes=boxes)
    figure = Figure("f", "F", "patches", (), y=["a"], sheets=[sheet])
    assert len(shades(figure)) == (lines + 4 if lines else 0)


def test_weights_that_are_not_finite_are_left_out(vlm: Any, two: Any) -> None:
    samples, blocks = two
    blocks["llm.block.1.attn/last"].array[-1, 0] = np.nan
    result = drawn(vlm, samples, blocks)
    assert result.table("attention-last").columns["samples"] == [1, 1]
    assert "1 of 2 samples are left out: their attention weights are not finite." in result.warnings
    blocks["llm.block.1.attn/last"].array[0, 0] = np.nan
    with pytest.raises(DataError, match="of no sample are finite"):
        drawn(vlm, samples, blocks)


def test_pictures_of_different_sizes_are_drawn_by_a_plain_analyze(tmp_path: Path) -> None:
    """Extract and analyze without naming an analysis: the maps are there."""
    from PIL import Image

    from vlmlens_adapter_qwen2vl.checks import Qwen2VLChecks

    checkpoint = Qwen2VLChecks().checkpoint
    for name, size in (("square", (48, 48)), ("wide", (96, 48)), ("tall", (40, 120))):
        Image.new("RGB", size, (200, 30, 30)).save(tmp_path / f"{name}.png")
    run = vlmlens.extract(
        adapter="qwen2vl", model=str(checkpoint), data=str(tmp_path), prompt="Color:",
        extractor="attention", attention="eager", sites="llm.block.*.attn/last", device="cpu",
        options={"extractor": {"regions": "patches"}}, out=tmp_path / "run",
    )  # fmt: skip
    lengths = {len(rows) for rows in run.activations["llm.block.0.attn/last"]}
    assert len(lengths) > 1
    results = vlmlens.analyze(run)
    drawn = {sheet.sample: len(sheet.x) for sheet in of_maps(results["attention"]).sheets}
    assert list(drawn) == ["square.png", "tall.png"]
    assert len(set(drawn.values())) == 2
    assert results["attention"].options["source"] is None
    assert list((run.path / "results").glob("attention.*.svg"))
    assert "attention" in run.report_path.read_text(encoding="utf-8")
