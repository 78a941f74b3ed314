"""The kit's check of training finds mistakes of adapters, and of what is kept of frozen modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
import torch

from vlmlens.abc.adapter import LoadRequest
from vlmlens.passes import frozen_plan, frozen_prefix
from vlmlens.passes.batch import Batch, ForwardOutput, Logits
from vlmlens.testing import AdapterTests
from vlmlens.testing.model import TINY, TinyLlava, write_tiny_llava

_UNUSED = "model.vision_tower.post_layernorm"
_FIRST = "model.language_model.layers.0"


class Kit(AdapterTests):
    """The kit of the tiny model, with a mistake."""

    manifest = TINY
    mistaken: ClassVar[type[TinyLlava]] = TinyLlava

    @property
    def adapter(self) -> type[TinyLlava]:
        return self.mistaken

    def build(self, folder: Path) -> None:
        write_tiny_llava(folder)


class Climbing(TinyLlava):
    """Gradients have the wrong sign."""

    @classmethod
    def load(cls, request: LoadRequest) -> Self:
        vlm = super().load(request)
        vlm.module.get_submodule(_FIRST).register_forward_hook(_turned)
        return vlm


def _turned(module: torch.nn.Module, args: Any, output: torch.Tensor) -> None:
    del module, args
    if output.requires_grad:
        output.register_hook(lambda gradient: -gradient)


class Drifting(TinyLlava):
    """Each pass changes a weight that nothing reads."""

    def forward(self, batch: Batch, *, logits: Logits = "none") -> ForwardOutput:
        with torch.no_grad():
            self.module.get_parameter(f"{_UNUSED}.weight").add_(1)
        return super().forward(batch, logits=logits)


class InInferenceMode(TinyLlava):
    def forward(self, batch: Batch, *, logits: Logits = "none") -> ForwardOutput:
        with torch.inference_mode():
            return super().forward(batch, logits=logits)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kit, "_loaded", {})


@pytest.mark.parametrize(
    ("mistaken", "outcome", "said"),
    [
        (TinyLlava, "passed", ""),
        (Climbing, "failed", "no step along the gradient lowers the loss"),
        (Drifting, "failed", f"changed {_UNUSED}.weight"),
        (InInferenceMode, "skipped", "runs in inference mode or without gradients"),
    ],
)
def test_mistakes_are_found(
    mistaken: type[TinyLlava], outcome: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kit, "mistaken", mistaken)
    result = Kit().run_check("tuning")
    assert result.outcome == outcome, result
    assert said in result.detail


def test_the_model_is_as_before() -> None:
    module = Kit().vlm.module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert Kit().run_check("tuning").outcome == "passed"
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert not any(value.requires_grad or value.grad is not None for value in module.parameters())


@pytest.mark.parametrize(("factor", "outcome"), [(1, "passed"), (1.001, "failed")])
def test_a_prefix_that_is_not_exact_is_found(
    factor: float, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = frozen_prefix._Kept.given

    def off(kept: frozen_prefix._Kept) -> torch.Tensor:
        return given(kept) * (factor if len(kept.shape) == 3 else 1)  # what modules gave

    def unchecked(prefix: Any, plan: frozen_plan.Plan, *_: Any) -> bool:
        prefix._plan = plan
        return True

    monkeypatch.setattr(frozen_prefix._Kept, "given", off)
    if factor != 1:  # its own check would find it, and keep nothing
        assert Kit().run_check("tuning").outcome == "passed"
    monkeypatch.setattr(frozen_prefix.FrozenPrefix, "_is_exact", unchecked)
    result = Kit().run_check("tuning")
    assert result.outcome == outcome
    assert outcome == "passed" or "the frozen prefix is" in result.detail
