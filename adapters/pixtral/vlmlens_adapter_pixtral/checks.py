"""The conformance kit on a tiny Pixtral, in transformers' layout and in Mistral's own."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing.tiny import byte_tokenizer, save, wake
from vlmlens_adapter_pixtral.manifest import MANIFEST

_SPECIALS = [
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]",
    "[IMG_END]",
]  # fmt: skip


class PixtralChecks(AdapterTests):
    """Pixtral in transformers' layout."""

    manifest: ClassVar[Manifest] = MANIFEST
    stands_for: ClassVar[str] = "mistral-community/pixtral-12b"

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        from vlmlens.hf.processors import transformers_class
        from vlmlens_adapter_pixtral.mistral import CHAT_TEMPLATE

        tokenizer = byte_tokenizer(
            _SPECIALS, bos="<s>", eos="</s>", pad="<pad>", unk="<unk>", add_bos=True
        )
        ids = {name: tokenizer.convert_tokens_to_ids(name) for name in _SPECIALS}
        images = t.PixtralImageProcessor(
            size={"longest_edge": 64}, patch_size={"height": 8, "width": 8}
        )
        processor = transformers_class("PixtralProcessor")(
            images, tokenizer, patch_size=8, chat_template=CHAT_TEMPLATE
        )
        save(folder, tiny_model(len(tokenizer), ids), processor)


class ConsolidatedChecks(AdapterTests):
    """Pixtral in Mistral's layout."""

    manifest: ClassVar[Manifest] = MANIFEST
    stands_for: ClassVar[str] = "mistralai/Pixtral-12B-2409"

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        ids = {name: i for i, name in enumerate(_SPECIALS)}
        write_consolidated(folder, wake(tiny_model(256 + len(_SPECIALS), ids)))


def tiny_model(vocabulary: int, ids: dict[str, int]) -> Any:
    """A tiny Pixtral of the real class."""
    import transformers as t

    vision = t.PixtralVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        image_size=64, patch_size=8, hidden_act="silu",
        rope_parameters={"rope_type": "axial", "rope_theta": 10000.0},
    )  # fmt: skip
    text = t.MistralConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=2048,
        sliding_window=None, rms_norm_eps=1e-5, bos_token_id=ids["<s>"],
        eos_token_id=ids["</s>"], pad_token_id=ids["<pad>"],
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )  # fmt: skip
    config = t.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=ids["[IMG]"],
        vision_feature_layer=-1, vision_feature_select_strategy="full", image_seq_length=1,
    )  # fmt: skip
    return t.LlavaForConditionalGeneration(config)


def write_consolidated(folder: Path, model: Any) -> None:
    """Write a model as Mistral does."""
    from safetensors.torch import save_file

    config = model.config
    weights = {
        original: _interleaved(weight, _heads(original, config)).contiguous()
        for name, weight in model.state_dict().items()
        for original in [_ORIGINAL.get(name) or _original(name)]
    }
    save_file(weights, folder / "consolidated.safetensors")
    (folder / "params.json").write_text(json.dumps(_params(config)), encoding="utf-8")
    (folder / "tekken.json").write_text(json.dumps(_tekken()), encoding="utf-8")


_ORIGINAL = {
    "lm_head.weight": "output.weight",
    "model.language_model.embed_tokens.weight": "tok_embeddings.weight",
    "model.language_model.norm.weight": "norm.weight",
}
_PARTS = (
    ("model.language_model.layers.", "layers."),
    ("model.vision_tower.", "vision_encoder."),
    ("model.multi_modal_projector.linear_1", "vision_language_adapter.w_in"),
    ("model.multi_modal_projector.linear_2", "vision_language_adapter.w_out"),
    (".input_layernorm.", ".attention_norm."),
    (".post_attention_layernorm.", ".ffn_norm."),
    (".self_attn.", ".attention."),
    (".mlp.", ".feed_forward."),
    (".q_proj.", ".wq."),
    (".k_proj.", ".wk."),
    (".v_proj.", ".wv."),
    (".o_proj.", ".wo."),
    (".gate_proj.", ".w1."),
    (".down_proj.", ".w2."),
    (".up_proj.", ".w3."),
)


def _original(name: str) -> str:
    for native, original in _PARTS:
        name = name.replace(native, original)
    return name


def _heads(original: str, config: Any) -> int:
    if ".wq." not in original and ".wk." not in original:
        return 0
    if original.startswith("vision_encoder"):
        return int(config.vision_config.num_attention_heads)
    text = config.text_config
    return int(text.num_attention_heads if ".wq." in original else text.num_key_value_heads)


def _interleaved(weight: Any, heads: int) -> Any:
    """Rows j and j + d / 2 of each head next to each other."""
    if not heads:
        return weight
    half = weight.shape[0] // heads // 2
    order = [
        head * 2 * half + j + side * half
        for head in range(heads)
        for j in range(half)
        for side in (0, 1)
    ]
    return weight[order]


def _params(config: Any) -> dict[str, Any]:
    text, vision = config.text_config, config.vision_config
    return {
        "dim": text.hidden_size, "n_layers": text.num_hidden_layers, "head_dim": text.head_dim,
        "hidden_dim": text.intermediate_size, "n_heads": text.num_attention_heads,
        "n_kv_heads": text.num_key_value_heads, "norm_eps": text.rms_norm_eps,
        "vocab_size": text.vocab_size, "rope_theta": text.rope_parameters["rope_theta"],
        "vision_encoder": {
            "hidden_size": vision.hidden_size, "num_channels": 3,
            "image_size": vision.image_size, "patch_size": vision.patch_size,
            "rope_theta": vision.rope_parameters["rope_theta"],
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "image_token_id": config.image_token_id,
        },
    }  # fmt: skip


def _tekken() -> dict[str, Any]:
    """A tekken.json of 256 bytes that lists its special tokens."""
    return {
        "config": {
            "pattern": r"[^\r\n]+|[\r\n]+", "version": "v3",
            "num_vocab_tokens": 256, "default_vocab_size": 256 + len(_SPECIALS),
            "default_num_special_tokens": len(_SPECIALS),
        },
        "vocab": [
            {"rank": i, "token_bytes": base64.b64encode(bytes([i])).decode(), "token_str": None}
            for i in range(256)
        ],
        "special_tokens": [
            {"rank": i, "token_str": name, "is_control": True} for i, name in enumerate(_SPECIALS)
        ],
    }  # fmt: skip


CHECKS = (PixtralChecks, ConsolidatedChecks)
