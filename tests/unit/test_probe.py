"""The probe finds planted signal, nothing where there is none, and is not fooled by groups."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from vlmlens.abc import AnalysisContext, ColumnBlock, Options, Values
from vlmlens.errors import CompositionError, MissingAnnotation, SpecError
from vlmlens.report.files import to_json
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.spec.model import validated
from vlmlens_plugins.analysis.probe import Probe, ProbeOptions
from vlmlens_plugins.analysis.probe.scores import judge, label_permutation_p
from vlmlens_plugins.analysis.probe.splits import folded
from vlmlens_plugins.analysis.probe.targets import Target, find_targets
from vlmlens_plugins.storage.memory import MemoryStore, forget

N = 300


def make_samples(labels: Any, groups: Any = None, task: str | None = None) -> list[Sample]:
    groups = range(len(labels)) if groups is None else groups
    return [
        Sample(f"{task}-{i}", "?", label=str(label), group=f"g{group}", task=task)
        for i, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]


def probe(samples: list[Sample], columns: dict[str, Any], *, seed: int = 0, **options: Any) -> Any:
    """(result, warnings) of a probe over columns of a memory store."""
    forget("probe-test")
    warnings: list[str] = []
    ids = tuple(sample.id for sample in samples)
    values = {name: Values(np.asarray(x, "<f4"), "float32") for name, x in columns.items()}
    analysis = Probe(ProbeOptions(**{"draws": 2000, "resamples": 500, **options}))
    with MemoryStore.open("probe-test", mode="a", options=Options()) as store:
        store.write(ColumnBlock(ids, values))
        analysis.check(samples, list(columns))
        context = AnalysisContext(samples, store, _no_model, seed=seed, warn=warnings.append)
        return analysis.run(context), warnings


def _no_model() -> Any:
    raise AssertionError("the probe must not load the model")


def noise(seed: int, n: int = N, d: int = 20) -> Any:
    return np.random.default_rng(seed).normal(size=(n, d))


def row(result: Result, column: str) -> dict[str, Any]:
    table = result.table("probe-columns")
    i = list(table.columns["column"]).index(column)
    return {name: values[i] for name, values in table.columns.items()}


def test_planted_signal_is_found_where_it_is_and_only_there() -> None:
    y = np.random.default_rng(0).integers(0, 3, N)
    signal = noise(1) + 3 * np.eye(20)[y]
    columns = {
        "llm.block.0/last": noise(2),
        "vision.block.1/mean": signal,
        "vision.block.0/mean": noise(3),
    }
    result, warnings = probe(make_samples(y), columns)
    assert not warnings
    assert [finding.verdict for finding in result.findings] == [
        Verdict.ENCODED,
        Verdict.NOT_ENCODED,
    ]
    best = result.findings[0]
    assert best.values["column"] == "vision.block.1/mean"
    assert "on the vision side" in best.text
    assert "on the language side" in result.findings[1].text
    found = row(result, "vision.block.1/mean")
    assert found["accuracy"] > 0.9
    assert found["control"] == pytest.approx(1 / 3, abs=0.08)
    assert found["train_accuracy"] >= found["accuracy"]
    assert found["train_control"] > found["control"]
    assert found["selectivity"] == pytest.approx(found["accuracy"] - found["control"])
    assert found["selectivity_low"] <= found["selectivity"] <= found["selectivity_high"]
    assert found["p_corrected"] == pytest.approx(3 / 2001)
    (figure,) = result.figures
    assert list(figure.x) == ["vision.block.0", "vision.block.1", "llm.block.0"]
    assert to_json(Result.from_dict(json.loads(to_json(result)))) == to_json(result)


def test_false_positives_are_rare() -> None:
    """40 columns without signal in 8 data sets: not one verdict, hardly a small p-value."""
    small = 0
    for seed in range(8):
        y = np.random.default_rng(seed).integers(0, 2, 150)
        columns = {f"llm.block.{i}/last": noise(100 * seed + i, 150) for i in range(5)}
        result, _ = probe(make_samples(y), columns, seed=seed, draws=1000)
        table = result.table("probe-columns").columns
        assert Verdict.ENCODED.value not in table["verdict"]
        small += sum(p <= 0.05 for p in table["p"])  # type: ignore[operator]
    assert small <= 6


def test_labels_that_only_the_group_tells_are_not_encoded() -> None:
    """Features name the group exactly; an ungrouped split would read the label from them."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 10)
    y = rng.permutation(np.arange(60) % 2)[groups]
    x = rng.normal(size=(60, 40))[groups] + 0.05 * rng.normal(size=(600, 40))
    grouped, _ = probe(make_samples(y, groups), {"llm.block.0/last": x}, C=1.0)
    assert row(grouped, "llm.block.0/last")["p_corrected"] > 0.05
    assert grouped.findings[0].verdict is not Verdict.ENCODED
    leaking, _ = probe(make_samples(y), {"llm.block.0/last": x}, C=1.0)
    assert leaking.findings[0].verdict is Verdict.ENCODED


