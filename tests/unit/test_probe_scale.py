"""The probe's optimum, progress, memory with many classes, and samples that are equal."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tests.unit.test_probe import make_samples, noise, probe
from tests.unit.test_probe_solver import objective, problem

from vlmlens.abc import AnalysisContext, ColumnBlock, Options, Values
from vlmlens_plugins.analysis.probe import Probe, ProbeOptions
from vlmlens_plugins.analysis.probe.cross_validation import evaluate
from vlmlens_plugins.analysis.probe.equal_rows import EqualRows
from vlmlens_plugins.analysis.probe.lbfgs import minimize
from vlmlens_plugins.analysis.probe.logistic import fit_logistic
from vlmlens_plugins.analysis.probe.probe_kinds import family
from vlmlens_plugins.analysis.probe.splits import folded
from vlmlens_plugins.storage.memory import MemoryStore, forget


@pytest.mark.parametrize("c", [0.001, 0.1, 10.0])
@pytest.mark.parametrize(("n", "d", "classes"), [(300, 40, 2), (300, 40, 5), (80, 150, 3)])
def test_the_objective_is_within_two_in_a_hundred_thousand_of_the_optimum(
    n: int, d: int, classes: int, c: float
) -> None:
    """Of the true labels and of controls, which end at different steps."""
    x, y = problem(n, d, classes)
    rng = np.random.default_rng(0)
    labels = np.concatenate([y, *(rng.permutation(y[:, :1]) for _ in range(4))], 1)
    z, train = torch.tensor(x[None]), torch.ones(1, n, dtype=torch.bool)
    fits = fit_logistic(z, torch.tensor(labels), train, torch.full((1, 1), c), classes=classes)
    for i, one in enumerate(labels.T):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            best = LogisticRegression(C=c, tol=1e-10, max_iter=20_000).fit(x.astype("f8"), one)
        reference = objective(x, one, best.coef_.T, best.intercept_, c)
        own = objective(
            x, one, fits.weights[0, :, 0, :, i].double().numpy(), fits.bias[0, 0, :, i].numpy(), c
        )
        assert own <= reference * (1 + 2e-5)


def test_fits_in_turns_are_what_they_are_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many classes label vectors take turns, so that memory does not grow with their number.

    Here the room is so small that four classes are many.
    """
    x, y = problem(120, 16, 4)
    labels = np.stack([y[:, 0], *(np.random.default_rng(i).permutation(y[:, 0]) for i in range(5))])
    split = folded(np.arange(120) % 3)
    kind = family(ProbeOptions(C=[0.1]), _target(y[:, 0]), 0)
    sizes: list[int] = []

    def recorded(form: Any, target: torch.Tensor, tolerance: float) -> Any:
        sizes.append(target.numel())
        return minimize(form, target, tolerance)

    monkeypatch.setattr("vlmlens_plugins.analysis.probe.logistic.minimize", recorded)
    (whole,) = evaluate([x], labels, split, kind, torch.device("cpu"))
    assert max(sizes) >= 80 * 4 * 6
    sizes.clear()
    monkeypatch.setattr("vlmlens_plugins.analysis.probe.cross_validation._ELEMENTS", 800)
    monkeypatch.setattr("vlmlens_plugins.analysis.probe.linear._OUTPUTS", 500)
    shares: list[float] = []
    (turns,) = evaluate([x], labels, split, kind, torch.device("cpu"), shares.append)
    np.testing.assert_array_equal(turns.held_out, whole.held_out)
    np.testing.assert_allclose(turns.train_score, whole.train_score)
    assert turns.unfinished == whole.unfinished
    assert max(sizes) <= 3 * 80 * 4, "one label vector at a time, however many classes there are"
    assert len(shares) >= 6
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def _target(y: Any) -> Any:
    from tests.unit.test_probe_families import target_of

    return target_of(y)


def test_progress_moves_within_a_column() -> None:
    labels = np.arange(1000) % 10
    samples = make_samples(labels)
    forget("probe-progress")
    seen: list[tuple[int, int]] = []
    analysis = Probe(ProbeOptions(draws=1000, resamples=200))
    with MemoryStore.open("probe-progress", mode="a", options=Options()) as store:
        values = Values(noise(1, 1000, 30).astype("<f4"), "float32")
        store.write(ColumnBlock(tuple(s.id for s in samples), {"llm.block.0/last": values}))

        def progress(done: int, total: int) -> None:
            seen.append((done, total))

        analysis.run(AnalysisContext(samples, store, lambda: None, progress=progress))  # type: ignore[arg-type, return-value]
    between = {done for done, total in seen if 0 < done < total}
    assert len(between) >= 2, seen
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_equal_samples_on_both_sides_of_the_split_are_said() -> None:
    """As of one picture under two names; rounding differs, as between batches."""
    labels = np.arange(100) % 2
    x = noise(3, 100, 24)
    twice = np.concatenate([x, x * (1 + 1e-6)])
    _, said = probe(make_samples([*labels, *labels]), {"llm.block.0/last": twice})
    (line,) = [line for line in said if "equal sample" in line]
    found = int(line.split()[1])
    assert 100 < found <= 200
    groups = [*range(100), *range(100)]
    _, said = probe(make_samples([*labels, *labels], groups), {"llm.block.0/last": twice})
    assert not any("equal sample" in line for line in said)


def test_samples_that_are_equal_in_one_column_only_are_not_said() -> None:
    """The last token of a first layer is the same for all pictures."""
    labels = np.arange(100) % 2
    same, own = np.repeat(noise(4, 50, 24), 2, 0), noise(5, 100, 24)
    columns = {"llm.block.0/last": same, "llm.block.1/last": own}
    _, said = probe(make_samples(labels), columns)
    assert not any("equal sample" in line for line in said)


def test_equal_rows_of_one_fold_do_no_harm() -> None:
    x = np.repeat(noise(6, 20, 8), 2, 0)
    equal = EqualRows()
    equal.see(x)
    together, apart = folded(np.arange(40) // 2 % 5), folded(np.arange(40) % 5)
    groups = np.arange(40)
    assert equal.on_both_sides(together, groups) == 0
    assert equal.on_both_sides(apart, groups) == 40
