"""Maps over images: cells, occlusion, curves and peaks, where the right answer is exact."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import auc

from vlmlens.abc import AnalysisContext, ModelAdapter, WorkUnit
from vlmlens.errors import CompositionError, DataError, MissingAnnotation, SpecError
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import PatchGrid, TokenKind, TokenLayout
from vlmlens_plugins.analysis._altered import Alteration, Area, Canvas
from vlmlens_plugins.analysis._maps import METHODS, PatchMap
from vlmlens_plugins.analysis._maps.aims import Aim, aims_of
from vlmlens_plugins.analysis._maps.cells import Cells
from vlmlens_plugins.analysis._maps.curves import (
    CurveFills,
    Curves,
    area_under,
    curves,
    units_of_curves,
)
from vlmlens_plugins.analysis._maps.map_work import maps_by
from vlmlens_plugins.analysis._maps.occluding import occlusion_maps
from vlmlens_plugins.analysis._maps.pointing import Region
from vlmlens_plugins.analysis._maps.replacing import row_maps
from vlmlens_plugins.analysis._maps.sliding import sizes
from vlmlens_plugins.analysis.occlusion.regions import regions_for

Floats = np.ndarray[Any, np.dtype[np.float64]]
SIDE, CELL = 32, 8
PLACE = (1, 2)
"""Row and column of the cell that the model below reads, of 4 x 4."""


def noise(seed: int = 0, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def reading_one_cell(pixels: Floats) -> float:
    """The probability of the answer: how far one cell is from gray."""
    row, col = PLACE
    part = pixels[CELL * row : CELL * (row + 1), CELL * col : CELL * (col + 1)]
    return float(np.abs(part - part.mean((0, 1))).mean() / 256 + 0.1)


def constant(pixels: Floats) -> float:
    del pixels
    return 0.7


def context(probability: Callable[[Floats], float], counted: list[int]) -> AnalysisContext:
    """A context whose model is a function of the first image's pixels."""

    def run(work: Any, units: Sequence[WorkUnit], progress: Any) -> list[list[float]]:
        del work, progress
        found = {}
        for unit in units:
            said = unit.arguments["alteration"]
            change = None if said is None else Alteration.from_json(said)
            shown = Canvas(unit.sample).altered(change).open_images()[0]
            found[unit.text()] = [float(np.log(probability(np.asarray(shown, np.float64))))]
        counted.append(len(found))
        return [found[unit.text()] for unit in units]

    return AnalysisContext([], None, lambda: None, runner=run)  # type: ignore[arg-type, return-value]


def aim(picture: Image.Image | None = None) -> Aim:
    return Aim(Sample("s", "What?", (picture or noise(),)), ("yes",))


def order_of(values: Floats, cells: Cells) -> Any:
    return cells.order(values, np.random.default_rng(0))


# ---------------------------------------------------------------- cells


@pytest.mark.parametrize("size", [(32, 32), (31, 17), (5, 50)])
def test_every_pixel_is_in_one_cell(size: tuple[int, int]) -> None:
    cells = Cells([size, (9, 9)], 8)
    canvas = Canvas(Sample("s", "", (noise(size=size), noise(size=(9, 9)))))
    seen = [np.zeros(one.shape[:2], int) for one in canvas.pixels]
    for number in range(len(cells)):
        for i, inside in enumerate(canvas.inside(cells.area(np.array([number])))):
            seen[i] += inside
    assert all((one == 1).all() for one in seen)
    some = np.array([0, 1, 2, 9, 63, 64, 100])
    boxes = [box for number in some for box in cells.area(np.array([number])).boxes]
    together = canvas.inside(cells.area(some))
    single = canvas.inside(Area(boxes=tuple(boxes)))
    assert all((a == b).all() for a, b in zip(together, single, strict=True))
    assert len(cells.area(np.arange(128)).boxes) == 2


def test_a_cell_has_the_mean_of_what_lies_over_it() -> None:
    rng = np.random.default_rng(0)
    edges = np.sort(rng.integers(0, 61, (40, 2, 2)), -1)
    edges[:, :, 1] += 1
    box = np.stack([edges[:, 0, 0], edges[:, 1, 0], edges[:, 0, 1], edges[:, 1, 1]], 1) / 60
    box[3] = np.nan
    values = rng.normal(size=40)
    zeros = np.zeros(40, np.int64)
    grid = PatchGrid(zeros, ("image",) * 40, zeros, zeros, zeros, zeros, box.astype(np.float32))
    total, count = np.zeros((2, 60, 60))
    for one, value in zip(box, values, strict=True):
        if not np.isnan(one).any():
            left, top, right, bottom = (one * 60).round().astype(int)
            total[top:bottom, left:right] += value
            count[top:bottom, left:right] += 1
    for side in (3, 4, 12):
        each = 60 // side
        sums, counts = (
            one.reshape(side, each, side, each).sum((1, 3)).ravel() for one in (total, count)
        )
        found = Cells([(60, 60)], side).values(PatchMap(values, grid))
        known = counts > 0
        assert np.isnan(found[~known]).all()
        np.testing.assert_allclose(found[known], sums[known] / counts[known], atol=1e-5)


