"""`--samples N`: which samples are drawn, and that analyses see no others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vlmlens
from vlmlens.abc import ColumnBlock, Values
from vlmlens.compose.drawn_samples import drawn_samples, part_of, told
from vlmlens.errors import ResultExists, SpecError, StoreError
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec
from vlmlens.stores.selected import SelectedStore
from vlmlens_plugins.storage.lmdb import LmdbStore

SITE = "llm.block.0/last"


def table(count: int = 1000, per_group: int = 4) -> SampleTable:
    """Two tasks, of three to one, each with two labels of four to one; groups of one kind each."""
    made = []
    for i in range(count):
        group = i // per_group
        task, label = ("a", "b")[group % 4 == 0], ("x", "y")[group // 4 % 5 == 0]
        made.append(Sample(f"s{i}", "?", label=label, task=task, group=f"g{group}"))
    return SampleTable(made)


def kinds(samples: SampleTable) -> Counter[Any]:
    return Counter((sample.task, sample.label) for sample in samples)


def test_every_task_and_label_keeps_its_share() -> None:
    samples = table()
    drawn = drawn_samples(samples, 200, 0)
    assert len(drawn) == 200
    for kind, number in kinds(samples).items():
        assert kinds(drawn)[kind] == pytest.approx(number / 5, abs=4)


def test_groups_stay_whole_and_the_order_stays() -> None:
    samples = table(per_group=7)
    drawn = drawn_samples(samples, 333, 0)
    assert 333 - 7 <= len(drawn) <= 333
    sizes, whole = (Counter(s.group for s in some) for some in (drawn, samples))
    assert all(sizes[group] == whole[group] for group in sizes)
    numbers = [samples.numbers[name] for name in drawn.ids]
    assert numbers == sorted(numbers)


def test_groups_of_several_kinds_stay_whole_too() -> None:
    made = [Sample(f"{i}", "?", label=str(i % 3), task="ab"[i % 2], group=f"{i // 6}")
            for i in range(600)]  # fmt: skip
    drawn = drawn_samples(SampleTable(made), 300, 0)
    assert len(drawn) == 300
    assert set(Counter(sample.group for sample in drawn).values()) == {6}


@pytest.mark.parametrize("seed", range(5))
def test_a_large_group_does_not_take_the_share_of_its_label(seed: int) -> None:
    """400 small groups and one of 200 have the label x, and it comes first as often as not."""
    names = [("x", f"x{i}" if i < 400 else "large") for i in range(600)]
    names += [("y", f"y{i}") for i in range(400)]
    made = [Sample(f"{i}", "?", label=x, group=group) for i, (x, group) in enumerate(names)]
    drawn = Counter(sample.label for sample in drawn_samples(SampleTable(made), 300, seed))
    assert drawn == {"x": 180, "y": 120}


def test_a_seed_draws_the_same_and_another_one_others() -> None:
    samples = table()
    first, again, other = (drawn_samples(samples, 100, seed).ids for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize("number", [None, 1000, 5000])
def test_all_is_all(number: int | None) -> None:
    samples = table()
    assert drawn_samples(samples, number, 0) is samples
    assert part_of(samples, number) is None


def test_less_than_a_group_is_an_error() -> None:
    with pytest.raises(SpecError, match="--samples 3 is less than the samples of one group") as e:
        drawn_samples(table(), 3, 0)
    assert "smallest group has 4" in e.value.hint
    assert len(drawn_samples(table(), 4, 0)) in (0, 4)


def test_what_was_seen_of_images_goes_along() -> None:
    samples = table(64)
    lines = [
        b'{"id": "%d", "prompt": "?", "images": [], "pixels": %d, "side": 1, "fingerprint": "%s"}'
        % (i, i, b"00" * 16)
        for i in range(64)
    ]
    seen = SampleTable.of_lines(lines, lambda r: Sample(r["id"], "?")).take([3, 40])
    assert seen.seen is not None
    assert list(seen.seen.areas) == [3, 40]
    assert seen.ids == ["3", "40"]
    assert samples.take([]).ids == []


@pytest.mark.parametrize("value", [0, -3, True, "many"])
def test_numbers_that_are_none_are_refused(value: Any) -> None:
    with pytest.raises(SpecError):
        make_spec({"samples": value})


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A store that knows its samples; one of its ids looks like a pattern."""
    samples = [
        Sample("*" if i == 0 else f"s{i}", "?", label="xy"[i % 2], task="t", group=f"g{i}")
        for i in range(120)
    ]
    y = np.array([s.label == "x" for s in samples])
    x = np.random.default_rng(0).normal(size=(120, 6)) + 2 * y[:, None]
    where = tmp_path / "old.lmdb"
    with LmdbStore.open(str(where), mode="a", options=LmdbStore.Options()) as store:
        values = Values(x.astype("<f4"), "float32")
        store.write(ColumnBlock(tuple(s.id for s in samples), {SITE: values}))
        store.describe(samples)
    return where


def test_a_view_of_ids_has_these_only(stored: Path) -> None:
    with LmdbStore.open(str(stored), mode="r", options=LmdbStore.Options()) as store:
        view = SelectedStore.of_ids(store, ["*", "s7"])
        assert view.ids(SITE) == ["*", "s7"]
        assert view.columns()[0].samples == 2
        assert view.read_range(SITE, 1, 9)[0] == ["s7"]
        assert [name for name, _ in view.iterate(SITE)] == ["*", "s7"]
        np.testing.assert_array_equal(view.read(SITE).array, store.read(SITE, ["*", "s7"]).array)
        with pytest.raises(StoreError):
            view.set_meta({})


def test_an_analysis_of_some_says_so_and_is_kept_apart(stored: Path) -> None:
    options = {"probe": {"draws": 1000, "resamples": 200, "C": [0.1]}}
    result = vlmlens.analyze(stored, options, samples=80, seed=5)["probe"]
    assert result.title == "What each layer encodes (on 80 of 120 samples)"
    assert result.notes[0] == told(80, 120, 5)
    assert set(result.table("probe-targets").columns["samples"]) == {80}
    assert set(result.table("probe-learning").columns["samples"]) >= {80}
    assert any("more samples" in finding.text for finding in result.findings)
    with pytest.raises(ResultExists, match="samples was 80, is 120"):
        vlmlens.analyze(stored, options, seed=5)
    again = vlmlens.analyze(stored, options, samples=80, seed=5)["probe"]
    assert again.table("probe-columns").columns == result.table("probe-columns").columns
    whole = vlmlens.analyze(stored, options, samples=500, seed=5, fresh=True)["probe"]
    assert whole.title == "What each layer encodes"
    assert "probe-learning" not in [each.name for each in whole.tables]
