"""The conformance kit on tiny Molmo2s."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing.tiny import byte_tokenizer, save
from vlmlens_adapter_molmo.manifest import MANIFEST

_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image|>", "<|video|>", "<im_start>",
    "<im_end>", "<im_patch>", "<im_col>", "<low_res_im_start>", "<im_low>", "<frame_start>",
    "<frame_end>",
)  # fmt: skip
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{{ '<|image|>' if part['type'] == 'image' else part['text'] }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}


class Molmo2Checks(AdapterTests):
    """Molmo2 with a language model like Qwen3's; five patches along a side of a crop."""

    manifest: ClassVar[Manifest] = MANIFEST
    stands_for: ClassVar[str] = "allenai/Molmo2-4B"
    olmo: ClassVar[bool] = False
    side: ClassVar[int] = 5

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = byte_tokenizer(
            _SPECIAL, bos="<|im_end|>", eos="<|im_end|>", pad="<|endoftext|>",
            chat_template=_TEMPLATE,
        )  # fmt: skip
        number, pixels = tokenizer.convert_tokens_to_ids, 8 * self.side
        config = t.Molmo2Config(
            vision_config={
                "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
                "image_size": [pixels, pixels], "patch_size": 8, **_HEADS,
            },
            adapter_config={
                "vision_feature_layer": [2, 0], "hidden_size": 32, "intermediate_size": 64,
                "text_hidden_size": 32, **_HEADS,
            },
            text_config={
                "vocab_size": len(tokenizer) - 8, "additional_vocab_size": 8, "hidden_size": 32,
                "intermediate_size": 64, "num_hidden_layers": 3, "max_position_embeddings": 2048,
                "qk_norm_type": "olmo" if self.olmo else "qwen3", "norm_after": self.olmo,
                "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id, **_HEADS, "num_key_value_heads": 2,
            },
            image_start_token_id=number("<im_start>"), image_end_token_id=number("<im_end>"),
            image_patch_id=number("<im_patch>"),
            low_res_image_start_token_id=number("<low_res_im_start>"),
            frame_start_token_id=number("<frame_start>"),
            frame_end_token_id=number("<frame_end>"),
        )  # fmt: skip
        save(folder, t.Molmo2ForConditionalGeneration(config), tokenizer)
        named = {"processor_class": "Molmo2Processor"}
        images = {
            "image_processor_type": "Molmo2ImageProcessor", "max_crops": 4, "patch_size": 8,
            "overlap_margins": [1, 1], "pooling_size": [2, 2], "resample": 2,
            "size": {"height": pixels, "width": pixels},
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        }  # fmt: skip
        videos = {
            "video_processor_type": "Molmo2VideoProcessor",
            "size": {"height": pixels, "width": pixels},
        }
        for name, settings in (
            ("preprocessor_config.json", images),
            ("video_preprocessor_config.json", videos),
            ("processor_config.json", {}),
        ):
            (folder / name).write_text(json.dumps({**named, **settings}), encoding="utf-8")


class Molmo2OlmoChecks(Molmo2Checks):
    """Molmo2 with a language model like Olmo's; four patches along a side of a crop."""

    stands_for: ClassVar[str] = "allenai/Molmo2-O-7B"
    olmo: ClassVar[bool] = True
    side: ClassVar[int] = 4


CHECKS = (Molmo2Checks, Molmo2OlmoChecks)
