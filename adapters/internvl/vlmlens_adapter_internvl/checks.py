"""The conformance kit on tiny InternVLs, in transformers' layout and in the original one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing.tiny import byte_tokenizer, save, small_vision, write_checkpoint_files
from vlmlens_adapter_internvl.manifest import MANIFEST
from vlmlens_adapter_internvl.tiny import original_config, original_weights

_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
_NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}"
    "{{ {'image': '<IMG_CONTEXT>\n', 'video': '<video>\n'}[part['type']] "
    "if part['type'] in ('image', 'video') else part['text'] }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class InternVLChecks(AdapterTests):
    """InternVL 3: InternViT, projector, Qwen2."""

    manifest: ClassVar[Manifest] = MANIFEST
    stands_for: ClassVar[str] = "OpenGVLab/InternVL3-1B-hf"
    text_config: ClassVar[str] = "Qwen2Config"

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = byte_tokenizer(
            [*_SPECIALS, "<video>"], eos="<|im_end|>", pad="<|endoftext|>", named=_NAMED
        )
        vision = t.InternVLVisionConfig(**small_vision(attention_bias=True))
        text = getattr(t, self.text_config)(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=8,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        config = t.InternVLConfig(
            vision_config=vision, text_config=text, image_seq_length=4, tie_word_embeddings=False,
            image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        )  # fmt: skip
        images = t.GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, max_patches=12)
        tokenizer.chat_template = _TEMPLATE
        said = {"processor_class": "InternVLProcessor", "image_seq_length": 4}
        model = t.InternVLForConditionalGeneration(config)
        save(folder, model, tokenizer, images, processor_config=said)


class InternVL35Checks(InternVLChecks):
    """InternVL 3.5: the same with Qwen3."""

    stands_for: ClassVar[str] = "OpenGVLab/InternVL3_5-30B-A3B-HF"
    text_config: ClassVar[str] = "Qwen3Config"


class OriginalQwen2Checks(AdapterTests):
    """InternVL 2.5 (1B, 4B) in its original layout, with Qwen2."""

    manifest: ClassVar[Manifest] = MANIFEST
    stands_for: ClassVar[str] = "OpenGVLab/InternVL2_5-1B"
    architecture: ClassVar[str] = "Qwen2ForCausalLM"
    begin: ClassVar[str | None] = None

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        tokenizer = self.tokenizer()
        tokenizer.save_pretrained(folder)
        config = original_config(self.architecture, len(tokenizer))
        write_checkpoint_files(folder, original_weights(config), config=config)

    def tokenizer(self) -> Any:
        """A byte tokenizer with InternVL's special tokens, which writes `begin` itself."""
        return byte_tokenizer(
            ["<s>", *_SPECIALS], bos=self.begin, eos="<|im_end|>", pad="<|endoftext|>", add_bos=True
        )


class OriginalInternLM2Checks(OriginalQwen2Checks):
    """InternVL 2.5 (2B, 8B) in its original layout, with InternLM2."""

    stands_for: ClassVar[str] = "OpenGVLab/InternVL2_5-2B"
    architecture: ClassVar[str] = "InternLM2ForCausalLM"
    begin: ClassVar[str | None] = "<s>"


CHECKS = (InternVLChecks, InternVL35Checks, OriginalQwen2Checks, OriginalInternLM2Checks)
