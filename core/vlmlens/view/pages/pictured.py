"""A sample's pictures with what lies on them: the grid of patches, named regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vlmlens.errors import DataError
from vlmlens.regions import ATTRIBUTE, Shape, regions_of
from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._pictures import LARGE, SMALL, TINY
from vlmlens.report._text import cut, one_line, plural
from vlmlens.view.patch_grids import PictureGrid, grids_of
from vlmlens.view.sample_pictures import picture_size

if TYPE_CHECKING:
    from vlmlens.samples import Sample
    from vlmlens.view.shown_run import ShownRun

_MOST, _MOST_LARGE = 32, 2
_WIDE = 448.0


def draw_pictures(run: ShownRun, number: int, sample: Sample) -> Markup:
    """All pictures of a sample, or what there is instead."""
    if sample.video is not None and not sample.video.decoded:
        return tag("p", "A video, of which no frame was read.", class_="muted")
    if not sample.images:
        return tag("p", "No image.", class_="muted")
    shown = range(min(len(sample.images), _MOST))
    drawn = [_pictured(run, number, sample, image) for image in shown]
    rest = len(sample.images) - len(shown)
    more = tag("p", f"and {plural(rest, 'more picture')}", class_="muted") if rest else ""
    look = "pictured-all" + (" many" if len(shown) > _MOST_LARGE else "")
    return join([tag("div", *drawn, class_=look), more])


def _pictured(run: ShownRun, number: int, sample: Sample, image: int) -> Markup:
    name = _name(sample, image)
    try:
        size = picture_size(run, sample, image)
    except DataError as error:
        return tag("figure", tag("p", f"{name}: {error.message} {error.hint or ''}"), class_="lost")
    grids = grids_of(run, number, image)
    try:
        regions = regions_of(sample.attributes.get(ATTRIBUTE), sample.id)
    except DataError:
        regions = {}
    boxes = [(each, shape) for each, shapes in regions.items() for shape in shapes
             if shape.image == image and shape.box is not None]  # fmt: skip
    layers = [*map(_grid, grids, range(len(grids))), _regions(boxes, size)] if size[0] else []
    small = len(sample.images) > _MOST_LARGE
    source = f"{run.address}/samples/{number}/pictures/{image}?side={SMALL if small else LARGE}"
    tall = round(_WIDE * size[1] / max(size[0], 1), 1)
    look = "pixels" if max(size) <= TINY else None
    drawn = tag(
        "svg",
        tag("image", href=source, width=_WIDE, height=tall, class_=look),
        tag("g", *layers, transform=f"scale({_WIDE:.0f} {tall})", class_="over"),
        *_names(boxes, size, tall),
        viewBox=f"0 0 {_WIDE:.0f} {tall}",
        role="img",
        aria_label=f"{name} of the sample {one_line(sample.id)}",
    )
    caption = tag("figcaption", f"{name}, {size[0]} x {size[1]} ", *_switches(grids, bool(boxes)))
    return tag("figure", drawn, caption, class_="pictured")


def _name(sample: Sample, image: int) -> str:
    if sample.video is None:
        return f"Picture {image + 1}" if len(sample.images) > 1 else "Picture"
    times = sample.video.times
    seconds = f", {times[image]:.2f} s" if image < len(times) else ""
    return f"Frame {sample.video.frames[image]}{seconds}"


def _grid(grid: PictureGrid, place: int) -> Markup:
    path = "".join(
        f"M{left:.4f} {top:.4f}H{right:.4f}V{bottom:.4f}H{left:.4f}Z"
        for left, top, right, bottom in grid.boxes
    )
    return tag("path", d=path, class_=f"patch-grid g{place}")


def _regions(boxes: Sequence[tuple[str, Shape]], size: tuple[int, int]) -> Markup:
    path = "".join(
        f"M{left:.4f} {top:.4f}H{right:.4f}V{bottom:.4f}H{left:.4f}Z"
        for left, top, right, bottom in (_fractions(shape, size) for _, shape in boxes)
    )
    return tag("path", d=path, class_="region") if path else Markup("")


def _names(
    boxes: Sequence[tuple[str, Shape]], size: tuple[int, int], tall: float
) -> Iterator[Markup]:
    for name, shape in boxes:
        left, top, _, _ = _fractions(shape, size)
        place = {"x": round(left * _WIDE + 4, 1), "y": round(top * tall + 14, 1)}
        yield tag("text", cut(one_line(name), 24), class_="region-name", **place)


def _fractions(shape: Shape, size: tuple[int, int]) -> tuple[float, float, float, float]:
    left, top, right, bottom = shape.box or (0.0, 0.0, 0.0, 0.0)
    return left / size[0], top / size[1], right / size[0], bottom / size[1]


def _switches(grids: Sequence[PictureGrid], regions: bool) -> Iterator[Markup]:
    """What is shown over the picture; styles read it, no script."""
    for place, grid in enumerate(grids):
        name = f"{plural(len(grid.boxes), 'patch')}".replace("patchs", "patches")
        view = f" of {one_line(grid.view)}" if grid.view else ""
        told = f"as those of {one_line(grid.of)}, a picture of the same size" if grid.of else None
        box = tag("input", type="checkbox", class_=f"show-g{place}")
        yield tag("label", box, f" {name}{view}", title=told)
    if regions:
        yield tag(
            "label", tag("input", type="checkbox", class_="show-regions", checked=True), " regions"
        )
