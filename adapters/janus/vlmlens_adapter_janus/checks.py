"""The conformance kit on a tiny Janus."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing.tiny import byte_tokenizer, save, small_text
from vlmlens_adapter_janus.manifest import MANIFEST

_BEGIN, _END, _PAD = "<|begin_of_sentence|>", "<|end_of_sentence|>", "<|pad|>"
_IMAGES = {
    "image_token": "<image_placeholder>",
    "boi_token": "<begin_of_image>",
    "eoi_token": "<end_of_image>",
}
_TEMPLATE = (
    "{% for message in messages %}<|User|>: {% for part in message['content'] %}"
    "{{ '<image_placeholder>\\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ '\\n\\n' }}{% endfor %}{% if add_generation_prompt %}<|Assistant|>:{% endif %}"
)


class JanusChecks(AdapterTests):
    """Janus-Pro: its own tower, aligner, Llama, and an image tokenizer that does not run."""

    manifest: ClassVar[Manifest] = MANIFEST

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = byte_tokenizer(
            [_BEGIN, _END, _PAD, *_IMAGES.values()],
            bos=_BEGIN, eos=_END, pad=_PAD, add_bos=True, named=_IMAGES,
        )  # fmt: skip
        vision = t.JanusVisionConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8,
            mlp_ratio=2.0, projection_dim=32, num_image_tokens=16, depth=2,
        )  # fmt: skip
        images = t.JanusVQVAEConfig(
            embed_dim=4, num_embeddings=16, latent_channels=32, base_channels=32,
            channel_multiplier=[1, 1], num_res_blocks=1, projection_dim=32,
            image_token_embed_dim=32,
        )  # fmt: skip
        text = t.LlamaConfig(**small_text(tokenizer))
        config = t.JanusConfig(
            vision_config=vision, vq_config=images, text_config=text, tie_word_embeddings=False,
            image_token_id=tokenizer.image_token_id,
        )  # fmt: skip
        processor = t.JanusProcessor(
            t.JanusImageProcessor(size={"height": 32, "width": 32}, min_size=8), tokenizer,
            num_image_tokens=16, chat_template=_TEMPLATE,
        )  # fmt: skip
        save(folder, t.JanusForConditionalGeneration(config), processor)


CHECKS = (JanusChecks,)
