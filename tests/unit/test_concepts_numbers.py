"""Neighbours, pairs and components of `concepts`, beside scikit-learn, numpy and plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples
from tests.unit._concepts import Rows, clusters, samples_of, store_of

from vlmlens_plugins.analysis.concepts import pca
from vlmlens_plugins.analysis.concepts.neighbours import Neighbours, find_neighbours
from vlmlens_plugins.analysis.concepts.options import ConceptsOptions, Metric
from vlmlens_plugins.analysis.concepts.pairs import Pairs
from vlmlens_plugins.analysis.concepts.rows import NotFinite, centred, read, unit
from vlmlens_plugins.analysis.concepts.scores import score
from vlmlens_plugins.analysis.concepts.sets import find_sets

METRICS: tuple[Metric, ...] = ("cosine", "euclidean")
OPTIONS = ConceptsOptions(permutations=99, resamples=200)


def distance(rows: Rows, i: int, j: int, metric: Metric) -> float:
    """By the definition, in float64."""
    moved = rows.astype(np.float64) - rows.astype(np.float64).mean(0)
    if metric == "euclidean":
        size = np.sqrt(np.square(rows, dtype=np.float64).sum(1).mean())
        return float(np.linalg.norm(moved[i] - moved[j]) / size)
    cosine = moved[i] @ moved[j] / (np.linalg.norm(moved[i]) * np.linalg.norm(moved[j]))
    return float(1 - cosine)


@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_are_those_of_a_plain_search_over_other_groups(metric: Metric) -> None:
    rows, _ = clusters(per_class=9)
    groups = np.arange(len(rows)) // 3
    found = find_neighbours(rows, groups, 4, metric)
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if groups[j] != groups[i]]
        nearest = sorted(others, key=lambda j: distance(rows, i, j, metric))[:4]
        assert found.places[i].tolist() == nearest
    assert found.there.all()


def test_neighbours_that_are_not_there_do_not_vote() -> None:
    rows, y = clusters(per_class=2, classes=2)
    groups = np.array([0, 0, 0, 1])
    found = find_neighbours(rows, groups, 3, "cosine")
    assert found.there.sum(1).tolist() == [1, 1, 1, 3]
    assert found.votes(y[None], 2)[0, :3].tolist() == [1, 1, 1]
    alone = find_neighbours(rows, np.zeros(4, np.int64), 3, "cosine")
    assert not alone.tested.any()


def test_votes_are_counted_and_of_as_many_the_nearer_label_wins() -> None:
    places = np.array([[0, 1, 2, 3]])
    near = Neighbours(places, np.ones_like(places, bool))
    votes = [near.votes(np.array([labels]), 3)[0, 0] for labels in ([2, 1, 1, 2], [0, 1, 1, 0])]
    assert votes == [2, 0]
    assert near.votes(np.array([[2, 1, 1, 1]]), 3)[0, 0] == 1
    fewer = Neighbours(places, np.array([[True, False, False, False]]))
    assert fewer.votes(np.array([[2, 1, 1, 1]]), 3)[0, 0] == 2


@pytest.mark.parametrize("metric", METRICS)
def test_silhouettes_are_those_of_scikit_learn(metric: Metric) -> None:
    rows, y = clusters(apart=2.0)
    y = np.where(np.arange(len(y)) == 0, 3, y)  # a concept with one sample
    groups = np.arange(len(rows))
    found = Pairs(rows, groups, metric).measure(y[None], 4).silhouette[0]
    moved = rows - rows.mean(0)
    np.testing.assert_allclose(found, silhouette_samples(moved, y, metric=metric), atol=2e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_pairs_of_one_group_do_not_count(metric: Metric) -> None:
    rows, y = clusters(per_class=6, apart=2.0)
    groups = np.arange(len(rows)) // 2
    labels = np.stack([y, np.random.default_rng(1).permutation(y)])
    found = Pairs(rows, groups, metric).measure(labels, 3)
    for draw, own in enumerate(labels):
        for i in range(len(rows)):
            others = [j for j in range(len(rows)) if groups[j] != groups[i]]
            far = {j: distance(rows, i, j, metric) for j in others}
            cosine = {j: 1 - distance(rows, i, j, "cosine") for j in others}
            means = {c: np.mean([far[j] for j in others if own[j] == c]) for c in range(3)}
            inside = np.mean([cosine[j] for j in others if own[j] == own[i]])
            outside = np.mean([cosine[j] for j in others if own[j] != own[i]])
            nearest = min(mean for c, mean in means.items() if c != own[i])
            mean = means[own[i]]
            assert found.within[draw, i] == pytest.approx(inside, abs=2e-5)
            assert found.between[draw, i] == pytest.approx(outside, abs=2e-5)
            silhouette = (nearest - mean) / max(nearest, mean)
            assert found.silhouette[draw, i] == pytest.approx(silhouette, abs=5e-5)


def test_many_labellings_are_measured_in_parts_as_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, y = clusters(per_class=5)
    pairs = Pairs(rows, np.arange(len(rows)), "cosine")
    labels = np.stack([np.random.default_rng(i).permutation(y) for i in range(7)])
    whole = pairs.measure(labels, 3)
    monkeypatch.setattr("vlmlens_plugins.analysis.concepts.pairs._AT_ONCE", 3 * 45)
    np.testing.assert_allclose(pairs.measure(labels, 3).separation, whole.separation, atol=1e-6)


@pytest.mark.parametrize(("count", "width"), [(40, 7), (12, 90), (9, 700)])
def test_components_are_those_of_numpys_svd(count: int, width: int) -> None:
    rng = np.random.default_rng(0)
    scales = np.geomspace(30, 0.1, width)
    rows = (rng.normal(size=(count, width)) * scales + 50).astype(np.float32)
    moved = rows.astype(np.float64) - rows.astype(np.float64).mean(0)
    left, values, right = np.linalg.svd(moved, full_matrices=False)
    parts = np.array_split(rows, 4)
    for found in (pca.of_rows(rows, 3), pca.of_blocks(lambda: iter(parts), width, 3)):
        shares = values**2 / (values**2).sum()
        np.testing.assert_allclose(found.shares, shares[:3], rtol=1e-4)
        assert (np.abs((found.axes * right[:3]).sum(1)) > 1 - 1e-4).all()
        places = np.abs(left[:, :3] * values[:3])
        np.testing.assert_allclose(np.abs(found.place(rows)), places, atol=2e-2)
        assert found.rows == count


def test_components_of_rows_without_variance_explain_nothing() -> None:
    same = np.full((5, 4), 2.5, np.float32)
    assert pca.of_rows(same, 3).shares.tolist() == [0, 0, 0]
    assert not pca.of_rows(same, 3).place(same).any()


def test_several_rows_are_averaged_and_stand_in_their_sample_s_place() -> None:
    samples = samples_of(["a", "b", "a", "b", "a"])
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(5, 3)).astype(np.float32)
    ragged = [rng.normal(size=(1 + i, 3)).astype(np.float32) for i in range(5)]
    store = store_of(samples, {"x/last": flat, "x/text": ragged})
    infos = {info.name: info for info in store.columns()}
    ids = ["s3", "s0", "s4"]
    np.testing.assert_array_equal(read(store, infos["x/last"], ids), flat[[3, 0, 4]])
    means = [ragged[i].mean(0) for i in (3, 0, 4)]
    np.testing.assert_allclose(read(store, infos["x/text"], ids), means, atol=1e-6)


@pytest.mark.parametrize("fault", [np.nan, np.inf, "no row"])
def test_rows_that_are_not_finite_are_refused(fault: Any) -> None:
    samples = samples_of(["a", "b"])
    given = [np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)]
    if fault == "no row":
        given[1] = np.ones((0, 3), np.float32)
    else:
        given[1][0, 1] = fault
    store = store_of(samples, {"x/text": given})
    with pytest.raises(NotFinite):
        read(store, store.columns()[0], ["s0", "s1"])


def test_what_differs_by_rounding_only_is_no_direction() -> None:
    rows = np.full((6, 4), 1000.0, np.float32)
    rows[0, 0] = np.nextafter(rows[0, 0], np.float32(np.inf))
    assert not centred(rows).any()
    rows[1, 1] += 1
    assert centred(rows)[1].any()
    assert np.linalg.norm(unit(centred(rows))[1]) == pytest.approx(1, abs=1e-6)
    assert not unit(np.zeros((2, 3), np.float32)).any()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_sizes_of_rows_do_not_matter(scale: float) -> None:
    rows, y = clusters()
    groups = np.arange(len(rows))
    sized = (rows * scale).astype(np.float32)
    for metric in METRICS:
        near = [find_neighbours(each, groups, 1, metric) for each in (rows, sized)]
        assert (near[0].places == near[1].places).mean() > 0.95
        found = [Pairs(each, groups, metric).measure(y[None], 3) for each in (rows, sized)]
        np.testing.assert_allclose(found[1].silhouette, found[0].silhouette, atol=1e-4)
    shares = [pca.of_blocks(lambda r=each: iter([r]), 6, 3).shares for each in (rows, sized)]
    np.testing.assert_allclose(shares[1], shares[0], rtol=1e-3)
    assert np.linalg.norm(unit(sized)[0]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("honest", [True, False])
def test_copies_of_a_sample_in_its_group_do_not_raise_its_neighbours_vote(honest: bool) -> None:
    """A search that ignores groups is fooled by copies; the analysis's is not."""
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(60, 8)), 4, axis=0).astype(np.float32)
    labels = np.repeat(rng.permutation(60) % 2, 4)
    groups = np.repeat(np.arange(60), 4) if honest else np.arange(240)
    samples = samples_of([("a", "b")[y] for y in labels], groups.tolist())
    (given,) = find_sets(["label"], samples)
    found = score("x/last", rows, given, OPTIONS, 99, 0)
    assert found is not None
    if honest:
        assert found.knn.found.value < 0.65
        assert found.gap.low < 0.1
        assert abs(found.pairs.separation.found.value) < 0.05
    else:
        assert found.knn.found.value == 1
        assert found.gap.value > 0.4