def test_cells_are_ranked_from_the_highest_and_unknown_ones_last() -> None:
    cells = Cells([(8, 8)], 2)
    values = np.array([0.0, np.nan, 3.0, 0.0])
    order = order_of(values, cells)
    assert order[0] == 2
    assert order[-1] == 1
    orders = {tuple(cells.order(values, np.random.default_rng(i))) for i in range(20)}
    assert orders == {(2, 0, 3, 1), (2, 3, 0, 1)}
    middle = Cells([(90, 30)], 3)
    assert order_of(middle.centrality(), middle)[0] == 4


def test_a_map_needs_places() -> None:
    kinds = np.full(3, TokenKind.IMAGE, np.uint8)
    with pytest.raises(CompositionError, match="no place in the image"):
        PatchMap.of(np.zeros(3), TokenLayout(np.arange(3), kinds))


def test_a_map_survives_json() -> None:
    one = PatchMap(np.arange(8.0), Cells([(7, 9), (3, 3)], 2).grid)
    back = PatchMap.from_json(json.loads(json.dumps(one.to_json())))
    assert (back.values == one.values).all()
    assert back.grid.view == one.grid.view
    for name in ("image", "row", "col", "rows", "cols", "box"):
        np.testing.assert_allclose(getattr(back.grid, name), getattr(one.grid, name), atol=1e-6)


# ---------------------------------------------------------------- occlusion


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("fill", ["mean", "black"])
def test_the_map_of_a_model_that_reads_one_cell_peaks_there(window: int, fill: Any) -> None:
    counted: list[int] = []
    own, cells = aim(), Cells([(SIDE, SIDE)], 4)
    (found,) = occlusion_maps(
        context(reading_one_cell, counted), [(own, cells)], window=window, fill=fill
    )
    assert counted == [2 + (3 + window) ** 2]
    peak = 4 * PLACE[0] + PLACE[1]
    assert found.values.argmax() == peak
    assert (np.delete(found.values, peak) < found.values[peak]).all()
    picture = np.asarray(own.sample.images[0], np.float64)
    expected = by_hand(picture, window, picture.mean((0, 1)).round() if fill == "mean" else 0)
    np.testing.assert_allclose(found.values.reshape(4, 4), expected, atol=1e-9)
    transposed = replace(found, values=found.values.reshape(4, 4).T.ravel())
    assert not np.allclose(transposed.values.reshape(4, 4), expected)


def test_the_peak_of_a_large_window_is_in_its_middle() -> None:
    cells = Cells([(8, 8)], 8)
    falls = np.zeros((10, 10))
    falls[4, 6] = 1
    values = cells.of_windows(falls.ravel().tolist(), 3).reshape(8, 8)
    assert np.unravel_index(values.argmax(), (8, 8)) == (3, 5)
    assert (values > 0).sum() == 9


def test_windows_are_widened_where_they_hide_too_little() -> None:
    """The answer is there as long as one of two neighbouring cells is."""

    def either(pixels: Floats) -> float:
        seen = [pixels[:CELL, x : x + CELL].std() > 1 for x in (CELL, 2 * CELL)]
        return 0.9 if any(seen) else 0.1

    counted: list[int] = []
    cells = Cells([(SIDE, SIDE)], 4)
    (found,) = occlusion_maps(context(either, counted), [(aim(), cells)], window=1, fill="black")
    assert counted == [18, 27]
    assert set(np.flatnonzero(found.values == found.values.max())) == {1, 2}
    assert found.values.max() > 0.5
    assert sizes(4, 8) == [4, 6]


def by_hand(picture: Floats, window: int, fill: Any) -> Floats:
    """The map from pixels that are written over one window at a time."""
    whole = np.log(reading_one_cell(picture))
    total, count = np.zeros((2, 4, 4))
    for y in range(1 - window, 4):
        for x in range(1 - window, 4):
            hidden = picture.copy()
            top, left = max(0, y), max(0, x)
            hidden[CELL * top : CELL * (y + window), CELL * left : CELL * (x + window)] = fill
            fall = whole - np.log(reading_one_cell(hidden))
            for row in range(top, min(4, y + window)):
                for col in range(left, min(4, x + window)):
                    down, across = row - y, col - x
                    near = min(down + 1, window - down) * min(across + 1, window - across)
                    total[row, col] += near * fall
                    count[row, col] += near
    assert np.ptp(count) == 0
    mean: Floats = total / count
    return mean


