"""The whole probe over columns in blocks: real stores, warnings, exports, and many samples."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmlens.abc import AnalysisContext, ColumnBlock, Values
from vlmlens.errors import CompositionError
from vlmlens.results import Result, Verdict
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample
from vlmlens.stores.sharded import ShardedStore
from vlmlens_plugins.analysis.probe import Probe, ProbeOptions, resampling, splits
from vlmlens_plugins.analysis.probe.chosen_samples import ChosenSamples
from vlmlens_plugins.analysis.probe.export import read_export
from vlmlens_plugins.analysis.probe.features import FeatureRows, Features, words
from vlmlens_plugins.analysis.probe.many_draws import null_p, shown
from vlmlens_plugins.analysis.probe.scores import label_permutation_p
from vlmlens_plugins.analysis.probe.splits import assign_folds, folded
from vlmlens_plugins.analysis.probe.stored_columns import Columns, OtherRun
from vlmlens_plugins.analysis.probe.targets import find_targets, joined
from vlmlens_plugins.analysis.probe.trial import Trial
from vlmlens_plugins.storage.lmdb import LmdbStore

N = 300
QUICK: dict[str, Any] = {"draws": 1000, "resamples": 200, "C": 0.1, "shortcuts": []}
NARROW, WIDE, BAD = "vision.block.0/mean", "llm.block.0/last", "llm.block.1/last"


def samples_of(y: Any) -> SampleTable:
    return SampleTable(
        Sample(f"s{i}", "?", label=str(label), group=f"g{i // 2}", attributes={"n": i % 17})
        for i, label in enumerate(y)
    )


@dataclass
class World:
    """Samples and their columns, in one LMDB store and in two parts of it."""

    samples: SampleTable
    folder: Path

    @contextmanager
    def store(self, *names: str) -> Any:
        stores = [
            LmdbStore.open(str(self.folder / name), mode="r", options=LmdbStore.Options())
            for name in names
        ]
        with ShardedStore(stores) as found:
            yield found

    def probe(self, *, parts: Any = ("whole",), **options: Any) -> tuple[Result, list[str]]:
        said: list[str] = []
        with self.store(*parts) as store:
            context = AnalysisContext(self.samples, store, _no_model, warn=said.append)
            return Probe(ProbeOptions(**{**QUICK, **options})).run(context), said


def _no_model() -> Any:
    raise AssertionError("the probe must not load the model")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("blocks")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, N // 2).repeat(2)
    columns = {
        NARROW: rng.normal(size=(N, 6)) + np.eye(3, 6)[y],
        WIDE: rng.normal(size=(N, 24)) + 0.7 * np.eye(3, 24)[y],
        BAD: rng.normal(size=(N, 24)),
    }
    columns[BAD][257, 3] = np.nan
    order = rng.permutation(N)
    for name, parts in {"whole": [order], "first": [order[:140]], "second": [order[140:]]}.items():
        location = str(folder / name)
        with LmdbStore.open(location, mode="a", options=LmdbStore.Options()) as store:
            for some in parts:
                ids = tuple(f"s{i}" for i in some)
                values = {c: Values(x[some].astype("<f4"), "float32") for c, x in columns.items()}
                store.write(ColumnBlock(ids, values))
    return World(samples_of(y), folder)


def columns_of(result: Result) -> dict[str, Any]:
    return dict(result.table("probe-columns").columns)


def test_the_table_is_that_of_memory_to_a_hundredth(world: World) -> None:
    whole, before = world.probe()
    large, said = world.probe(in_memory=0)
    assert columns_of(large)["column"] == columns_of(whole)["column"] == [NARROW, WIDE]
    for name in ("accuracy", "control", "gap", "gap_low", "gap_high", "train_accuracy", "C"):
        one, other = columns_of(whole)[name], columns_of(large)[name]
        np.testing.assert_allclose(one, other, atol=0.01)
    assert said == before == [f"{BAD} was not probed: it holds values that are not finite."]
    assert [f.verdict for f in whole.findings] == [f.verdict for f in large.findings]
    (note,) = set(large.notes) - set(whole.notes)
    assert note.startswith("3 columns were larger than in_memory (0 MB) and read in blocks")
    assert "all features" in note


def test_what_is_approximated_is_said_once(world: World) -> None:
    _, said = world.probe(in_memory=0, components=5)
    (line,) = [each for each in said if "principal components" in each]
    assert "2 columns are larger than in_memory (0 MB)" in line
    assert "the first 5 principal components" in line
    assert "of the variance" in line


def test_a_probe_that_read_a_part_does_not_say_that_nothing_is_there(world: World) -> None:
    rng = np.random.default_rng(5)
    other = replace(world, samples=samples_of(rng.integers(0, 2, N // 2).repeat(2)))
    options = {"columns": [WIDE], "in_memory": 0, "min_gap": 0.5}
    said = {
        components: other.probe(components=components, **options)[0].findings[0].verdict
        for components in (23, 24, 8)
    }
    assert said == {
        24: Verdict.NOT_ENCODED,
        23: Verdict.INCONCLUSIVE,
        8: Verdict.INCONCLUSIVE,
    }


def test_parts_of_a_run_are_read_as_one(world: World) -> None:
    one, _ = world.probe(in_memory=0, columns=[WIDE])
    two, _ = world.probe(parts=("second", "first"), in_memory=0, columns=[WIDE])
    assert columns_of(one)["accuracy"] == columns_of(two)["accuracy"]


def test_twice_is_the_same_and_leaves_no_file(world: World, tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        with world.store("whole") as store:
            context = AnalysisContext(world.samples, store, _no_model, folder=tmp_path)
            options = ProbeOptions(**QUICK, in_memory=0, components=4, columns=[WIDE])
            found.append(columns_of(Probe(options).run(context)))
        assert list(tmp_path.iterdir()) == []
    assert found[0] == found[1]


@pytest.mark.parametrize("model", ["ridge", "centroid"])
def test_closed_forms_are_those_of_memory(world: World, model: str) -> None:
    asked = {"model": model, "columns": [WIDE], "targets": ["n"] if model == "ridge" else ["label"]}
    whole, _ = world.probe(**asked)
    large, _ = world.probe(**asked, in_memory=0)
    for name in ("accuracy", "control", "gap", "gap_low", "train_accuracy"):
        one, other = columns_of(whole)[name], columns_of(large)[name]
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_perceptron_says_what_to_do(world: World) -> None:
    with pytest.raises(CompositionError, match=r"model=mlp needs a column in memory") as caught:
        world.probe(model="mlp", in_memory=0)
    assert "--samples" in caught.value.hint


@pytest.mark.parametrize("kind", ["npz"])
def test_exported_weights_are_for_raw_features(world: World, tmp_path: Path, kind: str) -> None:
    asked = {"columns": [WIDE], "export_column": "best", "export_format": kind}
    world.probe(**asked, export=str(tmp_path / "whole"))
    result, _ = world.probe(**asked, export=str(tmp_path / "large"), in_memory=0)
    whole, large = (
        read_export(next((tmp_path / name).iterdir()))[0] for name in ("whole", "large")
    )
    np.testing.assert_allclose(large["weights"], whole["weights"], atol=5e-3)
    np.testing.assert_allclose(large["bias"], whole["bias"], atol=5e-3)
    assert "features" in whole
    assert "features" not in large
    assert any("Features of large columns are left out" in note for note in result.notes)


def test_rows_of_another_run_come_last(world: World) -> None:
    (target,), _ = find_targets(["label"], world.samples, folds=5, min_per_class=10)
    with world.store("whole") as store, world.store("second") as second:
        there = [s for s in world.samples if s.id in set(second.ids(WIDE))]
        other = OtherRun("elsewhere", there, second)
        both = joined(target, there)
        columns = Columns(store, other)
        read = np.full((len(both.ids), 24), np.nan)
        for places, values in columns.rows(WIDE, both, at_once=24 * 4 * 50):
            read[places] = values
        np.testing.assert_array_equal(read, columns.read(WIDE, both))
        assert len(both.ids) == N + len(there)


def test_another_width_in_the_other_run_is_an_error(world: World) -> None:
    (target,), _ = find_targets(["label"], world.samples, folds=5, min_per_class=10)

    class Narrower:
        """A store whose column is narrower."""

        def __init__(self, store: Any) -> None:
            self.store = store

        def columns(self) -> Any:
            return [replace(info, width=9) for info in self.store.columns()]

    with world.store("whole") as store:
        other = OtherRun("elsewhere", (), Narrower(store))  # type: ignore[arg-type]
        with pytest.raises(CompositionError, match="is 24 wide here and 9 in 'elsewhere'"):
            Columns(store, other).rows(WIDE, target)


def test_many_groups_are_bootstrapped_in_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interval has the same width, from a tenth of the units."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 2000)
    loss = resampling.Losses((rng.random(2000) < 0.3).astype(float), np.ones(2000))
    (target,), _ = find_targets(
        ["label"], [Sample(f"{i}", "?", label=str(v)) for i, v in enumerate(y)],
        folds=5, min_per_class=10,
    )  # fmt: skip
    trial = Trial(target, folded(np.arange(2000) % 5), y[None].repeat(21, 0), 20)
    wide = []
    for units in (5000, 500):
        monkeypatch.setattr(resampling, "_UNITS", units)
        made = resampling.Resampling.draw(trial, 1000, np.random.default_rng(1))
        assert made.of_groups.shape[1] <= min(units, 2000)
        assert made.units == 2000
        low, high = made.interval(loss)
        wide.append(high - low)
    assert wide[1] == pytest.approx(wide[0], rel=0.2)
    assert wide[0] == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 2000), rel=0.15)


def test_fewer_draws_give_the_tail_that_many_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    predictions = np.stack([np.where(rng.random(400) < share, y, 0) for share in (0.02, 0.05, 0.4)])
    predictions = predictions.astype(np.int16)
    (target,), _ = find_targets(
        ["label"], [Sample(f"{i}", "?", label=str(v)) for i, v in enumerate(y)],
        folds=5, min_per_class=10,
    )  # fmt: skip
    split, options = folded(np.arange(400) % 5), ProbeOptions(draws=20_000)
    many, _ = label_permutation_p(target, split, predictions, options, 0)
    monkeypatch.setattr("vlmlens_plugins.analysis.probe.many_draws._PERMUTED", 1000)
    few, _ = label_permutation_p(target, split, predictions, options, 0)
    np.testing.assert_allclose(few[:2], many[:2], rtol=0.5, atol=0.01)
    assert few[2] == many[2] == 1 / 20_001
    assert shown(20_000, 400) == 1000


def test_a_null_without_spread_is_no_evidence() -> None:
    assert null_p(1.0, np.ones(1000), 10_000) == 1.0
    assert null_p(-3.0, np.random.default_rng(0).normal(size=1000), 10_000) > 0.99


def test_many_groups_are_dealt_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    groups = np.sort(rng.integers(0, 700, 3000))
    groups = np.unique(groups, return_inverse=True)[1]
    y = rng.integers(0, 3, 3000)
    monkeypatch.setattr(splits, "_MANY", 10)
    fold = assign_folds(y, groups, folds=5, seed=0)
    again = assign_folds(y, groups, folds=5, seed=0)
    np.testing.assert_array_equal(fold, again)
    assert all(len(np.unique(fold[groups == g])) == 1 for g in range(700) if (groups == g).any())
    counts = np.array([[((fold == f) & (y == c)).sum() for c in range(3)] for f in range(5)])
    assert counts.min() > 0.8 * 200
    assert counts.max() < 1.2 * 200
    assert (assign_folds(y, groups, folds=5, seed=1) != fold).any()


def test_chosen_samples_are_those_of_a_list() -> None:
    table = samples_of(np.arange(200) % 2)
    numbers = np.arange(200)[1::3]
    chosen = ChosenSamples((table, numbers)).joined(ChosenSamples((list(table), numbers[:5])))
    expected = [table[int(i)] for i in (*numbers, *numbers[:5])]
    assert list(chosen) == expected
    assert [chosen[i] for i in range(len(chosen))] == expected
    assert chosen[-2:] == expected[-2:]
    assert list(chosen.ids) == [sample.id for sample in expected]
    with pytest.raises(IndexError):
        chosen[len(chosen)]


def test_features_of_equal_prompts_are_kept_once() -> None:
    samples = [Sample(f"{i}", ("red cube", "blue cube", "red ball")[i % 3]) for i in range(60)]
    found = words(samples)
    assert found is not None
    assert found.table.shape == (3, 4)
    assert not found.alike
    whole = found.array()
    for places, values in found:
        np.testing.assert_array_equal(values, whole[places])
    assert words([Sample("a", "x y"), Sample("b", "y x")]).alike  # type: ignore[union-attr]


def test_too_many_images_are_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmlens_plugins.analysis.probe.features._IMAGES", 3)
    said: list[str] = []
    samples = [Sample(f"{i}", "?", images=(f"{i}.png",)) for i in range(4)]
    assert Features(said.append).of("image", samples) is None
    assert "would open 4 images" in said[0]


def test_a_large_shortcut_is_probed_in_blocks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same number as in memory, though its features are never whole."""
    kind = np.random.default_rng(0).integers(0, 5, N)
    table = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)

    def of(self: Any, name: str, samples: Any) -> FeatureRows:
        return FeatureRows(table, kind)

    monkeypatch.setattr(Features, "of", of)
    asked = {"columns": [NARROW], "shortcuts": ["words"], "model": "centroid"}
    whole, _ = world.probe(**asked)
    monkeypatch.setattr(FeatureRows, "array", None)
    large, _ = world.probe(**asked, in_memory=0)
    one, other = (r.table("probe-shortcuts").columns["accuracy"] for r in (whole, large))
    assert list(one) == pytest.approx(list(other), abs=1e-6)
