"""The kit's checks of gradients, contributions and attention find mistakes of adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
import torch

from vlmlens.abc.adapter import LoadRequest, Readout
from vlmlens.passes.attending import Attention
from vlmlens.passes.batch import Batch, ForwardOutput, Logits
from vlmlens.testing import AdapterTests
from vlmlens.testing.model import TINY, TinyLlava, write_tiny_llava


class Kit(AdapterTests):
    """The kit of the tiny model, with a mistake."""

    manifest = TINY
    mistaken: ClassVar[type[TinyLlava]] = TinyLlava

    @property
    def adapter(self) -> type[TinyLlava]:
        return self.mistaken

    def build(self, folder: Path) -> None:
        write_tiny_llava(folder)


class Detaching(TinyLlava):
    """What one MLP reads is detached from the image."""

    @classmethod
    def load(cls, request: LoadRequest) -> Self:
        vlm = super().load(request)
        mlp: Any = vlm.module.get_submodule("model.language_model.layers.1.mlp")
        mlp.register_forward_pre_hook(lambda module, args: tuple(each.detach() for each in args))
        return vlm


class InInferenceMode(TinyLlava):
    def forward(self, batch: Batch, *, logits: Logits = "none") -> ForwardOutput:
        with torch.inference_mode():
            return super().forward(batch, logits=logits)


class Biased(TinyLlava):
    """Its readout adds a little to the logits that the model gives."""

    def readout(self) -> Readout:
        own = super().readout()
        assert own is not None
        return Readout(own.norm, lambda rows: own.unembed(rows) + 1e-3, own.site)


class Shifted(TinyLlava):
    """The weights of attention are those of the next key."""

    def attention(self, batch: Batch, sites: Any) -> dict[str, Attention]:
        found = super().attention(batch, sites)
        return {
            name: Attention(own.weights.roll(1, -1), own.values.roll(1, -2))
            for name, own in found.items()
        }


@pytest.mark.parametrize(
    ("mistaken", "check", "said"),
    [
        (Detaching, "gradients_are_slopes", "are no slopes"),
        (InInferenceMode, "limits_are_said", "'gradients'"),
        (Biased, "contributions_sum", "away from the logits"),
        (Shifted, "attention_is_read", "llm.block.1.attn"),
    ],
)
def test_mistakes_are_found(
    mistaken: type[TinyLlava], check: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Kit().run_check(check).outcome == "passed"
    monkeypatch.setattr(Kit, "mistaken", mistaken)
    monkeypatch.setattr(Kit, "_loaded", {})
    monkeypatch.setattr(Kit, "_exact_models", {})
    result = Kit().run_check(check)
    assert result.outcome == "failed"
    assert said in result.detail


def test_a_family_may_say_that_it_gives_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kit, "mistaken", InInferenceMode)
    monkeypatch.setattr(Kit, "_loaded", {})
    monkeypatch.setattr(Kit, "_exact_models", {})
    assert Kit().run_check("gradients_are_slopes").outcome == "skipped"