def test_a_constant_model_has_an_empty_map_and_flat_curves() -> None:
    own, cells = aim(), Cells([(SIDE, SIDE)], 4)
    (found,) = occlusion_maps(context(constant, []), [(own, cells)])
    assert not found.values.any()
    ((curve,),) = curves(
        context(constant, []),
        [(own, cells, [order_of(cells.values(found), cells)])],
        4,
        CurveFills(),
    )
    assert area_under(curve.deletion) == pytest.approx(0.7)
    assert area_under(curve.insertion) == pytest.approx(0.7)


# ---------------------------------------------------------------- curves


def test_deletion_falls_at_the_first_step_where_the_cell_that_is_read_comes_first() -> None:
    own, cells = aim(), Cells([(SIDE, SIDE)], 4)
    (found,) = occlusion_maps(context(reading_one_cell, []), [(own, cells)])
    order = order_of(cells.values(found), cells)
    turned = order_of(found.values.reshape(4, 4).T.ravel(), cells)
    counted: list[int] = []
    ((right, wrong),) = curves(
        context(reading_one_cell, counted),
        [(own, cells, [order, turned])],
        16,
        CurveFills(insertion="mean"),
    )
    assert counted[0] <= units_of_curves(2, 16)
    assert right.deletion[1] == pytest.approx(0.1)
    assert right.insertion[1] == pytest.approx(right.insertion[-1])
    assert wrong.deletion[1] == pytest.approx(wrong.deletion[0])
    assert right.gap > wrong.gap + 0.1


def test_the_reversed_order_reads_the_curves_backwards() -> None:
    own, cells = aim(), Cells([(SIDE, SIDE)], 4)
    order = np.random.default_rng(3).permutation(16)
    ((one, other),) = curves(
        context(lambda pixels: float(pixels.mean() / 300 + 0.05), []),
        [(own, cells, [order, order[::-1]])],
        16,
        CurveFills(deletion="black", insertion="black"),
    )
    assert (one.deletion == other.insertion[::-1]).all()
    assert area_under(one.deletion) == pytest.approx(area_under(other.insertion))
    assert one.gap == pytest.approx(-other.gap)


def test_the_area_is_that_of_the_trapezoidal_rule() -> None:
    rng = np.random.default_rng(0)
    for steps in (2, 5, 16):
        curve = rng.random(steps + 1)
        assert area_under(curve) == pytest.approx(auc(np.linspace(0, 1, steps + 1), curve))
    two = [Curves(rng.random(4), rng.random(4)) for _ in range(2)]
    assert Curves.mean(two).gap == pytest.approx((two[0].gap + two[1].gap) / 2)


# ---------------------------------------------------------------- peaks


def test_a_peak_is_in_the_region_or_not() -> None:
    cells = Cells([(40, 20)], 4)
    where = '{"a": [0, 0, 20, 5]}'
    sample = Sample("s", "", (noise(size=(40, 20)),), attributes={"regions": where})
    (region,) = regions_for([sample], None)
    assert region is not None
    assert region.share == pytest.approx(20 * 5 / 800)
    assert region.centre == 0
    hit = np.zeros(16)
    hit[1] = 1
    assert region.hit(PatchMap(hit, cells.grid)) == 1
    assert region.hit(PatchMap(hit.reshape(4, 4).T.ravel(), cells.grid)) == 0
    assert region.hit(PatchMap(np.zeros(16), cells.grid)) == pytest.approx(2 / 16)


def test_the_region_is_the_samples_own_or_the_wanted_one() -> None:
    where = json.dumps({"a": [0, 0, 8, 8], "b": [8, 8, 16, 16]})
    plain = Sample("s", "", (noise(),), attributes={"regions": where})
    naming = replace(plain, attributes={"regions": where, "region": "a"})
    silent = replace(plain, task="other")

    def shares(samples: Sequence[Sample], wanted: str | None = None) -> list[float | None]:
        return [None if one is None else one.share for one in regions_for(samples, wanted)]

    one, two = 64 / 1024, 128 / 1024
    assert shares([naming, plain, silent]) == [one, None, two]
    assert shares([plain], "b") == [one]
    assert shares([plain], "a+b") == shares([plain], "*") == [two]
    assert shares([replace(plain, attributes={})]) == [None]
    with pytest.raises(SpecError, match="has a region 'c'"):
        regions_for([plain], "c")
    with pytest.raises(MissingAnnotation, match="no sample has any regions"):
        regions_for([replace(plain, attributes={})], "c")
    with pytest.raises(DataError, match="no such region"):
        regions_for([replace(plain, attributes={"regions": where, "region": "c"})], None)
    assert isinstance(Region.of(plain, ("a",)), Region)


# ---------------------------------------------------------------- on the demo model


@pytest.fixture(scope="module")
def asked(vlm: ModelAdapter, scenes: list[Sample]) -> AnalysisContext:
    return AnalysisContext(scenes[:2], None, lambda: vlm)  # type: ignore[arg-type]


