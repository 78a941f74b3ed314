"""The conformance kit on a tiny LLaVA-NeXT."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing.tiny import byte_tokenizer, save, small_text, small_vision
from vlmlens_adapter_llavanext.manifest import MANIFEST

_TEMPLATE = (
    "{% for message in messages %}{{ '[INST] ' }}"
    "{% for part in message['content'] %}"
    "{{ '<image>\\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ ' [/INST]' }}{% endfor %}"
)
_PINPOINTS = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]


class LlavaNextChecks(AdapterTests):
    """LLaVA-NeXT: CLIP over tiles, projector, Mistral."""

    manifest: ClassVar[Manifest] = MANIFEST

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = byte_tokenizer(
            ["<unk>", "<s>", "</s>", "<pad>", "<image>"],
            bos="<s>", eos="</s>", pad="<pad>", unk="<unk>", add_bos=True,
        )  # fmt: skip
        vision = t.CLIPVisionConfig(**small_vision(projection_dim=16))
        text = t.MistralConfig(**small_text(tokenizer, sliding_window=None))
        config = t.LlavaNextConfig(
            vision_config=vision, text_config=text, image_seq_length=16,
            image_grid_pinpoints=_PINPOINTS,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        )  # fmt: skip
        images = t.LlavaNextImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32},
            image_grid_pinpoints=_PINPOINTS,
        )  # fmt: skip
        processor = t.LlavaNextProcessor(
            images, tokenizer, patch_size=8, vision_feature_select_strategy="default",
            num_additional_image_tokens=1, chat_template=_TEMPLATE,
        )  # fmt: skip
        save(folder, t.LlavaNextForConditionalGeneration(config), processor)


CHECKS = (LlavaNextChecks,)
