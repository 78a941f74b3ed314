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
from vlmlens.errors import CompositionError
from vlmlens.report._shades import shades
from vlmlens.report.terminal import print_maps
from vlmlens.results import Figure, Result, Sheet
from vlmlens.samples import Sample
from vlmlens.tokens import TokenKind
from vlmlens_plugins.analysis.attention_map import AttentionMap, AttentionMapOptions
from vlmlens_plugins.storage.memory import MemoryStore, forget


def weights(count: int, bright: int, heads: int = 2) -> np.ndarray[Any, Any]:
    """Head 0 looks at one token, head 1 nowhere."""
    made = np.zeros((count, heads), np.float32)
    made[bright, 0] = 0.8
    return made


def drawn(vlm: Any, given: Sequence[Sample], blocks: dict[str, Values], **options: Any) -> Result:
    forget("attention-map")
    with MemoryStore.open("attention-map", mode="a", options=Options()) as store:
        store.write(ColumnBlock(tuple(sample.id for sample in given), blocks))
        analysis = AttentionMap(AttentionMapOptions(**options))
        analysis.check(given, list(blocks))
        return analysis.run(AnalysisContext(given, store, lambda: vlm))


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
    result = drawn(vlm, samples, blocks)
    (figure,) = result.figures
    assert [sheet.sample for sheet in figure.sheets] == [sample.id for sample in samples]
    for number, sheet in enumerate(figure.sheets):
        assert not any(sheet.cells[0])
        assert [i for i, value in enumerate(sheet.cells[1]) if value] == [5 + 4 * number]
        assert sheet.cells[1][5 + 4 * number] == pytest.approx(0.4)
        grid = vlm.encode([samples[number]]).layout(0).patches
        assert sheet.boxes[5] == pytest.approx(grid.box[5])
    assert result.findings[0].values["layer"] == "llm.block.1.attn"
    table = result.table("attention-last").columns
    assert table["image"] == pytest.approx([0.0, 0.4])


def test_single_heads_are_drawn_where_asked(vlm: Any, two: Any) -> None:
    (figure,) = drawn(vlm, *two, heads=[0, 1], samples=1).figures
    found = {sheet.facets["head"]: max(sheet.cells[1]) for sheet in figure.sheets}
    assert found == {"mean": pytest.approx(0.4), "0": pytest.approx(0.8), "1": 0.0}
    with pytest.raises(CompositionError, match="no head 2"):
        drawn(vlm, *two, heads=[2])


def test_sums_over_regions_hold_nothing_to_draw(vlm: Any, scenes: list[Sample]) -> None:
    values = Values(np.full((2, 6), 0.1, np.float32), "float32")
    result = drawn(vlm, scenes[:2], {"llm.block.0.attn/last": values})
    assert not result.figures
    assert "regions=patches" in result.findings[0].text


def test_the_terminal_shows_the_bright_patch(vlm: Any, two: Any) -> None:
    result = drawn(vlm, *two)
    lines = shades(result.figures[0])
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
    assert len(results["attention-map"].figures[0].sheets) == 3
    assert list((run.path / "results").glob("attention-map.*.svg"))
    assert "attention-map" in run.report_path.read_text(encoding="utf-8")
