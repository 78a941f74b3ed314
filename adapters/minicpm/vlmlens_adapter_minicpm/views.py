"""Where the patches of an image lie that is cut into slices beside its overview."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vlmlens.hf import CropGeometry, grid_patches
from vlmlens.tokens import PatchGrid


def sliced_views(
    image: int, canvas: Sequence[int], slices: Sequence[int], cell: int, name: str
) -> Iterator[PatchGrid]:
    """The views of an image that is squashed onto a canvas and cut, by rows.

    Args:
        image: Number of the image in its sample.
        canvas: (height, width) in pixels.
        slices: (rows, columns) of views.
        cell: Side of a token in pixels.
        name: Of a view, with its number.
    """
    height, width = (size // cell for size in canvas)
    rows, cols = height // slices[0], width // slices[1]
    for number in range(slices[0] * slices[1]):
        row, col = divmod(number, slices[1])
        placed = CropGeometry(width, height, left=col * cols, top=row * rows)
        yield grid_patches(image, rows, cols, (1, 1), placed, name.format(number))