def test_rows_are_replaced_as_by_hand(asked: AnalysisContext, scenes: list[Sample]) -> None:
    """The same as a hook on the projector that writes over the rows of the windows over a cell."""
    vlm = asked.model()
    for answers, rival in ((("red", "blue"), 1), (("red cube", "cube"), None)):
        own = Aim(scenes[0], answers, rival=rival)
        cells = Cells([(128, 128)], 2)
        (found,) = row_maps(asked, [(own, cells)], "projector", window=2)
        whole, left, low = range(64), [8 * r + c for r in range(8) for c in range(4)], range(32, 64)
        over = [whole, left, low, [row for row in left if row in low]]
        clean = score_with(vlm, own, [])
        falls = [clean - score_with(vlm, own, rows) for rows in over]
        assert found.values.shape == (4,)
        assert found.values[2] == pytest.approx(np.mean(falls), abs=1e-4)
        assert np.ptp(falls) > 1e-3


def score_with(vlm: Any, own: Aim, rows: Sequence[int]) -> float:
    site = vlm.sites.resolve("projector")[0]

    def put(module: Any, given: Any, output: Any) -> Any:
        del module, given
        flat = output.reshape(-1, output.shape[-1]).clone()
        flat[list(rows)] = flat.mean(0)
        return flat.reshape(output.shape) if rows else output

    handle = vlm.module.get_submodule(site.path).register_forward_hook(put)
    try:
        logs = []
        for answer in own.answers:
            ids = vlm.answer_ids(answer)
            batch = vlm.encode([own.sample], answers=[ids])
            where = batch.layouts[Axis.LLM].samples[0].positions(TokenKind.ANSWER)
            flat = vlm.forward(batch, logits="all").logits[0].double().log_softmax(-1)
            logs.append(sum(float(flat[k - 1, token]) for k, token in zip(where, ids, strict=True)))
    finally:
        handle.remove()
    return own.score(np.array(logs))


def test_gradients_are_the_slope_of_the_answer(asked: AnalysisContext) -> None:
    """Moving one row a little towards the mean row moves the logit difference as they say."""
    vlm = asked.model()
    own = Aim(asked.samples[0], ("red", "blue"), rival=1)
    (simple,), (whole,) = (
        maps_by(asked, name, [own]) for name in ("gradients", "integrated-gradients")
    )
    batch = vlm.encode([own.sample])
    tokens = [vlm.answer_ids(answer)[0] for answer in own.answers]

    def difference(share: float, row: int | None) -> float:
        def move(rows: Any) -> Any:
            moved = rows.clone().reshape(-1, rows.shape[-1])
            chosen = slice(None) if row is None else row
            moved[chosen] = moved[chosen] + share * (moved.mean(0) - moved[chosen])
            return moved.reshape(rows.shape)

        with vlm.edited({"projector": move}):
            logits = vlm.forward(batch, logits="last").logits[0].double()
        return float(logits[tokens[0]] - logits[tokens[1]])

    for row in (20, 37):
        slope = (difference(-0.02, row) - difference(0.02, row)) / 0.04
        assert simple.values[row] == pytest.approx(slope, abs=2e-2, rel=0.1)
    effect = difference(0, None) - difference(1, None)
    assert whole.values.sum() == pytest.approx(effect, rel=0.05)
    assert np.abs(simple.values).argmax() != 0


def test_all_methods_give_a_number_for_each_patch(asked: AnalysisContext) -> None:
    aims = aims_of(asked, asked.samples, only_right=False).aims
    for method in METHODS:
        for one in maps_by(asked, method, aims):
            assert one.values.shape == (64,)
            assert np.isfinite(one.values).all()


def test_what_is_followed(asked: AnalysisContext, scenes: list[Sample]) -> None:
    color, shape = scenes[:2]
    labelled = aims_of(asked, [color], difference=True).aims[0]
    assert labelled.answer == color.label
    assert labelled.answers[labelled.rival or 0] != color.label
    assert aims_of(asked, [replace(color, label=None)]).aims[0].answer == color.label
    wrong = next(choice for choice in shape.choices if choice != shape.label)
    both = aims_of(asked, [color, replace(shape, label=wrong)])
    assert [one.sample.id for one in both.aims] == [color.id]
    assert "1 of 2 samples" in both.warnings[0]
    kept = aims_of(asked, [replace(shape, label=wrong)], only_right=False).aims[0]
    assert kept.answer == wrong
    (own,) = aims_of(asked, [replace(color, label=None, choices=())]).aims
    assert (own.answer, own.given) == (color.label, False)
    (alone,) = aims_of(asked, [replace(color, choices=())]).aims
    assert (alone.answers, alone.rival) == ((color.label,), None)
