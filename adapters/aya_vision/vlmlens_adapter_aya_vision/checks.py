"""The conformance kit on a tiny Aya Vision."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing.tiny import byte_tokenizer, save, small_text, small_vision
from vlmlens_adapter_aya_vision.manifest import MANIFEST

_SPECIALS = (
    "<PAD>", "<UNK>", "<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>",
    "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>",
    "<|IMG_LINE_BREAK|>", "TILE", "TILE_GLOBAL", *(f"TILE_{i}" for i in range(1, 13)),
)  # fmt: skip
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|START_OF_TURN_TOKEN|><|USER_TOKEN|>"
    "{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<|END_OF_TURN_TOKEN|>{% endfor %}"
    "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
)


class AyaVisionChecks(AdapterTests):
    """Aya Vision: SigLIP, pixel shuffle, Cohere 2 with sliding windows."""

    manifest: ClassVar[Manifest] = MANIFEST

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = byte_tokenizer(
            _SPECIALS, bos="<BOS_TOKEN>", eos="<|END_OF_TURN_TOKEN|>", pad="<PAD>", unk="<UNK>",
            add_bos=True,
        )  # fmt: skip
        text = t.Cohere2Config(**small_text(tokenizer, num_hidden_layers=4, sliding_window=16))
        vision = t.SiglipVisionConfig(**small_vision(vision_use_head=False))
        config = t.AyaVisionConfig(
            vision_config=vision, text_config=text, downsample_factor=2,
            image_token_index=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"),
        )  # fmt: skip
        images = t.GotOcr2ImageProcessor(
            size={"height": 32, "width": 32}, min_patches=1, max_patches=12
        )
        processor = t.AyaVisionProcessor(
            images, tokenizer, patch_size=8, img_size=32, downsample_factor=2,
            chat_template=_TEMPLATE,
        )  # fmt: skip
        save(folder, t.AyaVisionForConditionalGeneration(config), processor)


CHECKS = (AyaVisionChecks,)
