"""Scores of signals, and what is held out: against sklearn and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from vlmlens_plugins.analysis.hallucination.held_out import folds_of, joined, known, learned
from vlmlens_plugins.analysis.hallucination.scores import (
    Compared,
    area_of_risk,
    average_precision,
    balanced_accuracy,
    resamples,
    threshold,
)


def drawn(n: int = 60) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    bad = rng.random(n) < 0.4
    scores = np.round(rng.normal(size=n) + bad, 1)
    return bad, scores, rng.choice(["red", "blue", "green"], n).tolist()


def test_auroc_within_strata_is_that_of_sklearn_in_each_weighted_by_pairs() -> None:
    bad, scores, strata = drawn()
    areas, pairs = [], []
    for name in set(strata):
        own = np.array([each == name for each in strata])
        areas.append(roc_auc_score(bad[own], scores[own]))
        pairs.append(bad[own].sum() * (~bad[own]).sum())
    found = Compared.of(bad, strata).auroc(scores)[0]
    assert found == pytest.approx(np.average(areas, weights=pairs), abs=1e-12)
    whole = Compared.of(bad, [""] * len(bad)).auroc(scores)[0]
    assert whole == pytest.approx(roc_auc_score(bad, scores), abs=1e-12)


def test_a_resample_counts_samples_as_often_as_their_group_is_drawn() -> None:
    bad, scores, _ = drawn()
    groups = [str(i // 3) for i in range(len(bad))]
    weights = resamples(groups, 5, np.random.default_rng(1))
    assert all(len(set(one[i : i + 3])) == 1 for one in weights for i in range(0, len(bad), 3))
    found = Compared.of(bad, [""] * len(bad)).auroc(scores, weights)
    for area, times in zip(found, weights.astype(int), strict=True):
        again = np.repeat(np.arange(len(bad)), times)
        assert area == pytest.approx(roc_auc_score(bad[again], scores[again]), abs=1e-12)


def test_precision_risk_and_threshold_are_those_of_plain_loops() -> None:
    bad, scores, _ = drawn()
    assert average_precision(bad, scores) == pytest.approx(average_precision_score(bad, scores))
    expected = []
    for k in range(1, len(bad) + 1):
        cut = np.sort(scores)[k - 1]
        below, ties = scores < cut, scores == cut
        expected.append((bad[below].sum() + (k - below.sum()) * bad[ties].mean()) / k)
    assert area_of_risk(bad, scores) == pytest.approx(np.mean(expected), abs=1e-12)
    best = max(balanced_accuracy(bad, scores > cut) for cut in (-9.0, *scores))
    assert balanced_accuracy(bad, scores > threshold(bad, scores)) == pytest.approx(best)


def test_training_samples_share_neither_group_nor_object_with_the_tested_ones() -> None:
    rng = np.random.default_rng(2)
    groups = [f"g{i // 2}" for i in range(80)]
    objects = rng.choice(list("abcdefgh"), 80).tolist()
    folds = folds_of(rng.random(80) < 0.4, groups, objects, 4, 0)
    assert folds.parts == 4
    assert len(set(zip(groups, folds.fold.tolist(), strict=True))) == 40
    assert len(set(zip(objects, folds.part.tolist(), strict=True))) == len(set(objects))
    for cell in folds.cells:
        for left_out in ([cell], *([cell, other] for other, _ in folds.others(cell))):
            train = folds.without(left_out)
            tested = np.any([folds.inside(each) for each in left_out], 0)
            for names in (groups, objects):
                both = np.array(names)
                assert not set(both[train]) & set(both[tested])


def test_learned_and_joined_scores_are_those_of_sklearn() -> None:
    rng = np.random.default_rng(3)
    bad = rng.random(90) < 0.4
    rows = rng.normal(size=(90, 5)) + bad[:, None]
    rows[:, 0] = 7.0
    objects = [str(i % 6) for i in range(90)]
    folds = folds_of(bad, [str(i) for i in range(90)], objects, 3, 0)
    compared = Compared.of(bad, [""] * 90)
    found = learned([rows], compared, folds, [0.1])
    scaled = (rows - rows.mean(0)) / np.where(rows.std(0) > 0, rows.std(0), 1)
    for number, cell in enumerate(folds.cells):
        for left_out, tested in [
            ([cell], folds.inside(cell)),
            *(([cell, other], own) for other, own in folds.others(cell)),
        ]:
            train = folds.without(left_out)
            weights = LogisticRegression(C=0.1).fit(scaled[train], bad[train]).coef_[0]
            expected = (scaled - scaled[train].mean(0)) @ weights
            assert found.scores[number, tested] == pytest.approx(
                expected[tested], rel=1e-2, abs=1e-2
            )
    second = rng.normal(size=90)
    both = joined([found.scores, known(second, folds).scores], bad, folds)
    for number, cell in enumerate(folds.cells):
        train = folds.without([cell])
        pair = np.stack([found.scores[number], second], 1)
        pair = (pair - pair[train].mean(0)) / pair[train].std(0)
        weights = LogisticRegression().fit(pair[train], bad[train]).coef_[0]
        own = folds.inside(cell)
        assert both[own] == pytest.approx(pair[own] @ weights, rel=1e-2, abs=1e-2)


def test_two_objects_are_held_out_and_one_is_not() -> None:
    bad = np.arange(40) % 4 == 0
    groups = [str(i) for i in range(40)]
    two = folds_of(bad, groups, [str(i % 3 == 0) for i in range(40)], 4, 0)
    assert two.parts == 2
    assert all(len(set(two.part[two.without([cell])])) == 1 for cell in two.cells)
    assert all(two.others(cell) for cell in two.cells)
    assert folds_of(bad, groups, ["cube"] * 40, 4, 0).parts == 1


# ------------------------------------------------------------- planted truths
