"""Into how many tiles an image is cut."""

from __future__ import annotations


def best_canvas(
    image: tuple[int, int], tile: tuple[int, int], fewest: int, most: int
) -> tuple[int, int]:
    """The canvas of tiles whose shape is nearest to the image's.

    Among canvases of the same shape a larger one is taken while the image has more than half as
    many pixels (InternVL 1.5's dynamic resolution, arXiv:2404.16821).

    Args:
        image: (height, width) of the original image.
        tile: (height, width) of a tile.
        fewest: Smallest number of tiles.
        most: Largest number of tiles.

    Returns:
        (columns, rows).

    >>> best_canvas((480, 640), (448, 448), 1, 12)
    (4, 3)
    """
    height, width = image
    canvases = [
        (columns, rows)
        for columns in range(1, most + 1)
        for rows in range(1, most + 1)
        if fewest <= columns * rows <= most
    ]
    best, nearest = (1, 1), float("inf")
    for columns, rows in sorted(canvases, key=lambda canvas: canvas[0] * canvas[1]):
        distance = abs(width / height - columns / rows)
        large = height * width > 0.5 * tile[0] * tile[1] * columns * rows
        if distance < nearest or (distance == nearest and large):
            best, nearest = (columns, rows), distance
    return best
