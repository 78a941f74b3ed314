"""Tiny checkpoints in GLaMM's own layout, with random weights, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmlens.testing.tiny import (
    Shapes,
    drawn_weights,
    linear,
    norm,
    sentencepiece_model,
    state_shapes,
    write_checkpoint_files,
)

TOWER = "clip"
"""The folder, in that of the checkpoint, where the vision tower lies."""

_VOCABULARY = 320
_TEXT = (
    "The picture provides an overview. What is this?",
    "Name the colour of the largest thing, please: red, green or blue.",
    "A chat between a curious human and an artificial intelligence assistant.",
    "Can you segment the red circle in this image? Sure, it is the blue square.",
)
_EMBEDDINGS = r"(embed_tokens|embedding|embed|tokens?)\.weight$|_embed"


def tiny_config() -> dict[str, Any]:
    """What a config.json says: two layers in the language model and in SAM."""
    return {
        "architectures": ["GLaMMForCausalLM"], "model_type": "llava", "vocab_size": _VOCABULARY + 7,
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "mm_hidden_size": 16, "mm_use_im_start_end": True, "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2, "mm_vision_tower": TOWER, "vision_tower": TOWER,
        "num_level_reg_features": 4, "out_dim": 16, "with_region": True, "torch_dtype": "float32",
        "golden_only_grounding_encoder": {
            "image_encoder": {
                "embed_dim": 24, "depth": 2, "num_heads": 4, "global_attn_indexes": [1],
                "window_size": 3, "img_size": 64, "patch_size": 8, "mlp_ratio": 2, "out_chans": 16,
            },
            "prompt_encoder": {"embed_dim": 16, "mask_in_chans": 8},
            "mask_decoder": {
                "transformer_dim": 16, "transformer_depth": 2, "transformer_num_heads": 4,
                "transformer_mlp_dim": 24, "iou_head_hidden_dim": 12,
            },
        },
        "golden_only_region_encoder": {
            "embed_dims": 16, "group_norm_groups": 4, "roi_output_size": 2, "pos_mid_dim": 8,
            "mid_dim": 12, "roi_scale": 32.0, "num_fuse": 2,
        },
    }  # fmt: skip


def tiny_tower_config() -> dict[str, Any]:
    """What the config.json of its vision tower says: images of 48 pixels, patches of 8."""
    return {
        "architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model",
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 11,
        "num_attention_heads": 2, "num_channels": 3, "image_size": 48, "patch_size": 8,
        "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    }  # fmt: skip


def write_checkpoint(folder: Path) -> Path:
    """A whole checkpoint, with a SentencePiece model trained on a few sentences."""
    config, tower = tiny_config(), tiny_tower_config()
    weights = drawn_weights(_glamm(config), embeddings=_EMBEDDINGS)
    write_checkpoint_files(folder, weights, config=config)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(_TEXT, vocab_size=_VOCABULARY))
    images = {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}}
    weights = drawn_weights(_clip(tower), embeddings=_EMBEDDINGS, seed=4)
    write_checkpoint_files(folder / TOWER, weights, config=tower, preprocessor_config=images)
    return folder


def _glamm(config: Mapping[str, Any]) -> Shapes:
    wide, words = config["hidden_size"], config["vocab_size"]
    sam = config["golden_only_grounding_encoder"]
    return {
        "model.embed_tokens.weight": (words, wide),
        "lm_head.weight": (words, wide),
        "model.norm.weight": (wide,),
        **_repeated("model.layers", config["num_hidden_layers"], _llama(config)),
        **linear("model.mm_projector.0", wide, config["mm_hidden_size"]),
        **linear("model.mm_projector.2", wide, wide),
        **linear("model.text_hidden_fcs.0.0", wide, wide),
        **linear("model.text_hidden_fcs.0.2", config["out_dim"], wide),
        **_below("model.grounding_encoder.image_encoder", _sam_images(sam["image_encoder"])),
        **_below("model.grounding_encoder.prompt_encoder", _sam_prompts(sam["prompt_encoder"])),
        **_below("model.grounding_encoder.mask_decoder", _sam_masks(sam["mask_decoder"])),
        **_below("model.region_encoder", _regions(config)),
    }


def _llama(config: Mapping[str, Any]) -> Shapes:
    wide, inner = config["hidden_size"], config["intermediate_size"]
    return {
        **{f"self_attn.{name}_proj.weight": (wide, wide) for name in "qkvo"},
        "self_attn.rotary_emb.inv_freq": (wide // config["num_attention_heads"] // 2,),
        "mlp.gate_proj.weight": (inner, wide),
        "mlp.up_proj.weight": (inner, wide),
        "mlp.down_proj.weight": (wide, inner),
        "input_layernorm.weight": (wide,),
        "post_attention_layernorm.weight": (wide,),
    }


def _clip(config: Mapping[str, Any]) -> Shapes:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return _below("vision_model", state_shapes(lambda: CLIPVisionModel(CLIPVisionConfig(**config))))


def _sam_images(said: Mapping[str, Any]) -> Shapes:
    wide, out, patch = said["embed_dim"], said["out_chans"], said["patch_size"]
    inner, side = wide * said["mlp_ratio"], said["img_size"] // patch
    shapes: Shapes = {
        "pos_embed": (1, side, side, wide),
        "patch_embed.proj.weight": (wide, 3, patch, patch),
        "patch_embed.proj.bias": (wide,),
        "neck.0.weight": (out, wide, 1, 1),
        "neck.2.weight": (out, out, 3, 3),
        **norm("neck.1", out),
        **norm("neck.3", out),
    }
    for i in range(said["depth"]):
        reach = side if i in said["global_attn_indexes"] else said["window_size"]
        places = (2 * reach - 1, wide // said["num_heads"])
        block = {
            **norm("norm1", wide),
            **norm("norm2", wide),
            **linear("attn.qkv", 3 * wide, wide),
            **linear("attn.proj", wide, wide),
            "attn.rel_pos_h": places,
            "attn.rel_pos_w": places,
            **linear("mlp.lin1", inner, wide),
            **linear("mlp.lin2", wide, inner),
        }
        shapes.update(_below(f"blocks.{i}", block))
    return shapes


def _sam_prompts(said: Mapping[str, Any]) -> Shapes:
    wide, inner = said["embed_dim"], said["mask_in_chans"]
    return {
        "pe_layer.positional_encoding_gaussian_matrix": (2, wide // 2),
        **{f"point_embeddings.{i}.weight": (1, wide) for i in range(4)},
        "not_a_point_embed.weight": (1, wide),
        "no_mask_embed.weight": (1, wide),
        **linear("mask_downscaling.0", inner // 4, 1, 2, 2),
        **norm("mask_downscaling.1", inner // 4),
        **linear("mask_downscaling.3", inner, inner // 4, 2, 2),
        **norm("mask_downscaling.4", inner),
        **linear("mask_downscaling.6", wide, inner, 1, 1),
    }


def _sam_masks(said: Mapping[str, Any]) -> Shapes:
    wide, inner, head = (
        said[name] for name in ("transformer_dim", "transformer_mlp_dim", "iou_head_hidden_dim")
    )
    block = {
        **_attention("self_attn", wide, wide),
        **_attention("cross_attn_token_to_image", wide, wide // 2),
        **_attention("cross_attn_image_to_token", wide, wide // 2),
        **linear("mlp.lin1", inner, wide),
        **linear("mlp.lin2", wide, inner),
    }
    for i in range(1, 5):
        block.update(norm(f"norm{i}", wide))
    shapes: Shapes = {
        "iou_token.weight": (1, wide),
        "mask_tokens.weight": (4, wide),
        **_repeated("transformer.layers", said["transformer_depth"], block),
        **_attention("transformer.final_attn_token_to_image", wide, wide // 2),
        **norm("transformer.norm_final_attn", wide),
        "output_upscaling.0.weight": (wide, wide // 4, 2, 2),
        "output_upscaling.0.bias": (wide // 4,),
        **norm("output_upscaling.1", wide // 4),
        "output_upscaling.3.weight": (wide // 4, wide // 8, 2, 2),
        "output_upscaling.3.bias": (wide // 8,),
        **_below("iou_prediction_head", _three_layers(wide, head, 4)),
    }
    for i in range(4):
        shapes.update(
            _below(f"output_hypernetworks_mlps.{i}", _three_layers(wide, wide, wide // 8))
        )
    return shapes


def _regions(config: Mapping[str, Any]) -> Shapes:
    said, levels = config["golden_only_region_encoder"], config["num_level_reg_features"]
    wide, middle, corner = said["embed_dims"], said["mid_dim"], said["pos_mid_dim"]
    shapes: Shapes = {
        **linear("roi_align.pos_embedd.0", corner, 4),
        **norm("roi_align.pos_embedd.2", corner),
        **linear("roi_align.pos_embedd.3", middle, corner),
        **norm("roi_align.pos_embedd.5", middle),
        **linear("roi_align.flatten_linear", middle, wide * said["roi_output_size"] ** 2),
        **linear("roi_align.updims", config["hidden_size"], middle),
    }
    for i in range(levels):
        shapes.update(linear(f"mlvl_fuse.input_conv.{i}", wide, config["mm_hidden_size"] + 2, 1, 1))
        shapes.update(linear(f"roi_align.pconvs.{i}", wide, wide, 3, 3))
    for i in range(said["num_fuse"]):
        shapes[f"mlvl_fuse.fuse_convs.{i}.conv.weight"] = (wide, wide, 3, 3)
        shapes.update(norm(f"mlvl_fuse.fuse_convs.{i}.gn", wide))
    return shapes


def _three_layers(inputs: int, inner: int, outputs: int) -> Shapes:
    return {
        **linear("layers.0", inner, inputs),
        **linear("layers.1", inner, inner),
        **linear("layers.2", outputs, inner),
    }


def _attention(name: str, wide: int, inner: int) -> Shapes:
    shapes = linear(f"{name}.out_proj", wide, inner)
    for part in ("q_proj", "k_proj", "v_proj"):
        shapes.update(linear(f"{name}.{part}", inner, wide))
    return shapes


def _below(head: str, shapes: Shapes) -> Shapes:
    return {f"{head}.{name}": shape for name, shape in shapes.items()}


def _repeated(head: str, count: int, block: Shapes) -> Shapes:
    return {f"{head}.{i}.{name}": shape for i in range(count) for name, shape in block.items()}
