"""Sweeps: cells of edits on items, and the effects that come of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import vlmlens.registry  # noqa: F401  edits as text need it
from vlmlens.abc import AnalysisContext, ColumnStore
from vlmlens.errors import SpecError
from vlmlens.samples import Sample
from vlmlens.testing.model import TinyLlava, tiny_model
from vlmlens.testing.tiny import picture
from vlmlens.testing.work import check_work
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._sweeps import Cell, Change, Item, SweepOptions, Swept, sweep
from vlmlens_plugins.analysis._sweeps.effects import (
    control_changes,
    effects,
    sign_flip_p,
    too_few,
)
from vlmlens_plugins.analysis._sweeps.rows import RandomRows
from vlmlens_plugins.analysis._sweeps.sweeping import Onward, answer_tokens, spreads
from vlmlens_plugins.analysis._sweeps.work import CellWork, packed_sample, unit_of

OPTIONS = SweepOptions()


@pytest.fixture(scope="module")
def vlm() -> TinyLlava:
    return tiny_model()


def items(count: int = 3) -> list[Item]:
    made = []
    for i in range(count):
        one, other = (
            Sample(f"{role}{i}", "What is this?", (picture(32, 32, seed=i + shift),))
            for role, shift in (("clean", 0), ("corrupted", 50))
        )
        made.append(Item(other, ("x", "o"), donor=one, group=f"g{i}", task="t"))
    return made


def context(vlm: TinyLlava, *, batch_size: int = 2) -> AnalysisContext:
    store: ColumnStore = None  # type: ignore[assignment]  # sweeps read no columns
    return AnalysisContext([], store, cache(lambda: vlm), batch_size=batch_size)


def logits(
    vlm: TinyLlava, samples: Sequence[Sample], prefix: list[int], **edits: object
) -> torch.Tensor:
    batch = vlm.encode(samples, answers=[prefix] * len(samples))
    found = vlm.trace(batch, [], logits="last", **edits).logits  # type: ignore[call-overload]
    assert isinstance(found, torch.Tensor)
    return found


# ---------------------------------------------------------------------- numbers


def test_a_cell_is_what_a_pass_under_its_edits_gives(vlm: TinyLlava) -> None:
    """Also where the answers have a common beginning, as the letters of this model."""
    given = items()
    edit = "llm.block.0/image = patch"
    found = sweep(context(vlm), given, [Cell((Change(edit),)), Cell(())], OPTIONS)
    _, prefixes, tokens, _ = answer_tokens(vlm, given)
    assert prefixes[0]
    targets, donors = [i.target for i in given], [i.donor for i in given if i.donor]
    patched = logits(vlm, targets, prefixes[0], edits=[edit], donors=donors).double()
    plain, source = (logits(vlm, some, prefixes[0]).double() for some in (targets, donors))
    one, other = tokens[0]
    for which, right in (("edited", patched), ("base", plain), ("donor", source)):
        difference = (right[:, one] - right[:, other]).numpy()
        np.testing.assert_allclose(found.difference(which)[0], difference, atol=1e-5)  # type: ignore[arg-type]
    far = (source.softmax(-1) * (source.log_softmax(-1) - patched.log_softmax(-1))).sum(-1)
    np.testing.assert_allclose(found.divergence("donor")[0], far.numpy(), atol=1e-6)
    assert np.array_equal(found.difference()[1], found.difference("base")[1])
    assert found.unchanged()[1].all()
    assert not found.unchanged()[0].any()


def test_batches_do_not_matter(vlm: TinyLlava) -> None:
    cells = [Cell((Change(f"llm.block.{i}/last = patch"),)) for i in (0, 1)]
    one, all_at_once = (
        sweep(context(vlm, batch_size=size), items(), cells, OPTIONS) for size in (1, 8)
    )
    np.testing.assert_allclose(one.difference(), all_at_once.difference(), atol=1e-5)


def test_units_depend_on_nothing_else(vlm: TinyLlava) -> None:
    given = items()
    cell = Cell((Change("llm.block.0/last = patch"),))
    _, prefixes, tokens, _ = answer_tokens(vlm, given)
    units = [
        unit_of(item, packed_sample(item), prefix, token, cell, "")
        for item, prefix, token in zip(given, prefixes, tokens, strict=True)
    ]
    check_work(vlm, CellWork(), units)
    mixed = [
        *units,
        unit_of(given[0], packed_sample(given[0]), prefixes[0], tokens[0], Cell(()), ""),
    ]
    alone = [CellWork().run(vlm, [unit.as_run()])[0] for unit in mixed]
    together = CellWork().run(vlm, [unit.as_run() for unit in mixed])
    for one, two in zip(alone, together, strict=True):
        np.testing.assert_allclose(one["edited"]["logit"], two["edited"]["logit"], atol=1e-5)


def test_items_run_under_edits_of_their_own(vlm: TinyLlava) -> None:
    """The donor runs without them."""
    under = "projector/image = scale(3)"
    given = [replace(item, donor=item.target, under=(Change(under),)) for item in items()]
    restored = Cell((Change("llm.block.0:in/image = patch"),))
    found = sweep(context(vlm), given, [Cell(()), restored], OPTIONS)
    assert not np.allclose(found.difference("base"), found.difference("donor"))
    np.testing.assert_allclose(found.difference()[1], found.difference("donor")[1], atol=1e-5)


def test_what_cells_name(vlm: TinyLlava) -> None:
    """Means come from a pass over reference samples, directions from the analysis."""
    column = "llm.block.1/last"
    others = [item.target for item in items(4)]
    named = spreads(context(vlm), others, [column], deviations=True)
    rows = vlm.trace(vlm.encode(others), ["llm.block.1"]).select(column)
    assert isinstance(rows, torch.Tensor)
    np.testing.assert_allclose(named.means[column], rows.mean(0).numpy(), atol=1e-6)
    np.testing.assert_allclose(
        named.deviations[column], rows.std(0, correction=0).numpy(), atol=1e-6
    )
    named.directions["up"] = [1.0] * rows.shape[1]
    cells = [
        Cell((Change(f"{column} = mean"),)),
        Cell((Change(f"{column} = add", direction="up", strength=2.0),)),
        Cell((Change(f"{column} = add", direction="up", strength=0.0),)),
    ]
    found = sweep(context(vlm), items(), cells, OPTIONS, named).difference()
    _, prefixes, tokens, _ = answer_tokens(vlm, items())
    one, other = tokens[0]
    mean, last = rows.mean(0), "llm.block.1/answer[-1]"  # the row that predicts the next token
    by_hand = (mean.expand_as, lambda rows: rows + 2, lambda rows: rows)
    for number, change in enumerate(by_hand):
        targets = [item.target for item in items()]
        right = logits(vlm, targets, prefixes[0], edits={last: change}).double()
        difference = (right[:, one] - right[:, other]).numpy()
        np.testing.assert_allclose(found[number], difference, atol=1e-5)


def test_edits_with_nothing_to_do_change_nothing(vlm: TinyLlava) -> None:
    cut = Cell((Change("llm.block.0.attn / first <- last = cut"),))
    found = sweep(context(vlm), items(), [cut], OPTIONS)
    assert found.unchanged().all()


def test_other_rows_of_equal_number(vlm: TinyLlava) -> None:
    layout = vlm.encode([items()[0].target]).layout(0)
    like = Selector.parse("image[:3]")
    drawn = RandomRows(like=like, seed=1).positions(layout)
    assert len(drawn) == 3
    assert not set(drawn) & set(like.positions(layout))
    assert set(drawn) <= set(Selector.parse("image").positions(layout))
    assert set(drawn) != set(RandomRows(like=like, seed=2).positions(layout))


# ---------------------------------------------------------------------- limits


def test_what_cannot_be_compared_is_left_out(vlm: TinyLlava) -> None:
    heard: list[str] = []
    given = items(2)
    given[0] = replace(given[0], answers=("x", "x"))
    told = replace(context(vlm), warn=heard.append)
    found = sweep(told, given, [Cell(())], OPTIONS)
    assert [item.target.id for item in found.items] == ["corrupted1"]
    assert "1 samples are left out" in heard[0]
    with pytest.raises(SpecError, match="No sample is left"):
        sweep(told, given[:1], [Cell(())], OPTIONS)


def test_cost_is_refused_before_anything_runs(vlm: TinyLlava) -> None:
    def runs(*given: object) -> list[object]:
        raise AssertionError(given)

    told = replace(context(vlm), runner=runs)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"needs 6 passes .* 3 cells .* 2 batches") as caught:
        sweep(told, items(), [Cell(())] * 3, SweepOptions(max_passes=5))
    assert "samples or controls lower" in str(caught.value.hint)


def test_progress_never_goes_back() -> None:
    steps: list[tuple[int, int]] = []
    told = Onward(lambda done, total: steps.append((done, total)))
    for done, total in ((0, 2), (2, 2), (0, 3), (1, 3), (3, 3)):
        told(done, total)
    assert steps == [(0, 2), (2, 2), (2, 5), (3, 5), (5, 5)]


# ---------------------------------------------------------------------- effects


def test_effects_are_ratios_of_means() -> None:
    rng = np.random.default_rng(0)
    scale = rng.uniform(5, 10, 40)
    changes = np.stack([0.5 * scale, np.zeros(40)]) + rng.normal(size=(2, 40))
    groups = [f"g{i // 2}" for i in range(40)]
    found = effects(changes, scale, groups, controls=[None, np.zeros((2, 40))], seed=0, draws=500)
    np.testing.assert_allclose(found.value, changes.mean(1) / scale.mean())
    assert found.low[0] < 0.5 < found.high[0]
    assert found.p[0] < 0.001
    assert found.p[1] > 0.05
    assert np.isnan(found.control[0])
    assert found.control[1] == 0


def test_a_control_that_does_as_much_is_no_effect() -> None:
    changes = np.random.default_rng(0).normal(4, 1, (1, 30))
    found = effects(
        changes, np.full(30, 4.0), [str(i) for i in range(30)], controls=[changes[None, 0] + 0.0],
        seed=0, draws=200,
    )  # fmt: skip
    assert found.p[0] == 1
    assert found.value[0] == pytest.approx(found.control[0])


def test_p_values_hold_what_they_promise() -> None:
    """Of 400 rows of noise, about 5 % are below 0.05; exact for three groups: 2 of 8 flips."""
    noise = np.random.default_rng(1).normal(size=(400, 12))
    assert 0.02 < (sign_flip_p(noise, np.random.default_rng(2)) <= 0.05).mean() < 0.08
    (p,) = sign_flip_p(np.array([[1.0, 2.0, 3.0]]), np.random.default_rng(2))
    assert p == pytest.approx(0.25, abs=0.02)


def test_many_cells_leave_effects_that_can_be_found() -> None:
    changes = np.ones((1000, 20)) + np.random.default_rng(0).normal(0, 0.1, (1000, 20))
    groups = [str(i) for i in range(20)]
    none = [None] * 1000
    found = effects(changes, np.ones(20), groups, controls=none, seed=0, draws=100)
    assert not too_few("", found.groups, 1000)
    assert found.p.max() <= 0.05
    few = effects(changes[:, :9], np.ones(9), groups[:9], controls=none, seed=0, draws=100)
    assert "16 are needed" in too_few("", few.groups, 1000)
    assert few.p.min() > 0.05


def test_controls_belong_to_their_cells() -> None:
    about = [
        {"site": "a"},
        {"site": "a", "control": "x"},
        {"site": "b"},
        {"site": "a", "control": "x"},
    ]
    cells = [Cell((), each) for each in about]
    swept = Swept(cells, [], [], [[] for _ in cells])
    changes = np.arange(8.0).reshape(4, 2)
    first, second = control_changes(swept, changes, ("site",))
    assert first is not None
    assert np.array_equal(first, changes[[1, 3]])
    assert second is None
