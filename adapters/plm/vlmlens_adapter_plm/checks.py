"""The conformance kit on tiny PerceptionLMs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing.tiny import byte_tokenizer, save, small_text, small_vision
from vlmlens_adapter_plm.manifest import MANIFEST

_BEGIN, _END, _TURN = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
_HEAD = ("<|start_header_id|>", "<|end_header_id|>")
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{% for part in message['content'] %}"
    "{{ '<|image|>' if part['type'] == 'image' else part['text'] }}{% endfor %}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_IMAGES = {
    "image_processor_type": "PerceptionLMImageProcessorFast",
    "processor_class": "PerceptionLMProcessor",
    "vision_input_type": "thumb+tile", "tile_size": 32, "max_num_tiles": 4, "resample": 3,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip
_VIDEOS = {
    "video_processor_type": "PerceptionLMVideoProcessor",
    "processor_class": "PerceptionLMProcessor",
    "size": {"height": 32, "width": 32},
}
_PROCESSOR = {"processor_class": "PerceptionLMProcessor", "patch_size": 8, "pooling_ratio": 2}


class PlmChecks(AdapterTests):
    """PerceptionLM with a SigLIP tower in place of timm's, so that it runs everywhere."""

    manifest: ClassVar[Manifest] = MANIFEST
    cls_token: ClassVar[bool] = False

    def tower(self) -> Any:
        """The vision tower's config."""
        import transformers as t

        tower = t.SiglipVisionConfig(**small_vision(vision_use_head=False))
        tower.model_args = {"embed_dim": 32}
        return tower

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = byte_tokenizer(
            [_BEGIN, _END, "<|image|>", "<|video|>", *_HEAD, _TURN],
            bos=_BEGIN, eos=_TURN, pad=_END, add_bos=True, chat_template=_TEMPLATE,
            named={"image_token": "<|image|>", "video_token": "<|video|>"},
        )  # fmt: skip
        text = t.LlamaConfig(**small_text(tokenizer))
        config = t.PerceptionLMConfig(
            vision_config=self.tower(), text_config=text, vision_use_cls_token=self.cls_token,
            projector_pooling_ratio=2, image_token_id=tokenizer.image_token_id,
            video_token_id=tokenizer.video_token_id,
        )  # fmt: skip
        save(
            folder, t.PerceptionLMForConditionalGeneration(config), tokenizer,
            preprocessor_config=_IMAGES, video_preprocessor_config=_VIDEOS,
            processor_config=_PROCESSOR,
        )  # fmt: skip


class PlmTimmChecks(PlmChecks):
    """PerceptionLM with its own PE tower, which needs timm and torchvision."""

    cls_token: ClassVar[bool] = True

    def tower(self) -> Any:
        """See `PlmChecks.tower`."""
        import transformers as t

        return t.TimmWrapperConfig(
            architecture="vit_pe_core_tiny_patch16_384", do_pooling=True,
            model_args={
                "embed_dim": 32, "depth": 3, "num_heads": 4, "img_size": [32, 32], "patch_size": 8,
                "global_pool": "", "use_post_transformer_norm": False, "init_values": 0.1,
                "ref_feat_shape": [4, 4], "attn_pool_num_heads": 4,
            },
        )  # fmt: skip


TIMM = all(importlib.util.find_spec(name) for name in ("timm", "torchvision"))
"""Whether the real tower can be built here."""

CHECKS = (PlmChecks, PlmTimmChecks) if TIMM else (PlmChecks,)
