"""The conformance kit on tiny BLIP-2 models, one with OPT and one with Flan-T5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing.tiny import byte_tokenizer, save
from vlmlens_adapter_blip2.manifest import MANIFEST

_SPECIALS = ["<pad>", "</s>", "<unk>"]


class OptChecks(AdapterTests):
    """BLIP-2 with OPT."""

    manifest: ClassVar[Manifest] = MANIFEST
    stands_for: ClassVar[str] = "Salesforce/blip2-opt-2.7b"

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = byte_tokenizer(
            _SPECIALS, bos="</s>", eos="</s>", pad="<pad>", unk="<unk>", add_bos=True
        )
        processor = _processor(tokenizer)
        text = t.OPTConfig(
            vocab_size=len(tokenizer), hidden_size=32, ffn_dim=64, num_hidden_layers=2,
            num_attention_heads=4, word_embed_proj_dim=32, max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        save(folder, t.Blip2ForConditionalGeneration(_config(text, tokenizer)), processor)

    def hidden_states(self, output: Any) -> Sequence[Any]:
        """See `AdapterTests.hidden_states`."""
        states: Sequence[Any] = output.language_model_outputs.hidden_states
        return states


class FlanT5Checks(AdapterTests):
    """BLIP-2 with Flan-T5."""

    manifest: ClassVar[Manifest] = MANIFEST
    stands_for: ClassVar[str] = "Salesforce/blip2-flan-t5-xl"

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = byte_tokenizer(_SPECIALS, eos="</s>", pad="<pad>", unk="<unk>", add_eos=True)
        processor = _processor(tokenizer)
        settings: dict[str, Any] = {
            "tie_word_embeddings": False, "decoder_start_token_id": tokenizer.pad_token_id,
        }  # fmt: skip
        text = t.T5Config(
            vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2,
            num_decoder_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, **settings,
        )  # fmt: skip
        save(folder, t.Blip2ForConditionalGeneration(_config(text, tokenizer)), processor)

    def hidden_states(self, output: Any) -> Sequence[Any]:
        """See `AdapterTests.hidden_states`."""
        states: Sequence[Any] = output.language_model_outputs.decoder_hidden_states
        return states


def _processor(tokenizer: Any) -> Any:
    """Adds the image token to the tokenizer, so it comes before the config."""
    import transformers as t

    images = t.BlipImageProcessor(size={"height": 32, "width": 32})
    return t.Blip2Processor(images, tokenizer, num_query_tokens=32)


def _config(text: Any, tokenizer: Any) -> Any:
    import transformers as t

    vision = t.Blip2VisionConfig(
        hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        image_size=32, patch_size=8,
    )  # fmt: skip
    queries = t.Blip2QFormerConfig(
        vocab_size=len(tokenizer), hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, encoder_hidden_size=48, max_position_embeddings=64,
    )  # fmt: skip
    return t.Blip2Config(
        vision_config=vision, qformer_config=queries, text_config=text, num_query_tokens=32,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip


CHECKS = (OptChecks, FlanT5Checks)
