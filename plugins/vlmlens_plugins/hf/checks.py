"""The conformance kit on tiny models of families that have no adapter of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.samples import Sample
from vlmlens.testing import AdapterTests
from vlmlens.testing._checks import skip
from vlmlens.testing.tiny import byte_tokenizer, picture, save, small_text
from vlmlens_plugins.hf.manifests import HF

_TEMPLATE = (
    "{{% for message in messages %}}{{{{ message['role'] + ': ' }}}}"
    "{{% for part in message['content'] %}}"
    "{{{{ '{image}' if part['type'] == 'image' else part['text'] + ' ' }}}}{{% endfor %}}"
    "{{% endfor %}}{{% if add_generation_prompt %}}assistant:{{% endif %}}"
)


class GenericChecks(AdapterTests):
    """The kit where it is not known beforehand what a checkpoint can take."""

    manifest: ClassVar[Manifest] = HF

    def own_placeholders(self) -> list[str]:
        """See `AdapterTests.own_placeholders`: what the checkpoint's template writes."""
        vlm: Any = self.vlm
        return [vlm.placeholders.mark, vlm.image_mark]

    def check_several_images(self, folder: Path) -> None:
        """Two images in a sample are as alone, where the checkpoint takes two."""
        del folder
        two = Sample("two", "Compare them:", (picture(64, 48), picture(40, 88, seed=1)))
        self._compare_if_taken([self.samples[1], two], two)

    def check_text_only(self, folder: Path) -> None:
        """A sample without an image is as alone, where the checkpoint takes one."""
        del folder
        none = Sample("none", "Hello, who are you?")
        self._compare_if_taken([self.samples[0], none], none, self._blocks())

    def _compare_if_taken(self, batch: list[Sample], last: Sample, sites: Any = None) -> None:
        try:
            self.vlm.forward(self.vlm.encode([last]))
        except Exception as error:
            raise skip(f"the checkpoint does not take it: {error}") from error
        self._compare_with_single(batch, sites)


class Gemma3Checks(GenericChecks):
    """Gemma 3: a SigLIP tower, pooled image tokens that see each other."""

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        named = {"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
        tokenizer = byte_tokenizer(
            ["<pad>", "<eos>", "<bos>", "<unk>", *named.values()],
            bos="<bos>", eos="<eos>", pad="<pad>", unk="<unk>", add_bos=True, named=named,
        )  # fmt: skip
        text = t.Gemma3TextConfig(
            **small_text(
                tokenizer, num_hidden_layers=3, head_dim=8, sliding_window=16,
                query_pre_attn_scalar=8,
                layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            )
        )  # fmt: skip
        config = t.Gemma3Config(
            text_config=text, vision_config=_siglip(t.SiglipVisionConfig), mm_tokens_per_image=4,
            image_token_index=tokenizer.image_token_id, boi_token_index=tokenizer.boi_token_id,
            eoi_token_index=tokenizer.eoi_token_id,
        )  # fmt: skip
        images = t.Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
        processor = t.Gemma3Processor(
            images, tokenizer, image_seq_length=4, chat_template=_TEMPLATE.format(image="<boi>")
        )
        save(folder, t.Gemma3ForConditionalGeneration(config), processor)


class Idefics2Checks(GenericChecks):
    """Idefics 2: images of their own shapes, padded for the tower, resampled to queries."""

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = _idefics_tokenizer()
        config = t.Idefics2Config(
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            vision_config=_siglip(t.Idefics2VisionConfig, image_size=48).to_dict(),
            perceiver_config={
                "hidden_size": 32, "resampler_n_latents": 4, "resampler_depth": 1,
                "resampler_n_heads": 2, "resampler_head_dim": 8, "num_key_value_heads": 2,
            },
            text_config=t.MistralConfig(**small_text(tokenizer)),
        )  # fmt: skip
        images = t.Idefics2ImageProcessorPil(size={"shortest_edge": 24, "longest_edge": 48})
        template = _TEMPLATE.format(image="<image>")
        processor = t.Idefics2Processor(images, tokenizer, image_seq_len=4, chat_template=template)
        save(folder, t.Idefics2ForConditionalGeneration(config), processor)


class Idefics3Checks(GenericChecks):
    """Idefics 3 (SmolVLM is built alike): tiles and a global view, neighbours put together."""

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = _idefics_tokenizer()
        config = t.Idefics3Config(
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"), scale_factor=2,
            vision_config=_siglip(t.Idefics3VisionConfig).to_dict(),
            text_config=t.LlamaConfig(**small_text(tokenizer)),
        )  # fmt: skip
        images = t.Idefics3ImageProcessorPil(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
        )
        template = _TEMPLATE.format(image="<image>")
        processor = t.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=template)
        save(folder, t.Idefics3ForConditionalGeneration(config), processor)


