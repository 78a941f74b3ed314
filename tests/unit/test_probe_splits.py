"""Splits, and labels that say nothing."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from vlmlens.errors import MissingAnnotation
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.probe import ProbeOptions
from vlmlens_plugins.analysis.probe.control_labels import (
    constant_in_groups,
    random_by_type,
    shuffled,
    shuffled_within,
)
from vlmlens_plugins.analysis.probe.prober import make_split
from vlmlens_plugins.analysis.probe.splits import (
    Split,
    across,
    assign_folds,
    by_both,
    by_value,
    exchanged_within,
    folded,
    inner_folds,
    learnable,
)
from vlmlens_plugins.analysis.probe.targets import Target, find_targets


def test_shuffling_keeps_whole_groups_together() -> None:
    groups = np.repeat(np.arange(10), [1, 2, 3, 4, 5, 5, 4, 3, 2, 1])
    y = (np.arange(10) % 3)[groups]
    draws = shuffled(y, groups, 50, np.random.default_rng(0))
    assert all(constant_in_groups(draw, groups) for draw in draws)
    assert len({draw.tobytes() for draw in draws}) > 40


def test_shuffling_mixed_groups_keeps_the_counts_and_breaks_the_relation() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(50), 4)
    y = (rng.random(200) < np.where(groups % 2 == 0, 0.9, 0.1)).astype(int)
    assert not constant_in_groups(y, groups)
    draws = shuffled(y, groups, 400, rng)
    assert (draws.sum(1) == y.sum()).all()
    assert (draws == y).mean() == pytest.approx(0.5, abs=0.02)
    within = np.mean([[draw[groups == g].var() for g in range(50)] for draw in draws[:20]])
    alone = np.mean([[rng.permutation(y)[groups == g].var() for g in range(50)] for _ in range(20)])
    assert within < 0.7 * alone


@pytest.mark.parametrize("classes", [2, 3, 12])
@pytest.mark.parametrize("group", [1, 3])
def test_folds_are_scikit_learns(classes: int, group: int) -> None:
    rng = np.random.default_rng(classes)
    for seed in range(4):
        y = rng.integers(0, classes, 150)
        groups = rng.permutation(150) // group
        right = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        fold = inner_folds(y, groups, 5, seed)
        for i, (_, test) in enumerate(right.split(y, y, groups)):
            assert np.flatnonzero(fold == i).tolist() == test.tolist()


def test_folds_never_split_a_group_and_are_stratified() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 80, 400)
    y = rng.integers(0, 3, 400)
    fold = assign_folds(y, groups, folds=5, seed=0)
    for group in range(80):
        assert len(np.unique(fold[groups == group])) <= 1
    assert np.bincount(fold).min() > 50


def test_folds_that_cannot_hold_every_class_are_an_error() -> None:
    groups = np.array([0] * 20 + [1] * 20 + [2] * 5)
    y = np.array([0] * 20 + [1] * 20 + [2] * 5)
    with pytest.raises(MissingAnnotation, match="missing from a training part"):
        assign_folds(y, groups, folds=3, seed=0)


def test_shuffling_within_blocks_leaves_their_counts_alone() -> None:
    rng = np.random.default_rng(0)
    y, block = rng.integers(0, 3, 60), np.arange(60) % 4
    draws = np.concatenate(list(shuffled_within(y, np.arange(60), block, 30, rng, chunk=20)))
    assert draws.shape == (30, 60)
    for i in range(4):
        assert (np.sort(draws[:, block == i], 1) == np.sort(y[block == i])).all()


def test_the_control_task_gives_each_type_one_label() -> None:
    rng = np.random.default_rng(0)
    types = np.repeat(np.arange(30), 5)
    y = (rng.random(150) < 0.2).astype(int)
    draws = random_by_type(y, types, 400, rng)
    assert all(constant_in_groups(draw, types) for draw in draws)
    assert draws.mean() == pytest.approx(y.mean(), abs=0.02)
    assert len({draw.tobytes() for draw in draws}) > 380


def test_numbers_are_shuffled_too() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=40)
    draws = shuffled(y, np.arange(40), 10, rng)
    np.testing.assert_allclose(np.sort(draws, 1), np.tile(np.sort(y), (10, 1)))
    assert not (draws == y).all(1).any()


def scenes(**more: Any) -> list[Sample]:
    """Every shape in every color, asked in three ways about 12 pictures each."""
    made = []
    for shape, color in itertools.product(("cube", "ball"), ("red", "blue", "green")):
        for picture, template in itertools.product(range(12), "abc"):
            group = f"{shape}{color}{picture}"
            attributes = {"shape": shape, "color": color, "template": template, **more}
            made.append(
                Sample(
                    f"{group}{template}", template, label=color, group=group, attributes=attributes
                )
            )
    return made


def split_of(samples: list[Sample], **options: Any) -> tuple[Target, Split]:
    (target,), _ = find_targets(["label"], samples, folds=4, min_per_class=10)
    return target, make_split(target, ProbeOptions(folds=4, **options), 0)


def no_group_on_both_sides(target: Target, split: Split) -> bool:
    return all(
        not set(target.groups[split.cell == i]) & set(target.groups[split.train[i]])
        for i in range(split.cells)
    )


def test_by_group_and_at_random() -> None:
    target, split = split_of(scenes())
    assert no_group_on_both_sides(target, split)
    assert split.tested.all()
    loose_target, loose = split_of(scenes(), split="random")
    assert loose.tested.all()
    assert not no_group_on_both_sides(loose_target, loose)


def test_by_template_holds_out_wording_and_picture() -> None:
    target, split = split_of(scenes(), split="template")
    assert split.tested.all()
    assert no_group_on_both_sides(target, split)
    templates = np.array([sample.attributes["template"] for sample in target.samples])
    for i in range(split.cells):
        assert split.train[i].any()
        assert not set(templates[split.cell == i]) & set(templates[split.train[i]])


def test_one_template_cannot_be_held_out() -> None:
    samples = [s for s in scenes() if s.prompt == "a"]
    with pytest.raises(MissingAnnotation, match="one prompt template"):
        split_of(samples, split="template")


def test_leave_one_value_out_learns_from_the_parts_and_tests_the_whole() -> None:
    """No red cube is learned from, but red balls and blue cubes are."""
    target, split = split_of(scenes(), split="value", hold_out="shape+color")
    assert split.cells == 6
    assert split.tested.all()
    kinds = np.array([f"{s.attributes['shape']} {s.attributes['color']}" for s in target.samples])
    for i in range(6):
        (held,) = set(kinds[split.cell == i])
        assert set(kinds[split.train[i]]) == set(kinds) - {held}
    assert (split.block == 0).all()


def test_a_value_that_is_the_class_itself_cannot_be_held_out() -> None:
    with pytest.raises(MissingAnnotation, match="no probe has two classes"):
        split_of(scenes(), split="value", hold_out="color")
    with pytest.raises(MissingAnnotation, match="1 value to hold out"):
        split_of(scenes(place="table"), split="value", hold_out="place")


def test_values_that_a_sample_lacks_are_never_tested() -> None:
    split = by_value(["a", None, "b", "a"], np.arange(4))
    assert split.tested.tolist() == [True, False, True, True]
    assert split.train[0].tolist() == [False, True, True, False]


def test_across_runs_no_group_is_shared() -> None:
    split = across(4, np.array([0, 1, 2, 3, 3, 4]))
    assert split.cell.tolist() == [-1, -1, -1, -1, 0, 0]
    assert split.train[0].tolist() == [True, True, True, False, False, False]


def test_controls_exchange_labels_within_folds_that_hold_whole_groups() -> None:
    """By group and by template they can; a random split cuts groups, so labels go everywhere."""
    for kind in ("group", "template"):
        target, split = split_of(scenes(), split=kind)
        parts = exchanged_within(split, target.groups)
        assert len(np.unique(parts)) == 4
        assert all(len(np.unique(parts[target.groups == g])) == 1 for g in np.unique(target.groups))
    target, split = split_of(scenes(), split="random")
    assert (exchanged_within(split, target.groups) == 0).all()
    alone = np.arange(len(target.y))
    np.testing.assert_array_equal(exchanged_within(split, alone), split.block)
    other = across(4, np.array([0, 1, 2, 3, 3, 4]))
    assert exchanged_within(other, np.array([0, 1, 2, 3, 3, 4])).tolist() == [0, 0, 0, 0, 1, 1]


def test_cells_that_cannot_be_learned_are_left_out() -> None:
    y = np.array([0, 0, 1, 1, 2, 2])
    train = np.array(
        [[False, False, True, True, True, True], [True, True, False, False, False, True]]
    )
    found = learnable(Split(np.array([0, 0, 1, 1, 1, -1]), train, np.zeros(6, np.int64)), y)
    assert found.cells == 1
    assert found.tested.tolist() == [False, False, False, False, True, False]


def test_inner_parts_are_grouped() -> None:
    groups = np.repeat(np.arange(30), 4)
    inner = inner_folds(np.arange(30)[groups] % 2, groups, 3, 0)
    assert len(np.unique(inner)) == 3
    assert constant_in_groups(inner, groups)


def test_a_fold_is_learned_from_where_it_is_not_held_out() -> None:
    split = folded(np.array([0, 1, 2, 0]))
    assert split.train.astype(int).tolist() == [[0, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1]]


def test_templates_are_dealt_into_at_most_as_many_parts_as_folds() -> None:
    fold = np.arange(60) % 5
    split = by_both(fold, [f"t{i}" for i in range(60)], 5, 0)
    assert split.cells <= 25
    assert split.tested.all()
