"""The conformance kit over the demo adapter, and over adapters with deliberate mistakes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from vlmlens.abc import Batch, ModelAdapter
from vlmlens.hf import PlacedImage
from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing.adapter import distance
from vlmlens.tokens import PatchGrid
from vlmlens_plugins.demo.adapter import CHECKPOINT, DemoAdapter
from vlmlens_plugins.demo.manifests import ADAPTER


class TestDemo(AdapterTests):
    manifest: ClassVar[Manifest] = ADAPTER

    def build(self, folder: Path) -> None:
        shutil.copytree(CHECKPOINT, folder, dirs_exist_ok=True)


class Transposed(DemoAdapter):
    """Takes columns for rows."""

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        grid = super().patch_grid(image)
        turned = np.arange(len(grid)).reshape(8, 8).T.ravel()
        return grid.take(turned)


class CountsPadding(DemoAdapter):
    """Ignores the mask, and so looks at padding."""

    def process(self, *args: Any) -> dict[str, Any]:
        inputs = super().process(*args)
        return {
            **inputs,
            "attention_mask": inputs["attention_mask"].new_ones(inputs["attention_mask"].shape),
        }


class ForgetsTheNorm(DemoAdapter):
    """Reads the residual stream without the final norm."""

    def readout(self) -> Any:
        from dataclasses import replace

        return replace(super().readout(), norm=lambda hidden: hidden)


class DropsTheImage(DemoAdapter):
    """Shows the model the same grey picture every time."""

    def encode(self, samples: Any, **settings: Any) -> Batch:
        from dataclasses import replace

        batch = super().encode(samples, **settings)
        pixels = batch.inputs.get("pixel_values")
        if pixels is None:
            return batch
        return replace(batch, inputs={**batch.inputs, "pixel_values": pixels * 0})


class TwiceBegun(DemoAdapter):
    """Doubles the beginning-of-text token."""

    def process(self, prompts: Any, images: Any) -> dict[str, Any]:
        return super().process([f"{self.tokenizer.bos_token}{p}" for p in prompts], images)


MISTAKES: list[tuple[type[ModelAdapter], str]] = [
    (Transposed, "layout_is_where_the_image_is"),
    (CountsPadding, "batch_equals_single"),
    (CountsPadding, "the_mask_matters"),
    (ForgetsTheNorm, "lens_identity"),
    (DropsTheImage, "the_image_matters"),
    (TwiceBegun, "no_doubled_specials"),
]


@pytest.mark.parametrize(("adapter", "check"), MISTAKES)
def test_a_deliberate_mistake_is_caught(adapter: type[ModelAdapter], check: str) -> None:
    kit = type(f"Kit{adapter.__name__}", (TestDemo,), {"adapter": adapter})
    result = kit().run_check(check)
    assert result.outcome == "failed", result


def test_expected_failures_are_shown_and_outlive_nothing() -> None:
    known = {"lens_identity": "the norm is forgotten"}
    kit = type("Known", (TestDemo,), {"adapter": ForgetsTheNorm, "expected_failures": known})
    assert kit().run_check("lens_identity").outcome == "skipped"
    mended = type("Mended", (TestDemo,), {"expected_failures": known})
    result = mended().run_check("lens_identity")
    assert result.outcome == "failed"
    assert "and passes" in result.detail


def test_distance_is_relative_to_the_scale() -> None:
    import torch

    assert distance(torch.tensor([100.0]), torch.tensor([101.0])) == pytest.approx(0.01)
    assert distance(torch.zeros(2), torch.zeros(3)) == float("inf")
