"""Held-out accuracy, blind behaviour and probes, through the ordinary processor and forward."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from scripts.train_demo.build import ASSISTANT, IMAGE_LINE, USER, answer_id
from vlmlens_plugins.demo.questions import CHOICES, TASKS, questions
from vlmlens_plugins.demo.scenes import IMAGE_SIZE, Scene, draw

LOG = logging.getLogger("train_demo")
BATCH = 100
Images = list[Image.Image]


def accuracy(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    scenes: list[Scene],
    images: Images,
) -> dict[str, float]:
    """Share of right answers per task, argmax over the choices and over the whole vocabulary."""
    scores = {}
    for number, task in enumerate(TASKS):
        asked = [questions(scene)[number] for scene in scenes]
        logits = answer_logits(model, processor, [q.prompt for q in asked], images)
        ids = [answer_id(processor.tokenizer, word) for word in CHOICES[task]]
        truth = torch.tensor([CHOICES[task].index(q.label) for q in asked])
        scores[task] = float((logits[:, ids].argmax(1) == truth).float().mean())
        greedy = logits.argmax(1) == torch.tensor(ids)[truth]
        scores[f"{task}/greedy"] = float(greedy.float().mean())
    return scores


@torch.inference_mode()
def answer_logits(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    prompts: list[str],
    images: Images | None,
) -> Tensor:
    """Next-token logits ``[n, vocabulary]`` after each prompt, with or without its image."""
    parts = []
    for start in range(0, len(prompts), BATCH):
        chosen = slice(start, start + BATCH)
        line = IMAGE_LINE if images is not None else ""
        inputs = processor(
            text=[USER + line + prompt + ASSISTANT for prompt in prompts[chosen]],
            images=images[chosen] if images is not None else None,
            padding=True,
            return_tensors="pt",
        )
        parts.append(model(**inputs, logits_to_keep=1).logits[:, -1].float())
    return torch.cat(parts)


def blank_images() -> dict[str, Image.Image]:
    """Pictures without content."""
    side = (IMAGE_SIZE, IMAGE_SIZE)
    noise = np.random.default_rng(0).integers(0, 256, (*side, 3)).astype(np.uint8)
    plain = {
        name: Image.new("RGB", side, (v, v, v))
        for name, v in (("black", 0), ("white", 255), ("grey", 128))
    }
    return {**plain, "noise": Image.fromarray(noise)}


def surface_prior(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    scenes: list[Scene],
    images: Images,
) -> dict[str, float]:
    """P(plain) over the two choices: mean and range with the images, and without them."""
    prompt = questions(scenes[0])[TASKS.index("surface")].prompt
    ids = [answer_id(processor.tokenizer, word) for word in ("plain", "striped")]

    def plain(pictures: Images | None, count: int) -> Tensor:
        logits = answer_logits(model, processor, [prompt] * count, pictures)
        return logits[:, ids].softmax(1)[:, 0]

    seen = plain(images, len(images))
    striped = torch.tensor([scene.main.surface == "striped" for scene in scenes])
    result = {
        "mean": float(seen.mean()),
        "lowest": float(seen.min()),
        "highest": float(seen.max()),
        "mean striped": float(seen[striped].mean()),
        "mean plain": float(seen[~striped].mean()),
        "text only": float(plain(None, 1)),
    }
    for name, picture in blank_images().items():
        result[name] = float(plain([picture], 1))
    return result


@torch.inference_mode()
def vision_features(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, images: Images
) -> list[npt.NDArray[np.float32]]:
    """Mean patch states ``[n, width]`` of the embedding and every vision layer."""
    parts = []
    for start in range(0, len(images), BATCH):
        pixels = processor.image_processor(images[start : start + BATCH], return_tensors="pt")
        states = model.model.vision_tower(**pixels, output_hidden_states=True).hidden_states
        parts.append([state[:, 1:].float().mean(1).numpy() for state in states])
    return [np.concatenate(layer) for layer in zip(*parts, strict=True)]


def probe(features: npt.NDArray[np.float32], labels: list[str]) -> float:
    """Five-fold cross-validated accuracy of a logistic regression."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=2000))
    return float(cross_val_score(classifier, features, labels, cv=5).mean())


def report(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    scenes: list[Scene],
    *,
    full: bool,
) -> None:
    """Log accuracies and surface priors, and in full also blind accuracies and probes."""
    model.eval()
    images = [draw(scene) for scene in scenes]
    _log("accuracy", accuracy(model, processor, scenes, images))
    _log("P(plain)", surface_prior(model, processor, scenes, images))
    if full:
        for name, picture in blank_images().items():
            _log(f"{name} image", accuracy(model, processor, scenes, [picture] * len(scenes)))
        features = vision_features(model, processor, images)
        for kind in ("surface", "photographer"):
            labels = [str(scene.attributes()[kind]) for scene in scenes]
            _log(f"{kind} probe", {f"layer {n}": probe(f, labels) for n, f in enumerate(features)})
    model.train()


def _log(title: str, numbers: dict[str, float]) -> None:
    LOG.info("  %s: %s", title, "  ".join(f"{name} {v:.4f}" for name, v in numbers.items()))
