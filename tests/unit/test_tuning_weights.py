"""All weights of a component as a part that is trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vlmlens.abc import ModelAdapter
from vlmlens.errors import CompositionError, DataError, SpecError
from vlmlens.samples import Sample
from vlmlens.testing.model import TinyLlava, request
from vlmlens.testing.planting import in_model
from vlmlens.tuned.components import parameters_of
from vlmlens.tuned.record import ABOUT
from vlmlens_plugins.tuning.fit import fit
from vlmlens_plugins.tuning.parts.weights import FILE, WeightsPart
from vlmlens_plugins.tuning.recipe import Recipe

SLOW = Recipe(epochs=2, rate=1e-6, batch_size=4, warmup=0, patience=0)


@pytest.fixture(scope="module")
def small() -> ModelAdapter:
    """The tiny model in bfloat16."""
    return TinyLlava.load(request(dtype="bfloat16"))


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(in_model("absent").samples[:8])


def test_steps_that_16_bits_cannot_hold_are_not_lost(
    small: ModelAdapter, samples: list[Sample], tmp_path: Path
) -> None:
    """At this rate no weight of the model moves in bfloat16; together the steps do count."""
    before = {name: value.clone() for name, value in small.module.state_dict().items()}
    part = WeightsPart(small, "projector")
    started = part.state()
    fit(small, part, samples[:6], samples[6:], SLOW)
    state = part.state()
    assert {value.dtype for value in state.values()} == {torch.float32}
    moved = torch.cat([(state[name] - started[name]).flatten() for name in state])
    assert 0 < float(moved.abs().max()) <= 4.1e-6
    assert float((moved != 0).float().mean()) > 0.5
    assert all(torch.equal(before[n], value) for n, value in small.module.state_dict().items())
    part.save(tmp_path, {"base": {}})
    saved = load_file(tmp_path / FILE)
    assert set(saved) == set(parameters_of(small, "projector"))
    assert {value.dtype for value in saved.values()} == {torch.bfloat16}
    about = json.loads((tmp_path / ABOUT).read_text())
    assert (about["kind"], about["component"]) == ("weights", "projector")


def test_large_steps_reach_the_model_in_16_bits(small: ModelAdapter, samples: list[Sample]) -> None:
    part = WeightsPart(small, "projector")
    found = fit(small, part, samples[:6], samples[:6], dataclasses.replace(SLOW, rate=1e-2))
    assert found.lowest.held < found.curve[0].held - 0.1
    with part.attached(small):
        inside = {name: small.module.get_parameter(name).detach() for name in part.state()}
        assert all(torch.equal(inside[n], v.bfloat16()) for n, v in part.state().items())


def test_a_weight_that_two_modules_share_is_one(samples: list[Sample]) -> None:
    vlm = TinyLlava.load(request())
    head, embedding = vlm.module.get_output_embeddings(), vlm.module.get_input_embeddings()  # type: ignore[operator]
    head.weight = embedding.weight
    part = WeightsPart(vlm, "llm")
    before = embedding.weight.detach().clone()
    fit(vlm, part, samples[:6], samples[:6], dataclasses.replace(SLOW, rate=1e-3))
    with part.attached(vlm):
        assert head.weight is embedding.weight
        assert not torch.equal(head.weight, before)
    assert torch.equal(embedding.weight, before)


def test_a_part_belongs_to_its_model_and_is_attached_once(small: ModelAdapter) -> None:
    part = WeightsPart(small, "projector")
    other = TinyLlava.load(request())
    with pytest.raises(SpecError, match="another model"), part.attached(other):
        pass
    with part.attached(small), pytest.raises(SpecError, match="already"), part.attached(small):
        pass
    with part.attached(small):
        assert len(part.parameters()) == len(part.state())
    with pytest.raises(DataError, match="differ"):
        part.load_state(WeightsPart(small, "llm.block.0").state())
    wrong = {name: value.flatten() for name, value in part.state().items()}
    with pytest.raises(DataError, match="differ"):
        part.load_state(wrong)


def test_weights_that_are_not_in_memory_are_refused() -> None:
    with pytest.raises(CompositionError, match="not in memory"):
        WeightsPart(TinyLlava.skeleton(request()), "projector")


@pytest.mark.parametrize(
    ("component", "first"),
    [("projector", "projector"), ("llm.block.1", "llm.block.1"), ("llm", "llm.embed")],
)
def test_places(small: ModelAdapter, component: str, first: str) -> None:
    names = [site.name for site in WeightsPart(small, component).places(small)]
    assert names[0].startswith(first)
    if component != "llm":
        assert all(name.startswith(first) for name in names)


def test_places_of_a_tower_begin_with_its_embeddings(small: ModelAdapter) -> None:
    """The canonical sites begin after them."""
    paths = [site.path for site in WeightsPart(small, "vision").places(small)]
    assert any("embeddings" in path for path in paths)
