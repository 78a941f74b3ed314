"""The conformance kit on a tiny model of each Qwen-VL architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing.tiny import byte_tokenizer, save, small_text
from vlmlens_adapter_qwen2vl.manifest import MANIFEST

_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif part['type'] == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


class QwenVLChecks(AdapterTests):
    """The base of the four architectures: tokenizer, processor, sizes."""

    manifest: ClassVar[Manifest] = MANIFEST
    processor_class: ClassVar[str]
    config_class: ClassVar[str]
    model_class: ClassVar[str]
    vision: ClassVar[dict[str, Any]]
    language: ClassVar[dict[str, Any]] = {}
    rope: ClassVar[dict[str, Any]] = {"mrope_section": [1, 1, 2]}

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = byte_tokenizer(_SPECIALS, eos="<|im_end|>", pad="<|endoftext|>")
        tokenizer.chat_template = _TEMPLATE
        config = getattr(t, self.config_class)(
            vision_config={"depth": 3, "num_heads": 4, "patch_size": 4, **self.vision},
            text_config=small_text(
                tokenizer, num_hidden_layers=3, **self.language,
                rope_parameters={"rope_type": "default", "rope_theta": 1e6, **self.rope},
            ),
            **{
                f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
                for name, token in (
                    ("image", "image_pad"), ("video", "video_pad"),
                    ("vision_start", "vision_start"), ("vision_end", "vision_end"),
                )
            },
        )  # fmt: skip
        images = t.Qwen2VLImageProcessorPil(
            patch_size=4, size={"shortest_edge": 8 * 8, "longest_edge": 64 * 64}
        )
        model, named = (
            getattr(t, self.model_class)(config),
            {"processor_class": self.processor_class},
        )
        save(folder, model, tokenizer, images, processor_config=named)


class Qwen2VLChecks(QwenVLChecks):
    """Qwen2-VL."""

    stands_for: ClassVar[str] = "Qwen/Qwen2-VL-2B-Instruct"
    processor_class = "Qwen2VLProcessor"
    config_class = "Qwen2VLConfig"
    model_class = "Qwen2VLForConditionalGeneration"
    vision: ClassVar[dict[str, Any]] = {"embed_dim": 48, "hidden_size": 32, "mlp_ratio": 2}


class Qwen25VLChecks(QwenVLChecks):
    """Qwen2.5-VL: windows of 2 x 2 merged tokens, in all blocks but the last."""

    stands_for: ClassVar[str] = "Qwen/Qwen2.5-VL-3B-Instruct"
    processor_class = "Qwen2_5_VLProcessor"
    config_class = "Qwen2_5_VLConfig"
    model_class = "Qwen2_5_VLForConditionalGeneration"
    vision: ClassVar[dict[str, Any]] = {
        "hidden_size": 48, "out_hidden_size": 32, "intermediate_size": 64,
        "window_size": 16, "fullatt_block_indexes": [2],
    }  # fmt: skip


class Qwen3VLChecks(QwenVLChecks):
    """Qwen3-VL: features of two vision blocks are added after the first two language blocks."""

    stands_for: ClassVar[str] = "Qwen/Qwen3-VL-2B-Instruct"
    processor_class = "Qwen3VLProcessor"
    config_class = "Qwen3VLConfig"
    model_class = "Qwen3VLForConditionalGeneration"
    rope: ClassVar[dict[str, Any]] = {"mrope_section": [2, 1, 1], "mrope_interleaved": True}
    language: ClassVar[dict[str, Any]] = {"head_dim": 8}
    vision: ClassVar[dict[str, Any]] = {
        "hidden_size": 48, "out_hidden_size": 32, "intermediate_size": 64,
        "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1],
    }  # fmt: skip


class Qwen3VLMoeChecks(Qwen3VLChecks):
    """Qwen3-VL with a mixture of four experts, two at a time."""

    stands_for: ClassVar[str] = "Qwen/Qwen3-VL-30B-A3B-Instruct"
    config_class = "Qwen3VLMoeConfig"
    model_class = "Qwen3VLMoeForConditionalGeneration"
    language: ClassVar[dict[str, Any]] = {
        "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    }  # fmt: skip


CHECKS = (Qwen2VLChecks, Qwen25VLChecks, Qwen3VLChecks, Qwen3VLMoeChecks)