def test_a_random_split_s_controls_recognize_groups_too() -> None:
    """Their labels stay together over the folds, so that leaking is not taken for encoding."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 10)
    y = rng.permutation(np.arange(60) % 2)[groups]
    x = rng.normal(size=(60, 40))[groups] + 0.05 * rng.normal(size=(600, 40))
    result, _ = probe(make_samples(y, groups), {"llm.block.0/last": x}, C=1.0, split="random")
    found = row(result, "llm.block.0/last")
    assert found["accuracy"] > 0.8
    assert found["control"] > 0.8
    assert found["verdict"] != "encoded"
    assert any("on both sides" in warning for warning in result.warnings)


def test_shuffled_rows_lose_the_signal() -> None:
    y = np.random.default_rng(0).integers(0, 2, N)
    x = noise(1) + 3 * np.eye(20)[y]
    mixed = np.random.default_rng(5).permutation(x)
    result, _ = probe(make_samples(y), {"llm.block.0/last": x, "llm.block.1/last": mixed})
    assert row(result, "llm.block.0/last")["verdict"] == "encoded"
    assert row(result, "llm.block.1/last")["verdict"] == "not encoded"


def test_a_high_accuracy_by_majority_alone_is_no_evidence() -> None:
    y = (np.random.default_rng(0).random(N) < 0.1).astype(int)
    result, _ = probe(make_samples(y), {"llm.block.0/last": noise(1)})
    found = row(result, "llm.block.0/last")
    assert found["accuracy"] > 0.8
    assert found["verdict"] != "encoded"


def test_few_samples_are_inconclusive() -> None:
    y = np.arange(40) % 2
    result, _ = probe(make_samples(y), {"llm.block.0/last": noise(1, 40)})
    assert result.findings[0].verdict is Verdict.INCONCLUSIVE


def test_equal_seeds_give_equal_results() -> None:
    y = np.random.default_rng(0).integers(0, 2, 100)
    columns = {"llm.block.0/last": noise(1, 100)}
    first, again, other = (probe(make_samples(y), columns, seed=s)[0] for s in (0, 0, 1))
    assert first == again
    assert first.tables != other.tables


def test_the_mlp_is_a_probe_too() -> None:
    x = noise(0, 250, 2)
    y = (np.linalg.norm(x, axis=1) > 1.18).astype(int)
    result, _ = probe(make_samples(y), {"llm.block.0/last": x}, model="mlp", hidden=16, epochs=100)
    assert result.findings[0].verdict is Verdict.ENCODED
    assert "perceptron" in result.notes[0]


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [
        ((0.5, 0.3, 0.25, 0.35, 0.001), Verdict.ENCODED),
        ((0.5, 0.3, 0.25, 0.35, 0.06), Verdict.INCONCLUSIVE),
        ((0.5, 0.08, 0.05, 0.11, 0.001), Verdict.INCONCLUSIVE),
        ((0.9, 0.08, 0.05, 0.11, 0.001), Verdict.ENCODED),
        ((0.5, 0.2, -0.01, 0.4, 0.001), Verdict.INCONCLUSIVE),
        ((0.5, 0.01, -0.05, 0.06, 0.5), Verdict.NOT_ENCODED),
        ((0.5, 0.01, -0.15, 0.16, 0.5), Verdict.INCONCLUSIVE),
        ((0.5, -0.1, -0.22, 0.02, 0.9), Verdict.INCONCLUSIVE),
        ((0.5, 0.05, 0.02, 0.07, 0.001), Verdict.INCONCLUSIVE),
    ],
)
def test_the_verdict_rests_on_the_gap(numbers: Any, verdict: Verdict) -> None:
    majority, gap, low, high, p = numbers
    options = ProbeOptions()
    assert (
        judge(majority=majority, gap=gap, gap_low=low, gap_high=high, p=p, options=options)
        is verdict
    )


def test_the_permutation_p_equals_a_plain_one() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 40)
    predicted = np.where(rng.random(40) < 0.68, y, 1 - y)
    fold = np.arange(40) % 2
    names = tuple(Sample(str(i), "?") for i in range(40))
    target = Target("t", names, ("a", "b"), y, np.arange(40), lambda sample: None, 40)
    split = folded(fold)
    (p,), (null,) = label_permutation_p(
        target, split, predicted[None], ProbeOptions(draws=20_000), 0
    )
    reached = []
    for _ in range(4000):
        shuffle = y.copy()
        for i in (0, 1):
            shuffle[fold == i] = rng.permutation(y[fold == i])
        reached.append((shuffle == predicted).mean())
    assert p == pytest.approx(np.mean(reached >= (y == predicted).mean()), abs=0.01)
    assert null == pytest.approx(np.std(reached), rel=0.05)
    assert 0.001 < p < 0.2
    constant, _ = label_permutation_p(target, split, np.zeros((1, 40), int), ProbeOptions(), 0)
    assert constant == 1.0


def many(**attributes: Any) -> list[Sample]:
    return [
        Sample(f"s{i}", "?", label="ab"[i % 2], task="t", attributes={**attributes, "n": i % 3})
        for i in range(60)
    ]


def test_targets_are_labels_per_task_and_attributes() -> None:
    other = make_samples(np.arange(60) % 4, task="u")
    targets, _ = find_targets(["label", "n", "n@t"], [*many(), *other], folds=5, min_per_class=10)
    assert [target.name for target in targets] == ["t", "u", "n", "n@t"]
    assert [len(target.classes) for target in targets] == [2, 4, 3, 3]
    assert [target.task for target in targets] == ["t", "u", None, None]
    assert targets[0].y.tolist() == [i % 2 for i in range(60)]
    assert len(targets[2].ids) == 60


@pytest.mark.parametrize(
    ("samples", "targets", "message", "hint"),
    [
        ([Sample("a", "?")], ["label"], "No sample has a label", "sub-folders"),
        (many(), ["colour"], "no sample has an attribute 'colour'", "Known: label, n"),
        (many(shade=1), ["shad"], "attribute 'shad'", "Did you mean shade"),
        (many(), ["n@v"], "has the task 'v'", "Tasks: t"),
        (make_samples(["a"] * 50), ["label"], "there is only 'a'", "min_per_class"),
        (make_samples(range(50)), ["label"], "there is none", "min_per_class"),
        (make_samples(np.arange(80) % 2, np.arange(80) % 4), ["label"], "", "Set folds to"),
    ],
)
def test_what_cannot_be_probed_is_said_before_anything_heavy(
    samples: Any, targets: Any, message: str, hint: str
) -> None:
    with pytest.raises(MissingAnnotation, match="(?i)" + message) as caught:
        Probe(ProbeOptions(targets=targets)).check(samples, [])
    assert hint in caught.value.hint


def test_rare_and_single_group_classes_are_left_out_with_a_warning() -> None:
    labels = ["a", "b"] * 40 + ["rare"] * 3 + ["single"] * 20
    groups = [*range(83), *[99] * 20]
    columns = {"llm.block.0/last": noise(0, 103)}
    result, warnings = probe(make_samples(labels, groups), columns)
    assert len(warnings) == 2
    assert "rare" in warnings[0]
    assert "single" in warnings[1]
    assert list(result.warnings) == warnings
    assert result.table("probe-targets").columns["classes"] == ["a, b"]


def test_a_task_that_cannot_be_probed_does_not_stop_the_others() -> None:
    samples = [*many(), *make_samples(["x"] * 20, task="flat")]
    targets, warnings = find_targets(["label"], samples, folds=5, min_per_class=10)
    assert [target.name for target in targets] == ["t"]
    assert any("flat: too few samples (20)" in warning for warning in warnings)


def test_ragged_columns_alone_cannot_be_probed() -> None:
    with pytest.raises(CompositionError, match="several") as caught:
        Probe(ProbeOptions()).check(many(), ["llm.block.0/image", "vision.block.0/all"])
    assert "image.mean" in caught.value.hint
    Probe(ProbeOptions()).check(many(), ["llm.block.0/image", "llm.block.0/last"])


def test_values_that_are_not_finite_are_not_probed() -> None:
    y = np.arange(100) % 2
    broken = noise(0, 100)
    broken[3, 4] = np.inf
    columns = {"llm.block.0/last": noise(1, 100), "llm.block.1/last": broken}
    result, warnings = probe(make_samples(y), columns)
    assert warnings == ["llm.block.1/last was not probed: it holds values that are not finite."]
    assert result.table("probe-columns").columns["column"] == ["llm.block.0/last"]
    with pytest.raises(CompositionError, match="No column holds finite values"):
        probe(make_samples(y), {"llm.block.1/last": broken})


def test_fewer_than_twenty_control_seeds_are_refused() -> None:
    with pytest.raises(SpecError, match="control_seeds"):
        validated(ProbeOptions, {"control_seeds": 5}, where="probe")
