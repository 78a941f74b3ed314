"""Unbiased linear CKA: against the textbook, planted truths, groups, blocks, intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, permutations

import numpy as np
import numpy.typing as npt
import pytest

from vlmlens.cka import (
    Cka,
    blocks_of,
    folds_of,
    jackknife,
    linear_cka,
    products,
    unbiased_cka,
)
from vlmlens.cka._hsic import Block

Array = npt.NDArray[np.float64]


def rows(seed: int, count: int, width: int) -> Array:
    return np.random.default_rng(seed).normal(size=(count, width))


def rotation(width: int) -> Array:
    return np.linalg.qr(rows(99, width, width))[0]


def textbook(x: Array, y: Array, *, biased: bool = False) -> float:
    """CKA from whole kernels, as the papers write it."""
    n = len(x)
    kernels = [(a - a.mean(0)) @ (a - a.mean(0)).T for a in (x, y)]
    if not biased:
        for kernel in kernels:
            np.fill_diagonal(kernel, 0)

    def hsic(k: Array, m: Array) -> float:
        one = np.ones(n)
        if biased:
            return float(np.trace(k @ m))
        total = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return float((np.trace(k @ m) + total - 2 / (n - 2) * one @ k @ m @ one) / (n * (n - 3)))

    k, m = kernels
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def of(arrays: Sequence[Array], groups: Sequence[object] | None = None, **options: int) -> Cka:
    names = [str(name) for name in (range(len(arrays[0])) if groups is None else groups)]
    return linear_cka(lambda c, which: arrays[c][which], len(arrays), names, **options)


def hsic(kernel: Array) -> float:
    """Of one kernel with itself."""
    made = Block(1, np.zeros(len(kernel), np.intp))
    made.add(kernel[None].copy(), 0)
    return float(made.hsic()[0, 0])


# ---------------------------------------------------------------------- right numbers


def test_it_is_the_textbooks_number() -> None:
    x = rows(0, 60, 7) + 5
    y = x @ rows(1, 7, 9) * 0.3 + rows(2, 60, 9)
    z = rows(3, 60, 3) ** 3
    found = of([x, y, z]).value
    for i, a in enumerate((x, y, z)):
        for j, b in enumerate((x, y, z)):
            assert found[i, j] == pytest.approx(textbook(a, b), abs=1e-9)
    assert unbiased_cka(x, y) == pytest.approx(found[0, 1], abs=1e-12)


def test_its_hsic_is_the_mean_over_all_fours_of_samples() -> None:
    """The U-statistic that the formula is the closed form of, counted out."""
    x = rows(4, 7, 3)
    k = x @ x.T
    fours = list(permutations(range(7), 4))
    mean = np.mean([k[a, b] * (k[a, b] + k[c, d] - 2 * k[a, c]) for a, b, c, d in fours])
    assert hsic(k) == pytest.approx(mean, abs=1e-12)


def test_the_mean_over_blocks_is_the_whole() -> None:
    """Over all blocks of five samples of seven; so a random partition is right on average."""
    x = rows(5, 7, 3)
    k = x @ x.T
    parts = [hsic(k[np.ix_(b, b)]) for b in combinations(range(7), 5)]
    assert np.mean(parts) == pytest.approx(hsic(k), rel=1e-12)


def test_rotation_scale_and_shift_change_nothing() -> None:
    x = rows(6, 80, 16).astype(np.float32)
    turned = (3 * x @ rotation(16) + 100).astype(np.float32)
    found = of([x.astype(np.float64), turned.astype(np.float64)]).value
    assert np.allclose(found, 1, atol=1e-5)
    stretched = x * np.linspace(0.1, 3, 16)
    assert of([x, stretched]).value[0, 1] < 0.95, "but stretching some directions does"


def test_the_bias_of_few_samples_is_gone() -> None:
    pairs = [(rows(2 * i, 40, 40), rows(2 * i + 1, 40, 40)) for i in range(20)]
    assert np.mean([textbook(x, y, biased=True) for x, y in pairs]) > 0.4
    numbers = [unbiased_cka(x, y) for x, y in pairs]
    assert abs(np.mean(numbers)) < 0.03
    assert min(numbers) < 0 < max(numbers)


def test_rows_of_another_sample_are_seen() -> None:
    x = rows(7, 100, 8)
    y = x @ rotation(8)
    assert unbiased_cka(x, y) > 0.999
    assert abs(unbiased_cka(x, np.roll(y, 1, 0))) < 0.1


# ---------------------------------------------------------------------- groups and blocks


def test_what_a_group_shares_counts_once() -> None:
    """Five samples of a picture have its rows: without groups, noise would look alike."""
    groups = np.repeat(np.arange(40), 5)
    arrays = [rows(seed, 40, 20)[groups] for seed in (8, 9)]
    assert of(arrays).value[0, 1] > 0.2, "that is the mistake"
    found = of(arrays, groups)
    assert abs(found.value[0, 1]) < 0.05
    assert (found.blocks, found.samples) == (5, 200)
    alone = of([one[::5] for one in arrays])
    assert found.value[0, 1] == pytest.approx(alone.value[0, 1], abs=1e-9)
    assert found.error[0, 1] == pytest.approx(alone.error[0, 1], rel=1e-6)


@pytest.mark.parametrize("sizes", [[1] * 90, [3] * 20, [1, 2, 3, 4] * 6, [200, *[1] * 30], [7] * 4])
@pytest.mark.parametrize("size", [5, 16, 500])
def test_no_block_has_two_of_a_group(sizes: list[int], size: int) -> None:
    groups = [str(i) for i, count in enumerate(sizes) for _ in range(count)]
    blocks = blocks_of(groups, size, np.random.default_rng(0))
    used = np.concatenate(blocks)
    assert len(set(used.tolist())) == len(used)
    for block in blocks:
        names = [groups[i] for i in block]
        assert max(Counter(names).values()) == 1
        assert len(block) >= min(5, len(sizes))
    if max(sizes) < 10:
        assert len(used) == len(groups)
    assert {groups[i] for i in used} == set(groups), "every group is there"


def test_strips_in_little_memory_give_the_whole() -> None:
    """Kernels of 300 samples in 30 strips, and of blocks of samples in several each."""
    x, y = rows(10, 300, 6), rows(11, 300, 6)
    arrays = [x, x + y, y**2]
    reads: list[int] = []

    def read(column: int, which: npt.NDArray[np.intp]) -> Array:
        reads.append(column)
        return arrays[column][which]

    names = [f"g{i // 2}" for i in range(300)]
    for block in (300, 40):
        whole = linear_cka(read, 3, names, block=block, seed=1)
        reads.clear()
        strips = linear_cka(read, 3, names, block=block, seed=1, memory=8 * 3 * 150 * 5)
        assert reads.count(0) == (60 if block == 300 else 16)
        assert np.allclose(strips.value, whole.value, atol=1e-12)
        assert np.allclose(strips.error, whole.error, rtol=1e-9)
        assert strips.blocks == whole.blocks == (2 if block == 300 else 8)


def test_blocks_come_near_the_whole_and_are_read_once() -> None:
    x = rows(10, 1500, 6)
    y = x @ rows(11, 6, 6) + 2 * rows(12, 1500, 6)
    arrays, asked = [x, y], list[tuple[int, int]]()

    def read(column: int, which: npt.NDArray[np.intp]) -> Array:
        asked.extend((column, int(i)) for i in which)
        return arrays[column][which]

    found = linear_cka(read, 2, [str(i) for i in range(1500)], block=128)
    assert found.blocks == 12
    assert sorted(asked) == [(c, i) for c in (0, 1) for i in range(1500)], "each is read once"
    whole = of(arrays)
    assert whole.blocks == 1
    assert abs(found.value - whole.value).max() < whole.error[0, 1] / 2
    assert found.error[0, 1] == pytest.approx(whole.error[0, 1], rel=0.25)


def test_many_small_blocks_are_read_some_at_a_time() -> None:
    groups = [f"g{i % 6}" for i in range(6000)]
    most: list[int] = []

    def read(column: int, which: npt.NDArray[np.intp]) -> Array:
        most.append(len(which))
        return rows(column, 6000, 2)[which]

    assert linear_cka(read, 2, groups).blocks == 1000
    assert max(most) <= 2048


def test_progress_ends_complete() -> None:
    told: list[tuple[int, int]] = []
    x = rows(13, 40, 3)
    names = [str(i) for i in range(40)]
    linear_cka(
        lambda c, which: x[which], 3, names, block=10, progress=lambda *step: told.append(step)
    )
    assert told[-1][0] == told[-1][1]
    assert told == sorted(told)


# ---------------------------------------------------------------------- intervals


def test_errors_are_those_of_leaving_out_each_group_by_hand() -> None:
    x, y = rows(14, 12, 4), rows(15, 12, 4)
    y += x
    found = of([x, y])
    keep = [np.delete(np.arange(12), i) for i in range(12)]
    without = np.array([textbook(x[k], y[k]) for k in keep])
    spread = 11 / 12 * np.square(without - without.mean()).sum()
    assert found.error[0, 1] == pytest.approx(np.sqrt(spread), rel=1e-9)
    low, high = found.interval
    assert low[0, 1] == pytest.approx(found.value[0, 1] - 2.200985 * found.error[0, 1], rel=1e-6)
    assert high.max() <= 1


def test_products_without_a_fold_by_hand() -> None:
    parts = [a @ a.T for a in (rows(16, 9, 3), rows(17, 9, 2))]
    folds = np.array([0, 0, 0, 1, 1, 3, 3, 3, 3])
    whole, without = products(np.stack(parts), folds, 4)
    for fold in range(4):
        keep = np.flatnonzero(folds != fold)
        cut = [part[np.ix_(keep, keep)] for part in parts]
        assert without[fold, 0, 1] == pytest.approx((cut[0] * cut[1]).sum())
    assert whole[0, 1] == pytest.approx((parts[0] * parts[1]).sum())


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = rows(18, 30, 1)[:, 0]
    sizes = np.array([1] * 10 + [2] * 5 + [5] * 2)
    folds = np.repeat(np.arange(len(sizes)), sizes)
    without = np.array([values[folds != f].mean() for f in range(len(sizes))])
    error = jackknife(values.mean(keepdims=True), without[:, None], sizes)
    assert error[0] == pytest.approx(values.std(ddof=1) / np.sqrt(30), rel=0.4)
    ones = np.array([values[np.arange(30) != i].mean() for i in range(30)])
    error = jackknife(values.mean(keepdims=True), ones[:, None], np.ones(30, np.intp))
    assert error[0] == pytest.approx(values.std(ddof=1) / np.sqrt(30), rel=1e-9)


def test_intervals_hold_the_truth() -> None:
    """Of 100 intervals of 95 %, at least 88; groups of two that share a part of their rows."""
    turn = rows(19, 6, 6)

    def drawn(seed: int, groups: int, per: int) -> list[Array]:
        rng = np.random.default_rng(seed)
        x = np.repeat(rng.normal(size=(groups, 6)), per, 0) + 0.3 * rng.normal(
            size=(groups * per, 6)
        )
        return [x, x @ turn + 3 * np.repeat(rng.normal(size=(groups, 6)), per, 0)]

    truth = of(drawn(0, 2000, 1)).value[0, 1]
    held = 0
    for seed in range(1, 101):
        low, high = (
            end[0, 1] for end in of(drawn(seed, 40, 2), np.repeat(np.arange(40), 2)).interval
        )
        held += low <= truth <= high
    assert held >= 88


def test_folds_are_whole_groups() -> None:
    groups = [f"g{i % 250}" for i in range(600)]
    folds = folds_of(groups, np.random.default_rng(0))
    assert len({(name, fold) for name, fold in zip(groups, folds, strict=True)}) == 250
    assert set(folds.tolist()) == set(range(100))


# ---------------------------------------------------------------------- degenerate columns


def test_constant_and_broken_columns_spoil_no_other() -> None:
    x, y = rows(20, 50, 4), rows(21, 50, 4)
    flat = np.full((50, 4), 1e4) + 1e-4 * rows(22, 50, 4)
    nan, infinite = x.copy(), x.copy()
    nan[3, 2], infinite[49, 0] = np.nan, np.inf
    found = of([x, flat, nan, y, infinite], block=20)
    assert (found.constant, found.broken) == ({1}, {2, 4})
    assert np.isnan(found.value[[1, 2, 4]]).all()
    assert np.isnan(found.value[:, [1, 2, 4]]).all()
    clean = of([x, x, x, y, x], block=20).value[0, 3]
    assert found.value[0, 3] == pytest.approx(clean, abs=1e-12)


def test_too_few_samples() -> None:
    with pytest.raises(ValueError, match="3 groups"):
        of([rows(0, 30, 2)], np.repeat(np.arange(3), 10))
    four = of([rows(0, 4, 2), rows(1, 4, 2)])
    assert np.isnan(four.error).all()
    five = of([rows(0, 5, 2), rows(1, 5, 2)])
    assert five.value.shape == (2, 2)


def test_equal_seeds_give_equal_numbers() -> None:
    arrays, groups = [rows(23, 300, 4), rows(24, 300, 4)], np.arange(300) // 3
    first, again, other = (of(arrays, groups, block=30, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.value, again.value)
    assert not np.array_equal(first.value, other.value)
