"""Batches of rows in random order: nothing lost, nothing twice, well mixed, resumed bit for bit."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vlmlens.errors import DataError, SpecError
from vlmlens_plugins.sae import Rows, Shuffled, SomeRows, TensorRows

SHAPES = {
    "equal": [3] * 50,
    "ragged": [7, 0, 1, 4, 0, 0, 12, 2, 5, 3] * 8,
    "a row each": [1] * 61,
    "one sample": [70],
    "mostly none": [0, 0, 5, 0, 9],
    "one is huge": [2, 300, 1, 1, 50, 3],
    "fewer than a batch": [2, 3],
}


def numbered(lengths: Sequence[int]) -> TensorRows:
    """Rows that hold their own number, and that of their sample."""
    samples = np.repeat(np.arange(len(lengths)), lengths)
    rows = np.stack([np.arange(sum(lengths)), samples], 1).astype(np.float32)
    return TensorRows(torch.from_numpy(rows), list(lengths), "x/all")


def taken(feed: Shuffled, count: int) -> list[torch.Tensor]:
    return [rows for (rows,) in itertools.islice(feed, count)]


def rounds(feed: Shuffled, rows: int, count: int) -> torch.Tensor:
    """The numbers of the rows of the first rounds, `[count, rows]`."""
    batches = taken(feed, -(-rows * count // feed.batch))
    return torch.cat(batches)[: rows * count, 0].view(count, rows)


@pytest.mark.parametrize("lengths", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(("batch", "buffer"), [(8, 32), (1, 1), (7, 64), (16, 2**18)])
def test_every_row_comes_once_per_epoch(lengths: list[int], batch: int, buffer: int) -> None:
    feed = Shuffled(numbered(lengths), batch=batch, buffer=buffer, seed=3)
    rows = sum(lengths)
    assert feed.batch == min(batch, rows)
    found = rounds(feed, rows, 3)
    for epoch in found:
        assert torch.equal(epoch.sort().values, torch.arange(rows).float())
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("lengths", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("done", [0, 1, 5, 11])
def test_it_goes_on_bit_for_bit(lengths: list[int], done: int, tmp_path: Path) -> None:
    def feed() -> Shuffled:
        return Shuffled(numbered(lengths), batch=6, buffer=40, seed=1)

    first = feed()
    batches = iter(first)
    before = list(itertools.islice(batches, done))
    state = first.state()
    wanted = list(itertools.islice(batches, 9))
    whole = list(itertools.islice(feed(), done + 9))
    kept = through_files(state, tmp_path / "state")
    for begun in (False, True):
        again = feed()
        if begun:
            again.statistics()
        again.restore(kept)
        found = [*before, *itertools.islice(again, 9)]
        for one, other, right in zip(found, [*before, *wanted], whole, strict=True):
            assert torch.equal(one[0], right[0])
            assert torch.equal(other[0], right[0])


def through_files(state: Any, place: Path) -> dict[str, Any]:
    """A state as a checkpoint keeps it."""
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    rest = {name: value for name, value in state.items() if name not in tensors}
    save_file(tensors, place)
    return {**json.loads(json.dumps(rest)), **load_file(place)}


def samples_per_batch(batches: Sequence[torch.Tensor]) -> list[int]:
    return [len(rows[:, 1].unique()) for rows in batches]


def test_batches_mix_rows_of_many_samples() -> None:
    """400 samples of 64 rows. In a batch of 64 rows of any samples, about 59 are distinct."""
    rows = numbered([64] * 400)
    mixed = samples_per_batch(taken(Shuffled(rows, batch=64, buffer=12_800), 400))
    assert np.mean(mixed) > 44, "a block has 100 samples, of which 47 are expected"
    assert min(mixed) >= 35
    small = samples_per_batch(taken(Shuffled(rows, batch=64, buffer=256), 400))
    assert max(small) <= 6, "the same check sees that two samples are too few to mix"
    unshuffled = torch.cat(rows.read(range(400))).split(64)
    assert max(samples_per_batch(unshuffled)) == 1


def test_the_last_blocks_of_an_epoch_mix_too() -> None:
    """136 samples at 64 per block: 64, 36 and 36, not 64, 64 and 8."""
    feed = Shuffled(numbered([8] * 136), batch=64, buffer=1024)
    mixed = samples_per_batch(taken(feed, 136 * 8 // 64))
    assert min(mixed) > 25


class Spy(TensorRows):
    """Counts how many rows were read, and knows which samples were asked for together."""

    def __init__(self, lengths: Sequence[int]) -> None:
        own = numbered(lengths)
        super().__init__(torch.cat(own.read(range(len(lengths)))), list(lengths))
        self.rows, self.asked = 0, list[list[int]]()

    def read(self, samples: Sequence[int]) -> list[torch.Tensor]:
        found = super().read(samples)
        self.asked.append(list(samples))
        self.rows += sum(map(len, found))
        return found


def test_no_more_than_the_buffer_is_read_ahead() -> None:
    spy = Spy([10] * 1000)
    feed = Shuffled(spy, batch=50, buffer=400)
    probed = 16 * 10
    handed, most = 0, 0
    for (rows,) in itertools.islice(feed, 150):
        handed += len(rows)
        most = max(most, spy.rows - probed - (handed - len(rows)))
    assert 200 <= most <= 400 + max(map(len, spy.asked)) * 10
    assert spy.rows < 10_000, "150 batches of 50 rows are less than an epoch"


def test_rows_that_fit_are_read_once() -> None:
    spy = Spy([10] * 20)
    found = rounds(Shuffled(spy, batch=20), 200, 5)
    assert spy.rows == 200 + 16 * 10, "and a few samples to see how many rows they have"
    assert len({tuple(epoch.tolist()) for epoch in found}) == 5


def test_samples_that_belong_together_are_read_together() -> None:
    spy = Spy([4] * 60)
    pictures = [number % 20 for number in range(60)]
    taken(Shuffled(spy, batch=8, buffer=80, together=pictures), 30)
    order = [number for part in spy.asked[1:] for number in part][:60]
    assert [number % 20 for number in order[::3]] == [number % 20 for number in order[2::3]]
    assert order[::3] != sorted(order[::3])


def test_statistics_are_those_of_the_rows() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(3.0, 2.0, (900, 5))
    source = TensorRows(torch.from_numpy(rows), [9] * 100)
    (found,) = Shuffled(source, batch=10).statistics()
    np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.square, (rows**2).sum(1).mean(), rtol=1e-6)
    feed = Shuffled(source, batch=10, buffer=200)
    (some,) = feed.statistics()
    assert some.rows == 99
    np.testing.assert_allclose(some.mean, rows.mean(0), atol=1.0)
    taken(feed, 20)
    (later,) = feed.statistics()
    assert torch.equal(later.mean, some.mean)


def test_a_transcoder_is_fed_pairs() -> None:
    rows = numbered([5, 0, 8, 2])
    (every,) = [torch.cat(rows.read(range(4)))]
    target = TensorRows(every[:, :1] * 10, [5, 0, 8, 2], "y/all")
    for one, other in itertools.islice(Shuffled(rows, target, batch=4, buffer=8), 12):
        assert torch.equal(one[:, :1] * 10, other)
    assert Shuffled(rows, target).widths == (2, 1)
    wrong = TensorRows(every[:, :1], [5, 1, 7, 2], "y/all")
    with pytest.raises(DataError, match=r"number \d has other numbers .* 'x/all', . in 'y/all'"):
        taken(Shuffled(rows, wrong, batch=4), 1)
    with pytest.raises(DataError, match="x/all: 4, y/all: 2"):
        Shuffled(rows, TensorRows(every, [10, 5], "y/all"))


def test_some_rows_of_each_sample() -> None:
    rows = numbered([40, 3, 0, 40])
    some = SomeRows(rows, 8, seed=2)
    first, short, none, last = some.read([0, 1, 2, 3])
    assert [len(first), len(short), len(none), len(last)] == [8, 3, 0, 8]
    assert torch.equal(some.read([3])[0], last), "whatever the company"
    assert not torch.equal(first[:, 0], last[:, 0] - 43)
    draws = [some.of_epoch(epoch).read([0])[0][:, 0] for epoch in range(300)]
    counts = torch.cat(draws).long().bincount(minlength=40)
    assert counts.sum() == 2400
    assert 30 < counts.min() <= counts.max() < 95, "60 are expected of each row"
    assert SomeRows(rows, 8, seed=3).read([0])[0].tolist() != first.tolist()
    fixed = SomeRows(rows, 8, seed=2, fixed=True)
    assert torch.equal(fixed.of_epoch(5).read([0])[0], first)


def test_a_feed_draws_other_rows_in_each_epoch() -> None:
    found = rounds(Shuffled(SomeRows(numbered([30] * 4), 5), batch=5), 20, 40)
    assert len(found.unique()) > 110, "of 120"
    held = rounds(Shuffled(SomeRows(numbered([30] * 4), 5, fixed=True), batch=5), 20, 40)
    assert len(held.unique()) == 20


class Failing(TensorRows):
    """A sample of it cannot be read."""

    def read(self, samples: Sequence[int]) -> list[torch.Tensor]:
        if 77 in samples:
            raise OSError("the disk is gone")
        return super().read(samples)


def reading() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("vlmlens-feed")]


def test_an_error_of_reading_is_raised_where_batches_are_taken() -> None:
    numbers = [*range(70), 77, *range(71, 77)]
    rows: Rows = Failing(torch.zeros(800, 2), [10] * 80)
    with pytest.raises(OSError, match="the disk is gone"):
        taken(Shuffled(rows, batch=10, buffer=80, samples=numbers), 200)
    assert not reading()


class Waiting(TensorRows):
    """Reads other samples than the first ones when it may."""

    may = threading.Event()
    reads = 0

    def read(self, samples: Sequence[int]) -> list[torch.Tensor]:
        self.reads += 1
        assert self.reads < 8 or self.may.wait(60)
        return super().read(samples)


def test_closing_ends_the_reading() -> None:
    rows = Waiting(torch.zeros(800, 2), [10] * 80)
    batches = iter(Shuffled(rows, batch=10, buffer=80))
    next(batches)
    assert reading(), "the next block is being read"
    rows.may.set()
    batches.close()  # type: ignore[attr-defined]
    assert not reading()


def test_what_cannot_be_fed() -> None:
    rows = numbered([3, 4])
    cases: list[tuple[type[Exception], str, Any]] = [
        (DataError, "was given none", lambda: Shuffled(rows, samples=[])),
        (DataError, "was given none", Shuffled),
        (DataError, "from 0 to 2 are asked", lambda: Shuffled(rows, samples=[0, 2])),
        (DataError, "1 keys were given for 2", lambda: Shuffled(rows, together=["a"])),
        (SpecError, "batch = 0 is too small", lambda: Shuffled(rows, batch=0)),
        (SpecError, "seed = -1 is too small", lambda: Shuffled(rows, seed=-1)),
        (SpecError, "buffer = 0 is too small", lambda: Shuffled(rows, buffer=0)),
        (SpecError, "0 rows of each sample", lambda: SomeRows(rows, 0)),
        (DataError, "None of 3 samples has a row in x/all", lambda: taken(
            Shuffled(numbered([0, 0, 0])), 1)),
    ]  # fmt: skip
    for error, message, make in cases:
        with pytest.raises(error, match=message):
            make()


def test_a_state_of_another_feed_is_refused() -> None:
    feed = Shuffled(numbered([3] * 9), batch=4)
    taken(feed, 3)
    state = feed.state()
    for other, named in (
        (Shuffled(numbered([3] * 9), batch=4, seed=1), "seed differ"),
        (Shuffled(numbered([3] * 9), batch=5), "rows per batch"),
        (Shuffled(numbered([3] * 9), batch=4, samples=range(1, 9)), "samples, numbers"),
    ):
        with pytest.raises(DataError, match=named):
            other.restore(state)
    with pytest.raises(DataError, match="columns"):
        feed.restore({})
