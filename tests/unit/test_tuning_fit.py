"""Training a part: the steps, what stays as it was, seeds, memory, and being killed."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from tests._program import python

from vlmlens.abc import ModelAdapter
from vlmlens.errors import DataError, MissingAnnotation, OutOfMemory, SpecError
from vlmlens.passes.answer_loss import answer_loss
from vlmlens.passes.modes import differentiable
from vlmlens.samples import Sample
from vlmlens.testing.model import TinyLlava, request, write_tiny_llava
from vlmlens.testing.planting import in_model
from vlmlens.tuned.components import parameters_of
from vlmlens_plugins.tuning import fit as loop
from vlmlens_plugins.tuning.curve import Fitted
from vlmlens_plugins.tuning.fit import fit, rate_at
from vlmlens_plugins.tuning.parts.weights import WeightsPart
from vlmlens_plugins.tuning.recipe import Recipe

State = Mapping[str, torch.Tensor]

SHORT = Recipe(epochs=2, rate=1e-2, batch_size=4, patience=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that another process can open, too."""
    return write_tiny_llava(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def vlm(folder: Path) -> ModelAdapter:
    return TinyLlava.load(request(model=str(folder)))


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Questions of two lengths."""
    return list(in_model("absent").samples[:14])


def fitted(
    vlm: ModelAdapter, samples: Sequence[Sample], recipe: Recipe = SHORT, **more: object
) -> tuple[Fitted, State]:
    part = WeightsPart(vlm, "projector")
    found = fit(vlm, part, samples[:10], samples[10:], recipe, **more)  # type: ignore[arg-type]
    return found, part.state()


def same(one: State, other: State) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(vlm: ModelAdapter, samples: list[Sample]) -> tuple[Fitted, State]:
    return fitted(vlm, samples)


def by_hand(vlm: ModelAdapter, samples: Sequence[Sample], rate: float) -> tuple[float, State]:
    """One step of AdamW on the mean loss of all samples, one sample at a time."""
    names = list(parameters_of(vlm, "projector"))
    before = {name: value.detach().clone() for name, value in vlm.module.named_parameters()}
    own = [vlm.module.get_parameter(name) for name in names]
    total = torch.zeros(())
    with differentiable():
        vlm.module.requires_grad_(False)
        for value in own:
            value.requires_grad_(True)
        for one in samples:
            batch = vlm.encode([one], answers=[str(one.label)])
            ids = vlm.answer_ids(str(one.label))
            logits = vlm.forward(batch, logits="all").logits
            assert logits is not None
            rows = logits[0, -len(ids) - 1 : -1].log_softmax(-1)
            total = total - rows[range(len(ids)), ids].mean() / len(samples)
        grads = torch.autograd.grad(total, own)
    norm = math.sqrt(sum(float(grad.square().sum()) for grad in grads))
    after = {}
    clip = min(1.0, 1.0 / (norm + 1e-6))
    for name, value, grad in zip(names, own, grads, strict=True):
        value.requires_grad_(False)
        after[name] = value.detach() - rate * clip * grad / (clip * grad.abs() + 1e-8)
    assert same(before, dict(vlm.module.named_parameters()))
    return float(total.detach()), after


@pytest.mark.parametrize(("size", "accumulate"), [(10, 1), (4, 3), (1, 10)])
def test_a_step_is_that_of_the_mean_over_all_samples(
    vlm: ModelAdapter, samples: list[Sample], size: int, accumulate: int
) -> None:
    """Whatever micro-batches there are, the last one smaller than the others."""
    recipe = Recipe(
        epochs=1, rate=1e-3, batch_size=size, accumulate=accumulate, warmup=0, patience=0
    )
    loss, wanted = by_hand(vlm, samples[:10], 1e-3)
    part = WeightsPart(vlm, "projector")
    found = fit(vlm, part, samples[:10], samples[:1], dataclasses.replace(recipe, seed=3))
    assert (found.steps, found.seen) == (1, 10)
    assert found.curve[1].train == pytest.approx(loss, rel=1e-5)
    assert found.best == 1
    for name, value in part.state().items():
        first = vlm.module.get_parameter(name)
        # Adam's first step is the sign of the gradient, which rounding can turn near zero.
        step, expected = (value - first) / 1e-3, (wanted[name] - first) / 1e-3
        assert float(((step - expected).abs() < 1e-2).float().mean()) > 0.99


def test_training_learns_and_keeps_the_best_epoch(whole: tuple[Fitted, State]) -> None:
    found, _ = whole
    assert [epoch.number for epoch in found.curve] == [0, 1, 2]
    assert found.curve[0].train is None
    assert found.curve[2].train < found.curve[1].train  # type: ignore[operator]
    assert found.lowest.held == min(epoch.held for epoch in found.curve)
    assert (found.steps, found.seen, found.early) == (6, 20, False)


def test_the_model_is_as_before(vlm: ModelAdapter, samples: list[Sample]) -> None:
    before = {name: value.clone() for name, value in vlm.module.state_dict().items()}
    said = vlm.describe()
    _, state = fitted(vlm, samples)
    assert same(before, vlm.module.state_dict())
    assert vlm.describe() == said
    assert not any(value.requires_grad for value in vlm.module.parameters())
    moved = [name for name, value in state.items() if not torch.equal(value, before[name])]
    assert moved == list(parameters_of(vlm, "projector"))


def test_frozen_parameters_keep_their_bits_while_the_part_is_inside(
    vlm: ModelAdapter, samples: list[Sample], whole: tuple[Fitted, State]
) -> None:
    before = {name: value.clone() for name, value in vlm.module.named_parameters()}
    part = WeightsPart(vlm, "projector")
    part.load_state(whole[1])
    with part.attached(vlm):
        inside = dict(vlm.module.named_parameters())
        changed = {name for name in inside if not torch.equal(inside[name], before[name])}
        wanting = {name for name, value in inside.items() if value.requires_grad}
        assert vlm.describe()["tuned"]["kind"] == "weights"
    assert changed == wanting == set(parameters_of(vlm, "projector"))


def test_a_seed_gives_the_same_bits_and_another_one_others(
    vlm: ModelAdapter, samples: list[Sample], whole: tuple[Fitted, State]
) -> None:
    again, state = fitted(vlm, samples)
    assert again == whole[0]
    assert same(state, whole[1])
    other, _ = fitted(vlm, samples, dataclasses.replace(SHORT, seed=1))
    assert other.curve != whole[0].curve


@pytest.mark.parametrize("room", [0, 30_000, 1 << 30])
def test_what_is_kept_changes_no_curve(
    vlm: ModelAdapter, samples: list[Sample], whole: tuple[Fitted, State], room: int
) -> None:
    recipe = dataclasses.replace(SHORT, reuse=room > 0, cache_bytes=room)
    for kept, plain in zip(fitted(vlm, samples, recipe)[0].curve, whole[0].curve, strict=True):
        assert kept.held == pytest.approx(plain.held, abs=1e-5)
        assert kept.train == pytest.approx(plain.train, abs=1e-5)


def test_training_ends_early_with_the_best_values(
    vlm: ModelAdapter, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.4, 1.0])
    seen: list[State] = []

    def held_loss(training: loop._Training) -> float:
        seen.append(training._part.state())
        return next(losses)

    monkeypatch.setattr(loop._Training, "_held_loss", held_loss)
    found, state = fitted(vlm, samples, dataclasses.replace(SHORT, epochs=9, patience=2))
    assert (found.best, len(found.curve), found.early) == (1, 4, True)
    assert same(state, seen[1])
    assert not same(state, seen[3])
    losses = iter([1.0, 1.0, 1.0])
    found, state = fitted(vlm, samples)
    assert found.best == 0, "an equal loss is no better one"
    assert same(state, WeightsPart(vlm, "projector").state())


def test_a_full_memory_halves_the_micro_batches(
    vlm: ModelAdapter,
    samples: list[Sample],
    whole: tuple[Fitted, State],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A batch of three or more has its losses when memory is full; nothing holds them then."""
    from vlmlens_plugins.tuning import micro_batches

    real = answer_loss
    warned: list[str] = []
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    monkeypatch.setattr(
        loop, "free_memory", lambda: alive.append(sum(ref() is not None for ref in held))
    )

    def full(vlm: ModelAdapter, batch: object, *, per_sample: bool) -> torch.Tensor:
        losses = real(vlm, batch, per_sample=per_sample)  # type: ignore[arg-type]
        if len(losses) > 2:
            held.extend((weakref.ref(losses), weakref.ref(batch.inputs["input_ids"])))  # type: ignore[attr-defined]
            torch.empty(2**55, dtype=torch.uint8)
        return losses

    monkeypatch.setattr(micro_batches, "answer_loss", full)
    found, _ = fitted(vlm, samples, warn=warned.append)
    assert len(warned) == 1
    assert "halved" in warned[0]
    assert held
    assert alive == [0]
    assert [epoch.held for epoch in found.curve] == pytest.approx(
        [epoch.held for epoch in whole[0].curve], rel=1e-4
    )

    def always(*args: object, **more: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(micro_batches, "answer_loss", always)
    with pytest.raises(OutOfMemory, match="One sample"):
        fitted(vlm, samples, warn=warned.append)


def killed(folder: Path, where: Path, die_at: int) -> None:
    """A training whose process kills itself after so many samples, in an epoch."""

    def progress(done: int, total: int) -> None:
        del total
        if done >= die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    samples = in_model("absent").samples[:14]
    vlm = TinyLlava.load(request(model=str(folder)))
    fitted(vlm, samples, checkpoint=where, seconds=0, progress=progress)


def test_a_killed_training_goes_on_bit_for_bit(
    tmp_path: Path,
    folder: Path,
    vlm: ModelAdapter,
    samples: list[Sample],
    whole: tuple[Fitted, State],
) -> None:
    where = tmp_path / "state"
    code = (
        "import sys; from pathlib import Path; from tests.unit.test_tuning_fit import killed; "
        "killed(Path(sys.argv[1]), Path(sys.argv[2]), 18)"
    )
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    ended = python(code, str(folder), str(where), PYTHONPATH=path)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    heard: list[int] = []

    def progress(done: int, total: int) -> None:
        heard.append(done)

    found, state = fitted(vlm, samples, checkpoint=where, progress=progress)
    assert heard[0] > 10, "the steps before are not done again"
    assert found == whole[0]
    assert same(state, whole[1])
    heard.clear()
    assert fitted(vlm, samples, checkpoint=where, progress=progress)[0] == found
    assert heard == [20], "a training that is done is not done again"
    with pytest.raises(DataError, match="another training"):
        fitted(vlm, samples[1:], checkpoint=where)
    with pytest.raises(DataError, match="another training"):
        fitted(vlm, samples, dataclasses.replace(SHORT, rate=1e-3), checkpoint=where)
    where.write_bytes(where.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DataError, match="damaged"):
        fitted(vlm, samples, checkpoint=where)


def test_numbers_that_are_not_finite_end_training(vlm: ModelAdapter, samples: list[Sample]) -> None:
    part = WeightsPart(vlm, "projector")
    broken = part.state()
    next(iter(broken.values())).view(-1)[0] = math.nan
    part.load_state(broken)
    with pytest.raises(DataError, match="diverged in step 1"):
        fit(vlm, part, samples[:10], samples[10:], SHORT)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0}, {"rate": 0.0}, {"rate": math.nan}, {"batch_size": 0}, {"accumulate": 0},
        {"warmup": 1.5}, {"clip": -1.0}, {"patience": -1}, {"autocast": "float8"},
        {"weight_decay": math.inf}, {"cache_bytes": -1},
    ],
)  # fmt: skip
def test_numbers_of_a_recipe_are_checked(
    vlm: ModelAdapter, samples: list[Sample], change: Mapping[str, object]
) -> None:
    with pytest.raises(SpecError, match=next(iter(change))):
        fitted(vlm, samples, dataclasses.replace(SHORT, **change))  # type: ignore[arg-type]


