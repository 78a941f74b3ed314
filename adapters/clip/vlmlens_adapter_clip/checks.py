"""The conformance kit on a tiny CLIP, SigLIP and SigLIP 2 (NaFlex)."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.samples import Sample
from vlmlens.testing import AdapterTests
from vlmlens.testing.tiny import byte_tokenizer, save
from vlmlens_adapter_clip.manifest import MANIFEST

_TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
_VISION = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "patch_size": 8,
}  # fmt: skip


class ClipChecks(AdapterTests):
    """CLIP: CLS pooling, causal text that ends in its end token."""

    manifest: ClassVar[Manifest] = MANIFEST
    stands_for: ClassVar[str] = "openai/clip-vit-base-patch32"

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = byte_tokenizer(
            ["<|startoftext|>", "<|endoftext|>"], bos="<|startoftext|>", eos="<|endoftext|>",
            pad="<|endoftext|>", unk="<|endoftext|>", add_bos=True, add_eos=True,
        )  # fmt: skip
        text = {**_TEXT, **_ids(tokenizer), "max_position_embeddings": 77}
        config = t.CLIPConfig(
            text_config=text, vision_config={**_VISION, "image_size": 32}, projection_dim=16
        )
        size = {"height": 32, "width": 32}
        images = t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
        save(folder, t.CLIPModel(config), t.CLIPProcessor(images, tokenizer))


class SiglipChecks(AdapterTests):
    """SigLIP: attention pooling, texts filled up to 64 tokens."""

    manifest: ClassVar[Manifest] = MANIFEST
    stands_for: ClassVar[str] = "google/siglip-base-patch16-224"

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = byte_tokenizer(
            ["<pad>", "</s>", "<unk>"], eos="</s>", pad="<pad>", unk="<unk>", add_eos=True
        )
        config = t.SiglipConfig(
            text_config={**_TEXT, **_ids(tokenizer), "projection_size": 48},
            vision_config={**_VISION, "image_size": 32},
        )
        images = t.SiglipImageProcessor(size={"height": 32, "width": 32})
        save(folder, t.SiglipModel(config), t.SiglipProcessor(images, tokenizer))


class Siglip2Checks(AdapterTests):
    """SigLIP 2 NaFlex: images of any shape, as at most 20 patches."""

    manifest: ClassVar[Manifest] = MANIFEST
    stands_for: ClassVar[str] = "google/siglip2-base-patch16-naflex"

    @cached_property
    def samples(self) -> list[Sample]:
        """See `AdapterTests.samples`; the tokenizer knows lower case only."""
        return [replace(sample, prompt=sample.prompt.lower()) for sample in super().samples]

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581"]
        tokens += [f"<0x{byte:02X}>" for byte in range(256)]
        tokenizer = t.Siglip2Tokenizer(
            vocab={token: i for i, token in enumerate(tokens)}, merges=[], add_eos_token=True
        )
        config = t.Siglip2Config(
            text_config={**_TEXT, **_ids(tokenizer), "projection_size": 48},
            vision_config={**_VISION, "num_patches": 16},
        )
        images = t.Siglip2ImageProcessor(patch_size=8, max_num_patches=20)
        save(folder, t.Siglip2Model(config), t.Siglip2Processor(images, tokenizer))


def _ids(tokenizer: Any) -> dict[str, int | None]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


CHECKS = (ClipChecks, SiglipChecks, Siglip2Checks)
