"""The conformance kit on a tiny PaliGemma and a tiny PaliGemma 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing.tiny import byte_tokenizer, save, small_vision
from vlmlens_adapter_paligemma.manifest import MANIFEST

_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "head_dim": 8,
}


class PaliGemmaChecks(AdapterTests):
    """PaliGemma: SigLIP and Gemma."""

    manifest: ClassVar[Manifest] = MANIFEST
    stands_for: ClassVar[str] = "google/paligemma-3b-mix-224"

    def text_config(self, **tokens: Any) -> Any:
        """The language model's config."""
        import transformers as t

        return t.GemmaConfig(num_hidden_layers=2, num_key_value_heads=1, **_TEXT, **tokens)

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = byte_tokenizer(
            ["<pad>", "<eos>", "<bos>", "<unk>", "<image>"],
            bos="<bos>", eos="<eos>", pad="<pad>", unk="<unk>", named={"image_token": "<image>"},
        )  # fmt: skip
        images: Any = t.SiglipImageProcessor(size={"height": 32, "width": 32})
        images.image_seq_length = 16
        processor = t.PaliGemmaProcessor(images, tokenizer)
        vision = t.SiglipVisionConfig(**small_vision(vision_use_head=False))
        tokens: dict[str, Any] = {
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        config = t.PaliGemmaConfig(
            vision_config=vision, text_config=self.text_config(**tokens), projection_dim=32,
            hidden_size=32, image_token_index=tokenizer.image_token_id, **tokens,
        )  # fmt: skip
        save(folder, t.PaliGemmaForConditionalGeneration(config), processor)


class PaliGemma2Checks(PaliGemmaChecks):
    """PaliGemma 2: SigLIP and Gemma 2, with sliding windows and capped logits."""

    stands_for: ClassVar[str] = "google/paligemma2-3b-mix-224"

    def text_config(self, **tokens: Any) -> Any:
        """See `PaliGemmaChecks.text_config`."""
        import transformers as t

        return t.Gemma2Config(
            num_hidden_layers=4, num_key_value_heads=2, query_pre_attn_scalar=8, sliding_window=24,
            final_logit_softcapping=5.0, attn_logit_softcapping=50.0, **_TEXT, **tokens,
        )  # fmt: skip


CHECKS = (PaliGemmaChecks, PaliGemma2Checks)
