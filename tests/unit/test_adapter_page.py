"""The worked tile example of docs/write-an-adapter.md gives the numbers on the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vlmlens.hf import tiled_patches, tower_layout

PAGE = (Path(__file__).parents[2] / "docs" / "write-an-adapter.md").read_text(encoding="utf-8")


def test_the_table_of_tokens_is_what_tiled_patches_gives() -> None:
    grid = tiled_patches(0, 2, (2, 1), overview="last")
    rows = re.findall(r"^\| (\d+) \| ([\w ]+) \| (\d), (\d) \| ([\d., ]+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 6
    for token, view, row, col, box in rows:
        i = int(token)
        assert (grid.view[i], grid.row[i], grid.col[i]) == (view, int(row), int(col))
        assert grid.box[i].tolist() == pytest.approx([float(edge) for edge in box.split(",")])
    assert "3 tiles and 12\ntokens" in PAGE
    assert len(grid) == 12


def test_the_rows_of_the_modules_are_those_of_the_layouts() -> None:
    seen, tokens = (tiled_patches(0, side, (2, 1), overview="last") for side in (4, 2))
    assert tower_layout([3], 16, [seen], special=1).total == 51
    assert tower_layout([3], 4, [tokens]).total == 12
    assert "`[3 tiles, 1 + 16, width]`, which is 51 rows" in PAGE
    assert "`[3, 4, width]`, 12 rows" in PAGE