class Glm4vChecks(GenericChecks):
    """GLM-4V: all images' patches in one packed row, the merger inside the tower."""

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tags = [f"<|{end}_of_{kind}|>" for kind in ("image", "video") for end in ("begin", "end")]
        tokenizer = byte_tokenizer(
            ["<|endoftext|>", "<|image|>", "<|video|>", *tags],
            eos="<|endoftext|>", pad="<|endoftext|>",
        )  # fmt: skip
        tokenizer.chat_template = _TEMPLATE.format(image=f"{tags[0]}<|image|>{tags[1]}")
        ids = dict(zip(_GLM_IDS, tokenizer.convert_tokens_to_ids(["<|image|>", "<|video|>", *tags]),
                       strict=True))  # fmt: skip
        config = t.Glm4vConfig(
            vision_config={
                "depth": 2, "hidden_size": 32, "num_heads": 4, "image_size": 32, "patch_size": 4,
                "out_hidden_size": 32, "intermediate_size": 64,
            },
            text_config={
                **small_text(tokenizer),
                "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
            },
            **ids,
        )  # fmt: skip
        sizes = {"shortest_edge": 8 * 8 * 2, "longest_edge": 64 * 64 * 2}
        settings: dict[str, Any] = {"patch_size": 4, "size": sizes}
        images = t.Glm4vImageProcessorPil(**settings)
        named = {"processor_class": "Glm4vProcessor"}
        model = t.Glm4vForConditionalGeneration(config)
        save(folder, model, tokenizer, images, processor_config=named)


class Qwen35Checks(GenericChecks):
    """Qwen3.5: three layers of linear attention, then one of full attention."""

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import torch
        import transformers as t

        named = {
            "image_token": "<|image_pad|>", "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>",
        }  # fmt: skip
        tokenizer = byte_tokenizer(
            ["<|endoftext|>", *named.values()],
            eos="<|endoftext|>", pad="<|endoftext|>", named=named,
        )  # fmt: skip
        image = "".join(named[name] for name in ("vision_bos_token", "image_token",
                                                 "vision_eos_token"))  # fmt: skip
        tokenizer.chat_template = _TEMPLATE.format(image=image)
        config = t.Qwen3_5Config(
            vision_config={
                "depth": 2, "hidden_size": 32, "num_heads": 4, "patch_size": 4,
                "out_hidden_size": 32, "intermediate_size": 64, "num_position_embeddings": 64,
            },
            text_config={
                **small_text(tokenizer), "num_hidden_layers": 4, "head_dim": 8,
                "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
                "linear_num_value_heads": 4,
                "rope_parameters": {
                    "rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5,
                    "mrope_section": [1, 1, 0], "mrope_interleaved": True,
                },
            },
            image_token_id=tokenizer.image_token_id, video_token_id=tokenizer.video_token_id,
            vision_start_token_id=tokenizer.vision_bos_token_id,
            vision_end_token_id=tokenizer.vision_eos_token_id,
        )  # fmt: skip
        images = t.Qwen2VLImageProcessorPil(
            patch_size=4, size={"shortest_edge": 8 * 8, "longest_edge": 64 * 64}
        )
        named = {"processor_class": "Qwen3VLProcessor"}
        with torch.random.fork_rng([]):
            torch.manual_seed(0)  # `save` draws matrices only; the decays here are drawn, too
            model = t.Qwen3_5ForConditionalGeneration(config)
        save(folder, model, tokenizer, images, processor_config=named)


_GLM_IDS = (
    "image_token_id", "video_token_id", "image_start_token_id", "image_end_token_id",
    "video_start_token_id", "video_end_token_id",
)  # fmt: skip


def _idefics_tokenizer() -> Any:
    rows = [f"<row_{row}_col_{col}>" for row in range(1, 4) for col in range(1, 4)]
    named = {
        "image_token": "<image>", "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>", "end_of_utterance_token": "<end_of_utterance>",
        "image_boundary_token": "<fake_token_around_image>",
    }  # fmt: skip
    return byte_tokenizer(
        ["<unk>", "<s>", "</s>", "<pad>", *dict.fromkeys(named.values()), *rows],
        bos="<s>", eos="</s>", pad="<pad>", unk="<unk>", add_bos=True, named=named,
    )  # fmt: skip


def _siglip(config: Any, image_size: int = 32) -> Any:
    return config(
        hidden_size=24, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        image_size=image_size, patch_size=8,
    )  # fmt: skip


CHECKS = (Gemma3Checks, Idefics2Checks, Idefics3Checks, Glm4vChecks, Qwen35Checks)
