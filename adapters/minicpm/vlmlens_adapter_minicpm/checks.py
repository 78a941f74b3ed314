"""The conformance kit on tiny MiniCPM-Vs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing.tiny import byte_tokenizer, save, small_text
from vlmlens_adapter_minicpm.manifest import MANIFEST
from vlmlens_adapter_minicpm.older import checks as older

_NAMED = {
    "image_token": "<|image_pad|>", "video_token": "<|video_pad|>",
    "image_start_token": "<image>", "image_end_token": "</image>",
    "slice_start_token": "<slice>", "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>", "image_id_end_token": "</image_id>",
}  # fmt: skip
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{{ '<|' + part['type'] + '_pad|>\n' if part['type'] in ('image', 'video') "
    "else part['text'] }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class MiniCpm46Checks(AdapterTests):
    """MiniCPM-V 4.6: three layers of linear attention, then one of full attention."""

    manifest: ClassVar[Manifest] = MANIFEST
    stands_for: ClassVar[str] = "openbmb/MiniCPM-V-4.6"
    version: ClassVar[str] = "4_6"
    mode: ClassVar[str] = "16x"

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import torch
        import transformers as t

        tokenizer = byte_tokenizer(
            ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *_NAMED.values()],
            eos="<|im_end|>", pad="<|endoftext|>", named=_NAMED, chat_template=_TEMPLATE,
        )  # fmt: skip
        text = {
            **small_text(tokenizer), "model_type": "qwen3_5_text", "num_hidden_layers": 4,
            "head_dim": 8, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
            "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5,
                "mrope_section": [1, 1, 0], "mrope_interleaved": True,
            },
        }  # fmt: skip
        vision = {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
            "num_attention_heads": 4, "image_size": 64, "patch_size": 4,
        }  # fmt: skip
        config = getattr(t, f"MiniCPMV{self.version}Config")(
            text_config=text, vision_config=vision, insert_layer_id=1, image_size=64,
            image_token_id=tokenizer.image_token_id, video_token_id=tokenizer.video_token_id,
            downsample_mode=self.mode, **self.marks(tokenizer),
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = getattr(t, f"MiniCPMV{self.version}ForConditionalGeneration")(config)
        images = t.MiniCPMV4_6ImageProcessorPil(
            max_slice_nums=4, scale_resolution=32, patch_size=4, downsample_mode=self.mode
        )
        named = {"processor_class": f"MiniCPMV{self.version}Processor"}
        save(folder, model, tokenizer, images, processor_config=named)

    def marks(self, tokenizer: Any) -> dict[str, int]:
        """Ids of marks that the config holds, beside the image's."""
        del tokenizer
        return {}


class MiniCpm47Checks(MiniCpm46Checks):
    """MiniCPM-V 4.7: the same, with positions on the image's canvas."""

    stands_for: ClassVar[str] = "openbmb/MiniCPM-V-4.7-1B"
    version: ClassVar[str] = "4_7"

    def marks(self, tokenizer: Any) -> dict[str, int]:
        """See `MiniCpm46Checks.marks`."""
        number = tokenizer.convert_tokens_to_ids
        (newline,) = tokenizer.encode("\n", add_special_tokens=False)
        return {
            "image_start_id": number("<image>"), "image_end_id": number("</image>"),
            "slice_start_id": number("<slice>"), "slice_end_id": number("</slice>"),
            "newline_id": newline,
        }  # fmt: skip


class MiniCpmFineChecks(MiniCpm47Checks):
    """MiniCPM-V 4.7 with four times the image tokens: the tower merges nothing."""

    mode: ClassVar[str] = "4x"


CHECKS = (MiniCpm46Checks, MiniCpm47Checks, MiniCpmFineChecks, *older.CHECKS)
