"""The conformance kit on tiny vision backbones, each of transformers' own class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing._adapter_suite import distance
from vlmlens.testing._checks import expect
from vlmlens.testing.tiny import save, small_vision
from vlmlens_plugins.hf.manifests import VIT

_SQUARE = {"height": 32, "width": 32}


class TowerChecks(AdapterTests):
    """The kit for models without text, and a comparison with transformers' own hidden states."""

    manifest: ClassVar[Manifest] = VIT
    text: ClassVar[bool] = False
    config: ClassVar[str]
    settings: ClassVar[dict[str, Any]] = {}

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        config = getattr(t, self.config)(**small_vision(**self.settings))
        images = self.images_of()
        save(folder, t.AutoModel.from_config(config), preprocessor_config=images)

    def images_of(self) -> dict[str, Any]:
        """The settings of the image processor, as the family's checkpoints have them."""
        return {"image_processor_type": "ViTImageProcessor", "size": _SQUARE}

    def check_blocks_equal_hidden_states(self, folder: Path) -> None:
        """Embeddings and blocks are transformers' own `hidden_states` of the bare model."""
        del folder
        import torch

        vlm = self.vlm
        batch = vlm.encode(self.samples)
        with torch.inference_mode():
            output = vlm.module(**batch.inputs, output_hidden_states=True)
        names = [name for name in vlm.sites.canonical if name.startswith("vision.block.")]
        trace = vlm.trace(batch, ["vision.embed", *names])
        ends = [output.last_hidden_state] if "vision.norm" not in vlm.sites.canonical else []
        states = [*output.hidden_states[: len(names)], *ends]
        for name, state in zip(["vision.embed", *names], states, strict=False):
            far = distance(state, trace[name])
            expect(far <= self.tolerance, f"{name} differs from hidden_states by {far:.1e}")
        if not ends:
            norm = vlm.trace(batch, ["vision.norm"])["vision.norm"]
            far = distance(output.last_hidden_state, norm)
            expect(far <= self.tolerance, f"vision.norm is {far:.1e} away from the model's output")


class ViTChecks(TowerChecks):
    """ViT: a class token before the patches, images squashed to a square."""

    stands_for: ClassVar[str] = "google/vit-base-patch16-224"
    config = "ViTConfig"


class MAEChecks(TowerChecks):
    """MAE: no patch is left out, and patches stay in order."""

    stands_for: ClassVar[str] = "facebook/vit-mae-base"
    config = "ViTMAEConfig"


class BEiTChecks(TowerChecks):
    """BEiT: relative positions, scaled branches, no norm at the end."""

    stands_for: ClassVar[str] = "microsoft/beit-base-patch16-224"
    config = "BeitConfig"
    settings: ClassVar[dict[str, Any]] = {"use_relative_position_bias": True}


class DeiTChecks(TowerChecks):
    """DeiT: two tokens before the patches."""

    config = "DeiTConfig"

    def images_of(self) -> dict[str, Any]:
        """See `TowerChecks.images_of`: resized to 36 pixels, and cropped."""
        size = {"height": 36, "width": 36}
        return {"image_processor_type": "DeiTImageProcessor", "size": size, "crop_size": _SQUARE}


class DINOv2Checks(TowerChecks):
    """DINOv2: positions for another size are interpolated, the middle of the image is cropped."""

    stands_for: ClassVar[str] = "facebook/dinov2-base"
    config = "Dinov2Config"
    settings: ClassVar[dict[str, Any]] = {"image_size": 56}

    def images_of(self) -> dict[str, Any]:
        """See `TowerChecks.images_of`: the shorter side to 36 pixels, and the middle of it."""
        size = {"shortest_edge": 36}
        return {"image_processor_type": "BitImageProcessor", "size": size, "crop_size": _SQUARE}


class RegistersChecks(DINOv2Checks):
    """DINOv2 with registers: five tokens before the patches."""

    stands_for: ClassVar[str] = "facebook/dinov2-with-registers-base"
    config = "Dinov2WithRegistersConfig"
    settings: ClassVar[dict[str, Any]] = {"image_size": 56, "num_register_tokens": 4}


class DINOv3Checks(TowerChecks):
    """DINOv3: registers, positions by rotation."""

    stands_for: ClassVar[str] = "facebook/dinov3-vitb16-pretrain-lvd1689m"
    config = "DINOv3ViTConfig"
    settings: ClassVar[dict[str, Any]] = {"num_register_tokens": 4}

    def images_of(self) -> dict[str, Any]:
        """See `TowerChecks.images_of`: what transformers needs torchvision for."""
        return {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": _SQUARE}


class CLIPTowerChecks(TowerChecks):
    """The tower of CLIP: its last norm sees the class token alone."""

    config = "CLIPVisionConfig"

    def images_of(self) -> dict[str, Any]:
        """See `TowerChecks.images_of`."""
        size = {"shortest_edge": 32}
        return {"image_processor_type": "CLIPImageProcessor", "size": size, "crop_size": _SQUARE}


class SigLIPTowerChecks(TowerChecks):
    """The tower of SigLIP: patches alone, pooled by attention."""

    config = "SiglipVisionConfig"

    def images_of(self) -> dict[str, Any]:
        """See `TowerChecks.images_of`."""
        return {"image_processor_type": "SiglipImageProcessor", "size": _SQUARE}


class NaFlexTowerChecks(TowerChecks):
    """The tower of SigLIP 2 NaFlex: images of any shape, as at most 20 patches."""

    config = "Siglip2VisionConfig"
    settings: ClassVar[dict[str, Any]] = {"num_patches": 16}

    def images_of(self) -> dict[str, Any]:
        """See `TowerChecks.images_of`."""
        size = {"patch_size": 8, "max_num_patches": 20}
        return {"image_processor_type": "Siglip2ImageProcessor", **size}


CHECKS = (
    ViTChecks, MAEChecks, BEiTChecks, DeiTChecks, DINOv2Checks, RegistersChecks, DINOv3Checks,
    CLIPTowerChecks, SigLIPTowerChecks, NaFlexTowerChecks,
)  # fmt: skip