def test_samples_are_checked(vlm: ModelAdapter, samples: list[Sample]) -> None:
    part = WeightsPart(vlm, "projector")
    with pytest.raises(DataError, match="'held' is empty"):
        fit(vlm, part, samples, [], SHORT)
    bare = dataclasses.replace(samples[0], label=None)
    with pytest.raises(MissingAnnotation, match="no label"):
        fit(vlm, part, [bare], samples, SHORT)
    assert fit(vlm, part, samples[:1], samples[:1], SHORT).steps == 2


def test_the_rate_rises_and_falls() -> None:
    recipe = Recipe(rate=2.0, warmup=0.2)
    rates = [rate_at(step, 10, recipe) for step in range(10)]
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(1 + math.cos(math.pi * 7 / 8))
    assert rate_at(0, 1, Recipe(rate=2.0, warmup=1.0)) == 2.0


def test_the_order_changes_from_epoch_to_epoch(vlm: ModelAdapter, samples: list[Sample]) -> None:
    part = WeightsPart(vlm, "projector")
    with part.attached(vlm):
        training = loop._Training(vlm, part, samples, samples, Recipe(batch_size=2), print)
        first, second = training._order(1), training._order(2)
    assert first != second
    assert sorted(first) == sorted(second), "the micro-batches stay together"
