"""The tile example of docs/write-an-adapter.md: it runs, and gives the numbers on the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.tiny import picture

checks = pytest.importorskip("vlmlens_adapter_smolvlm.checks")
adapter = pytest.importorskip("vlmlens_adapter_smolvlm.adapter")
PAGE = (Path(__file__).parents[2] / "docs" / "write-an-adapter.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=["SmolVLMChecks", "SmolVLM2Checks"])
def kit(request: pytest.FixtureRequest) -> Any:
    """The kit of SmolVLM with the page's class; sites and processor are those of the adapter."""
    block = next(b for b in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "_side" in b)
    names: dict[str, Any] = {}
    exec(block, names)
    written = type("Written", (names["SmolVLMAdapter"], adapter.SmolVLMAdapter), {})
    assert {"patch_grid", "image_layouts", "_patches"} <= set(vars(names["SmolVLMAdapter"]))
    return type("Kit", (getattr(checks, request.param),), {"adapter": written})()


@pytest.mark.parametrize(
    "check", ["layout_is_where_the_image_is", "batch_equals_single", "several_images", "text_only"]
)
def test_the_example_passes_the_kit(kit: Any, check: str) -> None:
    result = kit.run_check(check)
    assert result.outcome == "passed", result


def test_the_table_of_tokens_is_what_the_example_gives(kit: Any) -> None:
    batch = kit.vlm.encode([Sample("wide", "?", (picture(64, 32),))])
    grid = batch.layout(0).patches
    rows = re.findall(r"^\| (\d+) \| ([\w ]+) \| (\d), (\d) \| ([\d., ]+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 6
    for token, view, row, col, box in rows:
        i = int(token)
        assert (grid.view[i], grid.row[i], grid.col[i]) == (view, int(row), int(col))
        if kit.tile == 32:  # the other kit's tile has 4 pixels that are in no patch
            assert grid.box[i].tolist() == pytest.approx([float(edge) for edge in box.split(",")])
    assert "3 tiles and 12\ntokens" in PAGE
    assert len(grid) == 12
    assert batch.layouts[Axis.VISION].total == 48
    assert batch.layouts[Axis.PROJECTOR].total == 12
    assert "`[3 tiles, 16, width]`, which is 48 rows" in PAGE
    assert "`[3, 4, width]`, 12 rows" in PAGE
