"""The conformance kit on tiny SmolVLMs: tiles with and without marks of their own, and none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing.tiny import byte_tokenizer, save, small_text, small_vision
from vlmlens_adapter_smolvlm.manifest import MANIFEST

_SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<end_of_utterance>",
    "<fake_token_around_image>", "<image>",
)  # fmt: skip
_MARKS = ("<global-img>", *(f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)))
_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


class SmolVLMChecks(AdapterTests):
    """SmolVLM 256M and 500M: the classes of Idefics3, tiles with marks of their own."""

    manifest: ClassVar[Manifest] = MANIFEST
    family: ClassVar[str] = "Idefics3"
    marks: ClassVar[tuple[str, ...]] = _MARKS
    tile: ClassVar[int] = 32
    patch: ClassVar[int] = 8
    scale: ClassVar[int] = 2
    splits: ClassVar[bool] = True

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = byte_tokenizer(
            [*_SPECIALS, *self.marks],
            bos="<|im_start|>",
            eos="<end_of_utterance>",
            pad="<|im_end|>",
        )
        vision = small_vision(image_size=self.tile, patch_size=self.patch)
        config = getattr(t, f"{self.family}Config")(
            vision_config=vision, text_config=t.LlamaConfig(**small_text(tokenizer)),
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"), scale_factor=self.scale,
        )  # fmt: skip
        images = getattr(t, f"{self.family}ImageProcessorPil")(
            size={"longest_edge": 2 * self.tile}, max_image_size={"longest_edge": self.tile},
            do_image_splitting=self.splits,
        )  # fmt: skip
        tokenizer.chat_template = _TEMPLATE
        tokens = (self.tile // self.patch // self.scale) ** 2
        said: dict[str, Any] = {
            "processor_class": f"{self.family}Processor", "image_seq_len": tokens,
        }  # fmt: skip
        model = getattr(t, f"{self.family}ForConditionalGeneration")(config)
        save(folder, model, tokenizer, images, processor_config=said)


class SmolVLM2Checks(SmolVLMChecks):
    """SmolVLM2: classes of its own. As in 2.2B, marks are spelled and tiles have a rest."""

    family: ClassVar[str] = "SmolVLM"
    marks: ClassVar[tuple[str, ...]] = ()
    tile: ClassVar[int] = 36


class WholeImageChecks(SmolVLMChecks):
    """Idefics3 that does not cut images, with 4 x 4 patches in a token."""

    patch: ClassVar[int] = 4
    scale: ClassVar[int] = 4
    splits: ClassVar[bool] = False


CHECKS = (SmolVLMChecks, SmolVLM2Checks, WholeImageChecks)
