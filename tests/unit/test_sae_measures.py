"""Measures of features: each beside an independent computation of it."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.metrics import roc_auc_score
from tests.unit._sae_toy import layouts

from vlmlens.samples import Sample
from vlmlens.tokens import TokenKind
from vlmlens_plugins.analysis.sae.held import Split, split
from vlmlens_plugins.analysis.sae.judging.areas import areas, resampled
from vlmlens_plugins.analysis.sae.judging.coherence import Coherence, grids, morans_i
from vlmlens_plugins.analysis.sae.judging.comparing import Between, chance
from vlmlens_plugins.analysis.sae.judging.concepts import concepts
from vlmlens_plugins.analysis.sae.judging.figures import histogram
from vlmlens_plugins.analysis.sae.judging.material import _OF_KIND, MODALITIES, Block
from vlmlens_plugins.analysis.sae.judging.monosemanticity import level_of_chance, monosemanticity
from vlmlens_plugins.analysis.sae.judging.resampling import Interval, Resampling
from vlmlens_plugins.analysis.sae.judging.stability import by_chance, matched_cosine
from vlmlens_plugins.sae import KeptRows, TensorRows


def peaks_of(rng: np.random.Generator, pictures: int, features: int) -> Any:
    dense = np.maximum(rng.normal(size=(pictures, features)), 0).astype(np.float32)
    dense[:, 0] += 0.5  # a feature that always fires: its minimum is not 0
    dense[:, 1] = 0  # one that never does
    dense[:, 2] = 0
    dense[3, 2] = 1  # one that fires once
    return dense


def by_pairs(codes: Any, embeddings: Any) -> float:
    """The monosemanticity score as its formula says."""
    a = (codes - codes.min()) / (codes.max() - codes.min())
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    pairs = list(combinations(range(len(a)), 2))
    weight = sum(a[i] * a[j] for i, j in pairs)
    return float(sum(a[i] * a[j] * (unit[i] @ unit[j]) for i, j in pairs) / weight)


def test_monosemanticity_in_one_pass_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    dense = peaks_of(rng, 20, 6)
    embeddings = rng.normal(size=(20, 5)) + 0.5
    found = monosemanticity(csr_array(dense), embeddings)
    assert np.isnan(found[1:3]).all()
    for feature in (0, 3, 4, 5):
        expected = by_pairs(dense[:, feature].astype(np.float64), embeddings)
        assert found[feature] == pytest.approx(expected, abs=1e-12)
    everywhere = level_of_chance(embeddings)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = [unit[i] @ unit[j] for i, j in combinations(range(20), 2)]
    assert everywhere == pytest.approx(np.mean(cosines))


def test_a_feature_of_one_kind_of_picture_is_monosemantic() -> None:
    kinds = np.repeat([0, 1], 10)
    codes = csr_array((kinds[:, None] == [0, 1]).astype(np.float32))
    assert monosemanticity(codes, np.eye(2)[kinds]) == pytest.approx([1, 1])
    assert level_of_chance(np.eye(2)[kinds]) == pytest.approx(90 / 190)


# ---------------------------------------------------------------------- Moran's I


def grid_edges(rows: int, cols: int) -> Any:
    places = np.arange(rows * cols).reshape(rows, cols)
    down = np.stack([places[:-1].ravel(), places[1:].ravel()], 1)
    right = np.stack([places[:, :-1].ravel(), places[:, 1:].ravel()], 1)
    return np.concatenate([down, right])


def test_a_checkerboard_a_gradient_and_a_flat_feature() -> None:
    row, col = np.divmod(np.arange(64), 8)
    values = np.stack([(row + col) % 2, col, np.ones(64)], 1).astype(np.float64)
    found = morans_i(values, grid_edges(8, 8))
    assert found[0] == pytest.approx(-1)
    assert found[1] > 0.85
    assert np.isnan(found[2])
    away = col - col.mean()
    weights = np.zeros((64, 64))
    for one, other in grid_edges(8, 8):
        weights[one, other] = weights[other, one] = 1
    expected = 64 / weights.sum() * (away @ weights @ away) / (away @ away)
    assert found[1] == pytest.approx(expected)


def test_permuted_patches_have_the_known_expectation() -> None:
    rng = np.random.default_rng(0)
    values = np.stack([rng.permutation(64).astype(np.float64) for _ in range(4000)], 1)
    found = morans_i(values, grid_edges(8, 8))
    assert found.mean() == pytest.approx(-1 / 63, abs=4.5 * found.std() / math.sqrt(4000))


def test_views_are_apart_and_rows_without_a_place_are_left_out() -> None:
    (layout,) = layouts([0])
    assert layout.patches is not None
    ((where, edges),) = grids(layout)
    assert where.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(edges) == 7  # 2 by 3
    layout.patches.box[5] = np.nan
    ((where, edges),) = grids(layout)
    assert where.tolist() == [0, 1, 2, 3, 4]
    assert len(edges) == 5
    tiles = type(layout.patches)(
        np.zeros(6, np.int64), ("tile 0",) * 4 + ("tile 1",) * 2,
        np.array([0, 0, 1, 1, 0, 0]), np.array([0, 1, 0, 1, 0, 1]),
        np.full(6, 2), np.full(6, 2), np.zeros((6, 4), np.float32),
    )  # fmt: skip
    found = list(grids(type(layout)(layout.rows, layout.kinds, None, tiles)))
    assert [len(edges) for _, edges in found] == [4]  # two patches are too few


def test_coherence_is_the_mean_over_views_in_which_a_feature_fires() -> None:
    layout = layouts([0])[0]
    code = torch.zeros(16, 2)
    code[0:3, 0] = 1  # the upper row of the first sample's patches
    code[8 + 6, 1] = 1  # a word: no patch
    block = Block((0, 1), torch.zeros(16, 4), torch.zeros(16, 4), np.repeat([0, 1], 8), (8, 8),
                  None, (layout, layout))  # fmt: skip
    found = Coherence(2)
    found.add(block, code)
    assert found.views.tolist() == [1, 0]
    expected = morans_i(np.array([[1.0], [1], [1], [0], [0], [0]]), grid_edges(2, 3))[0]
    assert found.value[0] == pytest.approx(expected)
    assert np.isnan(found.value[1])


# ---------------------------------------------------------------------- areas, intervals, p


def test_areas_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(-1, 4, size=(60, 5)).astype(np.float32) * (rng.random((60, 5)) < 0.6)
    scores[:, 4] = 0
    positive = rng.random((60, 3)) < 0.3
    found = areas(csr_array(scores), positive)
    once = np.ones((1, 60))
    for value in range(3):
        for feature in range(5):
            expected = roc_auc_score(positive[:, value], scores[:, feature])
            assert found[value, feature] == pytest.approx(expected)
            one = resampled(scores[:, feature], positive[:, value], once)[0]
            assert one == pytest.approx(expected)
    assert np.isnan(areas(csr_array(scores), np.ones((60, 1), bool))).all()
    assert (areas(csr_array((60, 2)), positive) == 0.5).all()


def test_resampled_areas_are_those_of_repeated_samples() -> None:
    rng = np.random.default_rng(1)
    scores, positive = rng.integers(0, 5, size=40).astype(float), rng.random(40) < 0.4
    weights = rng.multinomial(40, np.full(40, 1 / 40), size=6).astype(float)
    for weight, found in zip(weights, resampled(scores, positive, weights), strict=True):
        drawn = np.repeat(np.arange(40), weight.astype(int))
        assert found == pytest.approx(roc_auc_score(positive[drawn], scores[drawn]))


def test_groups_are_drawn_whole() -> None:
    drawn = Resampling.of(["a", "a", "b", "c"], 50, 0)
    assert drawn.groups == 3
    weights = drawn.at([0, 1, 2, 3])
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, [0, 2, 3]].sum(1) == 3).all()
    values = np.array([1.0, 3.0, 5.0, 7.0])
    assert drawn.sums(values) == pytest.approx(weights @ values)
    assert drawn.means(values) == pytest.approx(weights @ values / weights.sum(1))


def test_very_many_groups_are_drawn_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmlens_plugins.analysis.sae.judging.resampling._ELEMENTS", 50_000)
    names = [str(i) for i in range(200)]
    assert Resampling.of(names, 1000, 0).weights.shape == (250, 200)
    assert Resampling.of(names * 2, 100, 0).weights.shape == (100, 200)


def test_few_groups_make_no_small_p() -> None:
    sure = np.full(100, 5.0) + np.random.default_rng(0).normal(size=100) * 1e-6
    assert chance(5.0, sure, 4) == 2 / 2**4
    assert chance(5.0, sure, 40) < 1e-9
    assert math.isnan(chance(5.0, sure, 1))
    assert chance(0.0, np.zeros(100), 40) == 1


def test_a_difference_as_between_draws_is_no_finding() -> None:
    """Of dictionaries that all are random, one more is rarely called better than three others."""
    rng = np.random.default_rng(0)
    called = []
    for _ in range(600):
        drawn = rng.normal(size=3)
        own, between = rng.normal(), Between.of([drawn.tolist()])
        noise = rng.normal(size=100) * 1e-3  # many samples: nearly no error over groups
        called.append(chance(own - drawn.mean(), own - drawn.mean() + noise, 50, between) < 0.05)
    assert np.mean(called) < 0.05 + 4.5 * math.sqrt(0.05 * 0.95 / 600)
    several = Between.of([[0.0, 2.0], [5.0, 5.0], [float("nan"), 1.0], [3.0]])
    assert several == Between(1.0 * 1.5, 2)
    assert Between.of([[0.0, 2.0], [5.0, 5.0]], [0.5, 0.1]) == Between(0.7 * 1.5, 2)
    assert Between.of([[0.0, 2.0]], [3.0]) == Between(0.0, 1)
    assert Between.of([[0.5]]) is None
    wide = Between(0.01, 1000).widened(Interval(1.0, 1.0, 1.0))
    assert (wide.low, wide.high) == pytest.approx((1 - 0.196, 1 + 0.196), abs=1e-3)


# ---------------------------------------------------------------------- stability, the rest


def test_stability_is_a_matching_one_to_one() -> None:
    one = torch.eye(3)
    assert matched_cosine(one, -one[[2, 0, 1]]) == pytest.approx(1)
    twice = torch.stack([one[0], one[0], one[1]])  # only one of both can have direction 0
    assert matched_cosine(twice, one) == pytest.approx(2 / 3)
    assert matched_cosine(one, one[:1]) == pytest.approx(1)
    assert math.isnan(matched_cosine(one, one[:0]))
    assert by_chance(48, 48, 32, 0) == pytest.approx(0.42, abs=0.04)


def test_large_dictionaries_are_matched_to_the_nearest() -> None:
    drawn = torch.randn(4200, 8, generator=torch.Generator().manual_seed(0))
    assert matched_cosine(drawn, drawn[torch.randperm(4200)]) == pytest.approx(1, abs=1e-5)


def test_concepts_are_labels_by_task_and_attributes_with_enough_samples() -> None:
    def sample(i: int, task: str) -> Sample:
        known = {"size": float(i), "rare": "yes" if i == 0 else "no", "kind": f"k{i % 3}"}
        return Sample(f"{i}-{task}", "?", (f"{i}.png",), f"{task}{i % 2}", group=str(i), task=task,
                      attributes=known)  # fmt: skip

    samples = [sample(i, task) for i in range(60) for task in ("a", "b")]
    halves = split(samples, "vision.block.0/all", 0.5, 0)
    by = ("label", "size", "rare", "kind")
    found = {each.name: each for each in concepts(samples, halves, by)}
    assert set(found) == {"a", "b", "size", "kind"}  # one sample is no class
    assert found["a"].values
    assert set(found["a"].values) == {"a0", "a1"}
    assert len(found["a"].value) == 60  # of one picture the labels of all its questions
    assert found["b"].value[0] == "b0"
    assert sorted(name.split()[0] for name in found["size"].values) == ["above", "up"]
    twice = concepts(samples, halves, ("label", "a", "kind", "kind"))
    assert [each.name for each in twice] == ["a", "b", "kind"]  # nothing is called a
    apart = Split(halves.learn, halves.held[:2], halves.alike)
    assert concepts(samples, apart, ("kind",)) == []


def test_kept_rows_are_read_once_so_far_as_memory_goes() -> None:
    class Counted(TensorRows):
        asked: list[int] = []  # noqa: RUF012

        def read(self, samples: Any) -> list[torch.Tensor]:
            self.asked += samples
            return super().read(samples)

    rows = Counted(torch.arange(24.0).view(6, 4), [1, 2, 3])
    kept = KeptRows(rows, most=3 * 4)
    for _ in range(2):
        assert [len(part) for part in kept.read([2, 0, 1])] == [3, 1, 2]
    assert rows.asked == [2, 0, 1, 0, 1]  # three rows were kept
    assert torch.equal(kept.read([2])[0], rows.read([2])[0])


def test_densities_are_binned_by_half_powers_of_ten() -> None:
    names, shares = histogram(np.array([0, 1e-4, 0.05, 1.0]), 10_000)
    assert names[0] == "none"
    assert len(names) == 9
    assert shares[0] == shares[1] == shares[6] == shares[8] == 0.25


def test_kinds_of_rows_are_image_text_and_special() -> None:

    assert [MODALITIES[_OF_KIND[kind]] for kind in TokenKind] == [
        "text",
        "image",
        "special",
        "text",
        "special",
    ]
