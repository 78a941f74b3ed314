"""The packed forward pass against ordinary ones, question by question."""

from __future__ import annotations

import random

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from scripts.train_demo.build import ASSISTANT, IMAGE_LINE, USER
from scripts.train_demo.packing import Packer, packed_hidden
from scripts.train_demo.stages import patch_states
from vlmlens_plugins.demo.scenes import draw, make_scene

TOLERANCE = 1e-4


@torch.inference_mode()
def check_packing(model: LlavaForConditionalGeneration, processor: LlavaProcessor) -> float:
    """The largest difference between packed and plain float32 logits at the answers.

    Raises:
        ValueError: They differ by more than `TOLERANCE`.
    """
    model.eval()
    scenes = [make_scene(index, split="train") for index in range(4)]
    images = [draw(scene) for scene in scenes]
    packer = Packer(processor.tokenizer, presence=2)
    packed = packer.pack(scenes, torch.zeros(4, dtype=torch.bool), random.Random(0))
    pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    hidden = packed_hidden(model, packer.head, patch_states(model, pixels), packed.ids)
    worst = 0.0
    for row, image in enumerate(images):
        for column, (_, prompt, _) in enumerate(packed.asked[row]):
            text = USER + IMAGE_LINE + prompt + ASSISTANT
            inputs = processor(text=text, images=image, return_tensors="pt")
            plain = model(**inputs).logits[0, -1]
            mine = model.lm_head(hidden[row, column, packed.answer_at[row, column]])
            worst = max(worst, float((plain - mine).abs().max()))
    if worst > TOLERANCE:
        raise ValueError(f"packed logits differ by {worst}; expected at most {TOLERANCE}")
    model.train()
    return worst
