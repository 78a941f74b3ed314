"""Axes at several resolutions, outputs in pieces, and pixels made with torch alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlmlens.errors import SiteShapeError
from vlmlens.hf.image_processing import normalised, resized
from vlmlens.passes.activation import activation_of
from vlmlens.passes.tracing import hooked
from vlmlens.sites import Axis, Site
from vlmlens.testing._rounding import close
from vlmlens.tokens import AxisLayout, Selector, TokenKind, TokenLayout, select

SITE = Site("vision.block.1", "blocks.1", Axis.VISION)


def _rows(*numbers: int) -> TokenLayout:
    return TokenLayout(np.array(numbers), np.full(len(numbers), TokenKind.IMAGE, np.uint8))


def test_the_number_of_rows_tells_the_resolution() -> None:
    merged = AxisLayout(2, [_rows(0), _rows(1)])
    layout = AxisLayout(6, [_rows(0, 1, 2), _rows(3, 4, 5)], others=(merged,))
    for rows in (6, 2):
        found = select(torch.eye(rows), Selector.parse("first"), layout, SITE)
        assert isinstance(found, torch.Tensor)
        assert found.argmax(1).tolist() == [0, rows // 2]
    with pytest.raises(SiteShapeError, match="5 rows"):
        select(torch.eye(5), Selector.parse("first"), layout, SITE)


class InPieces(torch.nn.Module):
    def forward(self, sizes: list[int]) -> list[torch.Tensor]:
        return [torch.full((size, 3), float(i)) for i, size in enumerate(sizes)]


def test_a_list_of_pieces_is_read_and_edited_as_one() -> None:
    model = torch.nn.ModuleDict({"merger": InPieces()})
    site, seen = Site("projector", "merger", Axis.PROJECTOR), []
    edits = [(site, lambda rows: rows + 10)]
    with hooked(model, [site], lambda _, found: seen.append(found), edits):
        pieces = model["merger"]([2, 3])
    assert seen[0][:, 0].tolist() == [10, 10, 11, 11, 11]
    assert [piece[:, 0].tolist() for piece in pieces] == [[10, 10], [11, 11, 11]]


def test_a_tuple_gives_its_first_tensor() -> None:
    first, second = torch.zeros(2, 3), torch.ones(2, 3)
    assert activation_of((first, second), SITE) is first


def test_pixels() -> None:
    image = torch.arange(48, dtype=torch.uint8).reshape(3, 4, 4) * 4
    assert resized(image, 4, 4, resample=3, antialias=True) is image
    small = resized(image, 2, 2, resample=2, antialias=False)
    assert small.dtype == torch.uint8
    assert small[0, 0, 0] == image[0, :2, :2].float().mean()
    with pytest.raises(ValueError, match="filter 5"):
        resized(image, 2, 2, resample=5, antialias=True)
    found = normalised(image, [0.5, 0.4, 0.3], [0.5, 0.2, 0.1], factor=1 / 255)
    close(found[1], (image[1] / 255 - 0.4) / 0.2)
