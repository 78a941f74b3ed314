"""Direct readouts: what features say at marked places, computed again by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from vlmlens.abc import ModelAdapter
from vlmlens.errors import DataError, MissingAnnotation, SelectorError
from vlmlens.samples import Attribute, Sample
from vlmlens.tokens import PatchGrid, TokenKind
from vlmlens_plugins.analysis._direct import (
    PROBE,
    ReadoutOptions,
    cosine_scores,
    gram_scores,
    oddness,
    read_directly,
)
from vlmlens_plugins.analysis._marked_places import Patches, Place, feature_at, points_of
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions

FEW = ReadoutOptions(draws=200, shuffles=19)
SIDE = 4
Floats = npt.NDArray[np.float64]


def grid_of(images: int = 1, side: int = SIDE, view: str = "image") -> PatchGrid:
    """`side` x `side` patches of each image, row after row."""
    row, col = (np.tile(each.ravel(), images) for each in np.mgrid[:side, :side])
    box = np.stack([col, row, col + 1, row + 1], 1).astype(np.float32) / side
    n = len(row)
    return PatchGrid(
        image=np.repeat(np.arange(images), side * side),
        view=(view,) * n,
        row=row,
        col=col,
        rows=np.full(n, side),
        cols=np.full(n, side),
        box=box,
    )


def middle(number: int, image: int = 0) -> dict[str, float]:
    """The middle of a patch as a point of the attribute."""
    row, col = divmod(number, SIDE)
    return {"image": image, "x": (col + 0.5) / SIDE, "y": (row + 0.5) / SIDE}


def marked(
    number: int, method: str, label: str, choices: tuple[str, ...], points: Any, **more: Attribute
) -> Sample:
    known: dict[str, Attribute] = {"readout": method, "points": json.dumps(points), **more}
    return Sample(f"s{number}", "?", label=label, choices=choices, attributes=known)


def matching(number: int, rng: np.random.Generator, noise: float = 0.3) -> tuple[Sample, Patches]:
    """Two images; the feature at the reference is that at the right candidate, with noise."""
    rows = rng.standard_normal((2 * SIDE * SIDE, 24))
    places = rng.permutation(SIDE * SIDE)[:4].tolist()
    label = "ABCD"[number % 4]
    points = {name: middle(place, 1) for name, place in zip("ABCD", places, strict=True)}
    points["R"] = middle(5)
    rows[5] = 3 * rows[16 + places["ABCD".index(label)]] + noise * rng.standard_normal(24)
    sample = marked(number, "cosine", label, tuple("ABCD"), points, reference="R")
    return sample, Patches(rows.astype(np.float32), grid_of(2))


def compared(number: int, rng: np.random.Generator) -> tuple[Sample, Patches]:
    """One image; along a hidden direction, the right point has the larger feature."""
    direction = np.sin(np.arange(24))
    rows = rng.standard_normal((SIDE * SIDE, 24))
    first, second = rng.permutation(SIDE * SIDE)[:2].tolist()
    label = "AB"[number % 2]
    rows[first if label == "A" else second] += 1.5 * direction
    points = {"A": middle(first), "B": middle(second)}
    sample = marked(number, PROBE, label, ("A", "B"), points)
    return sample, Patches(rows.astype(np.float32), grid_of())


# ------------------------------------------------------------------------------- interpolation


def test_a_linear_field_is_interpolated_exactly() -> None:
    """Between the outermost centers, what is linear in x and in y comes out as it is."""
    grid = grid_of()
    x, y = (grid.box[:, i].astype(float) + 0.5 / SIDE for i in (0, 1))
    field = np.stack([2 * x - y, 3 + x * y], 1)
    for at in ((0.2, 0.3), (0.5, 0.5), (0.625, 0.125), (0.87, 0.61)):
        found = feature_at(Patches(field, grid), Place(0, *at))
        np.testing.assert_allclose(found, [2 * at[0] - at[1], 3 + at[0] * at[1]], atol=1e-6)
    corner = feature_at(Patches(field, grid), Place(0, 1.0, 0.0))
    np.testing.assert_allclose(corner, field[SIDE - 1])


def test_interpolation_by_hand() -> None:
    rows = np.random.default_rng(0).standard_normal((16, 3))
    across, down = 0.4 * SIDE - 0.5, 0.7 * SIDE - 0.5  # in patches, from the first center
    left, top = math.floor(across), math.floor(down)
    expected = np.zeros(3)
    for r in (top, top + 1):
        for c in (left, left + 1):
            expected += (1 - abs(across - c)) * (1 - abs(down - r)) * rows[r * SIDE + c]
    np.testing.assert_allclose(feature_at(Patches(rows, grid_of()), Place(0, 0.4, 0.7)), expected)


def test_the_order_of_patches_and_other_images_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    rows, grid = rng.standard_normal((32, 5)), grid_of(2)
    order = rng.permutation(32)
    mixed = Patches(rows[order], grid.take(order))
    place = Place(1, 0.31, 0.77)
    found = feature_at(Patches(rows, grid), place)
    np.testing.assert_allclose(feature_at(mixed, place), found)
    alone = feature_at(Patches(rows[16:], grid_of()), replace(place, image=0))
    np.testing.assert_allclose(alone, found)


def test_the_view_with_the_smallest_patches_is_read() -> None:
    """An overview of 2 x 2 and a tile of 4 x 4 on the left half."""
    wide, fine = grid_of(side=2, view="global"), grid_of(view="tile 0")
    fine = replace(fine, box=fine.box * np.float32([0.5, 1, 0.5, 1]))
    both = PatchGrid(
        **{
            name: np.concatenate([getattr(wide, name), getattr(fine, name)])
            for name in ("image", "row", "col", "rows", "cols", "box")
        },
        view=wide.view + fine.view,
    )
    rows = np.concatenate([np.full((4, 1), -1.0), np.full((16, 1), 1.0)])
    assert feature_at(Patches(rows, both), Place(0, 0.3, 0.5)) == [1.0]
    assert feature_at(Patches(rows, both), Place(0, 0.8, 0.5)) == [-1.0]


def test_patches_that_are_left_out_have_no_weight() -> None:
    kept = np.delete(np.arange(16), 5)
    rows = np.arange(16.0)[:, None]
    found = feature_at(Patches(rows[kept], grid_of().take(kept)), Place(0, 0.5, 0.5))
    np.testing.assert_allclose(found, [(6 + 9 + 10) / 3])
    with pytest.raises(SelectorError, match="image 1"):
        feature_at(Patches(rows, grid_of()), Place(1, 0.5, 0.5))
    with pytest.raises(ValueError, match="16 patches"):
        Patches(rows[:3], grid_of())


# ------------------------------------------------------------------------------- scores


def test_cosines_by_hand() -> None:
    sample, patches = matching(2, np.random.default_rng(3))
    points = points_of(sample)
    reference = patches.rows[5].astype(float)
    expected = []
    for name in "ABCD":
        number = 16 + int(points[name].y * SIDE) * SIDE + int(points[name].x * SIDE)
        row = patches.rows[number].astype(float)
        dot = sum(a * b for a, b in zip(reference, row, strict=True))
        expected.append(dot / math.sqrt((reference**2).sum() * (row**2).sum()))
    np.testing.assert_allclose(cosine_scores(sample, patches), expected, rtol=1e-6)
    larger = Patches(patches.rows * 7, patches.grid)
    np.testing.assert_allclose(cosine_scores(sample, larger), expected, rtol=1e-6)


def test_the_planted_match_is_read_and_a_wrong_reference_is_caught() -> None:
    rng = np.random.default_rng(4)
    samples, patches = zip(*(matching(i, rng) for i in range(40)), strict=True)
    found = read_directly(samples, patches, FEW)
    assert found.accuracy.value == 1
    assert found.accuracy.low > 0.85
    assert found.p == 1 / 20
    assert abs(found.chance - 0.25) < 0.08
    wrong = []
    for sample in samples:
        points = {**json.loads(str(sample.attributes["points"])), "R": middle(6)}
        wrong.append(
            replace(sample, attributes={**sample.attributes, "points": json.dumps(points)})
        )
    missed = read_directly(wrong, patches, FEW)
    assert missed.accuracy.value < 0.6
    assert missed.right.mean() == missed.accuracy.value


def test_features_of_nothing_are_at_chance() -> None:
    rng = np.random.default_rng(5)
    samples, patches = zip(*(matching(i, rng, noise=1e4) for i in range(200)), strict=True)
    found = read_directly(samples, patches, FEW)
    assert found.p > 0.05
    assert abs(found.accuracy.value - 0.25) < 0.13


def test_the_odd_one_by_hand() -> None:
    rng = np.random.default_rng(6)
    rows = 0.2 * rng.standard_normal((16, 8)) + 1
    rows[9] = -rows[9]
    points = {name: middle(number) for name, number in zip("ABCD", (2, 4, 9, 15), strict=True)}
    sample = marked(0, "odd", "C", tuple("ABCD"), points)
    four = rows[[2, 4, 9, 15]]
    cosines = np.zeros((4, 4))
    for i in range(4):
        for j in range(4):
            cosines[i, j] = four[i] @ four[j] / np.linalg.norm(four[i]) / np.linalg.norm(four[j])
    expected = -(cosines.sum(1) - 1) / 3
    np.testing.assert_allclose(oddness(sample, Patches(rows, grid_of())), expected)
    assert expected.argmax() == 2


def test_gram_matrices_by_hand() -> None:
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((16, 3))
    halves = {"R": [0, 0, 40, 20], "A": [0, 20, 20, 40], "B": [20, 20, 40, 40]}
    known: dict[str, Attribute] = {
        "regions": json.dumps(halves),
        "readout": "gram",
        "reference": "R",
    }
    picture = Image.new("RGB", (40, 40))
    sample = Sample("t", "?", (picture,), label="A", choices=("A", "B"), attributes=known)
    of = {"R": range(8), "A": (8, 9, 12, 13), "B": (10, 11, 14, 15)}
    gram = {
        name: sum(np.outer(rows[i], rows[i]) for i in own) / len(own) for name, own in of.items()
    }
    expected = [
        (gram["R"] * gram[name]).sum() / math.sqrt((gram["R"] ** 2).sum() * (gram[name] ** 2).sum())
        for name in "AB"
    ]
    np.testing.assert_allclose(gram_scores(sample, Patches(rows, grid_of())), expected)
    lacking = replace(sample, choices=("A", "Z"))
    with pytest.raises(DataError, match="no region 'Z'"):
        gram_scores(lacking, Patches(rows, grid_of()))


# ------------------------------------------------------------------------------- the probe


def test_a_probe_finds_the_direction_and_shuffled_labels_do_not() -> None:
    rng = np.random.default_rng(8)
    samples, patches = zip(*(compared(i, rng) for i in range(120)), strict=True)
    found = read_directly(samples, patches, FEW)
    assert found.accuracy.value > 0.9
    assert found.p == 1 / 20
    assert abs(found.chance - 0.5) < 0.06
    swapped = [replace(s, label="B" if s.label == "A" else "A") for s in samples]
    again = read_directly(swapped, patches, FEW)
    assert [a != b for a, b in zip(found.answers, again.answers, strict=True)] == [True] * 120


def test_a_probe_does_not_learn_from_the_group_that_it_is_tried_on() -> None:
    """Each group has features of its own and one label: known by heart, new to every fold."""
    rng = np.random.default_rng(9)
    samples, patches = [], []
    for group in range(20):
        shared = rng.standard_normal((16, 96))
        for k in range(4):
            points = {"A": middle(0), "B": middle(1)}
            own = marked(4 * group + k, PROBE, "AB"[group % 2], ("A", "B"), points)
            samples.append(replace(own, group=f"g{group}"))
            patches.append(Patches(shared + 0.01 * rng.standard_normal((16, 96)), grid_of()))
    found = read_directly(samples, patches, FEW)
    assert found.accuracy.groups == 20
    assert found.accuracy.value < 0.8
    leaky = read_directly([replace(s, group=s.id) for s in samples], patches, FEW)
    assert leaky.accuracy.value > 0.95


# ------------------------------------------------------------------------------- errors


def test_what_cannot_be_read_is_refused() -> None:
    sample, patches = matching(0, np.random.default_rng(10))

    def with_(**changes: Attribute) -> Sample:
        return replace(sample, attributes={**sample.attributes, **changes})

    for wrong, error, words in (
        (replace(sample, label=None), MissingAnnotation, "no label"),
        (replace(sample, choices=("A",)), MissingAnnotation, "no label among two"),
        (with_(readout="cosin"), DataError, "'cosin'"),
        (with_(readout=None), DataError, "''"),
        (with_(reference=None), MissingAnnotation, "compared with"),
        (with_(reference="Z"), DataError, "no point 'Z'"),
        (with_(points=""), DataError, "no point 'R'"),
        (with_(points="[1]"), DataError, "cannot be used"),
        (with_(points='{"A": {"x": 2, "y": 0}}'), DataError, "outside"),
        (with_(points='{"A": {"x": NaN, "y": 0}}'), DataError, "outside"),
        (with_(points='{"A": {"image": true, "x": 0, "y": 0}}'), DataError, "no number"),
        (with_(readout=PROBE), DataError, "4 choices"),
    ):
        with pytest.raises(error, match=words) as caught:
            read_directly([wrong], [patches], FEW)
        assert caught.value.hint
    for value in (np.nan, np.inf, 0.0):
        bad = Patches(np.full_like(patches.rows, value), patches.grid)
        with pytest.raises(DataError, match="0 or not finite"):
            read_directly([sample], [bad], FEW)
    with pytest.raises(ValueError, match="0 samples"):
        read_directly([], [], FEW)
    alone, own = compared(0, np.random.default_rng(11))
    with pytest.raises(MissingAnnotation, match="two groups"):
        read_directly([alone], [own], FEW)
    assert read_directly([sample], [patches], FEW).accuracy.groups == 1


# ------------------------------------------------------------------------------- the demo model


@pytest.mark.parametrize(
    ("kind", "number", "least"),
    [("depth", 60, 0.8), ("correspondence", 28, 0.5), ("texture", 28, 0.7)],
)
def test_the_demo_models_eye_knows_the_answers(
    vlm: ModelAdapter, kind: str, number: int, least: float
) -> None:
    samples = DemoDataset(kind, DemoOptions(number=number)).samples([])
    patches = features(vlm, samples, "vision.block.1")
    found = read_directly(samples, patches, FEW)
    assert found.accuracy.value >= least
    assert found.p == 1 / 20
    shifted = patches[1:] + patches[:1]
    if kind != "depth":
        assert read_directly(samples, shifted, FEW).accuracy.value < found.accuracy.value


def features(vlm: ModelAdapter, samples: list[Sample], name: str) -> list[Patches]:
    """The patch features of each sample at a site."""
    batch = vlm.encode(samples)
    trace = vlm.trace(batch, name)
    flat = trace[name].flatten(0, -2)
    axis = batch.layouts[trace.sites[name].axis].at(len(flat))
    assert axis is not None
    found = []
    for layout in axis.samples:
        rows = torch.from_numpy(layout.rows[layout.positions(TokenKind.IMAGE)])
        assert layout.patches is not None
        found.append(Patches(flat[rows].float().numpy(), layout.patches))
    return found
