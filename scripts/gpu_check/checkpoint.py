"""The checkpoint: a LLaVA with random bfloat16 weights, made on the device and saved in shards."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
)

from scripts.gpu_check.shapes import Shape
from vlmlens.hf.checkpoints import quiet
from vlmlens.testing.tiny import byte_tokenizer

_SHARD = "4GB"
_EMBEDDINGS = ("embed_tokens", "position_embedding")
_VECTOR = "class_embedding"
_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] %}"
    "{{ '<image>\\n' if part['type'] == 'image' else part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def made_checkpoint(shape: Shape, folder: Path, device: str) -> Path:
    """The checkpoint's folder; it is made if it is not there, and never left half made.

    Args:
        shape: Of the model.
        folder: The folder.
        device: Where random numbers are drawn.
    """
    if not folder.exists():
        _remove_abandoned(folder)
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        shutil.rmtree(part, ignore_errors=True)
        write(shape, part, device)
        part.rename(folder)
    return folder


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes left that were killed while they wrote it: up to 14 GB each."""
    for part in folder.parent.glob(f"{folder.name}.*.part"):
        number = part.name.split(".")[-2]
        if not (number.isdecimal() and _runs(int(number))):
            shutil.rmtree(part, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write(shape: Shape, folder: Path, device: str) -> None:
    """Draw the weights and write config, weights, tokenizer and processor."""
    tokenizer = byte_tokenizer(
        ["<unk>", "<s>", "</s>", "<pad>", "<image>"],
        bos="<s>", eos="</s>", pad="<pad>", unk="<unk>", add_bos=True,
    )  # fmt: skip
    processor = LlavaProcessor(
        CLIPImageProcessor(
            size={"shortest_edge": shape.side},
            crop_size={"height": shape.side, "width": shape.side},
        ),
        tokenizer, patch_size=shape.patch, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=_TEMPLATE,
    )  # fmt: skip
    with quiet():
        with torch.device(device):
            model = AutoModelForImageTextToText.from_config(
                _config(shape, tokenizer), dtype=torch.bfloat16
            )
        draw(model.to(device))
        model.save_pretrained(folder, max_shard_size=_SHARD)
        processor.save_pretrained(folder)


def draw(model: Any, *, seed: int = 1) -> None:
    """Draw every matrix anew, in place, on the model's device.

    Standard deviations are 1.2 / sqrt(inputs), of embeddings 0.5: with smaller weights a model is
    almost linear, and neither masks nor pictures would matter to its numbers.
    """
    generator = torch.Generator(model.device).manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() >= 2 or _VECTOR in name:
                embedding = any(part in name for part in (*_EMBEDDINGS, _VECTOR))
                scale = 0.5 if embedding else 1.2 / weight[0].numel() ** 0.5
                weight.normal_(0.0, scale, generator=generator)


def _config(shape: Shape, tokenizer: Any) -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=shape.tower_width, intermediate_size=shape.tower_inner,
        num_hidden_layers=shape.tower_blocks, num_attention_heads=shape.tower_heads,
        image_size=shape.side, patch_size=shape.patch, projection_dim=shape.tower_width,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.inner,
        num_hidden_layers=shape.blocks, num_attention_heads=shape.heads,
        max_position_embeddings=4096, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return LlavaConfig(
        vision_config=vision, text_config=text, image_seq_length=shape.image_tokens,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
