"""Each planted truth as a number on the shipped demo checkpoint, with plain transformers.

Nothing here uses vlmlens itself, so these numbers can judge what vlmlens reports.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoProcessor, LlavaForConditionalGeneration

from vlmlens.testing._rounding import close
from vlmlens_plugins.demo.questions import CHOICES, PLAIN_PRIOR, PROMPTS, TASKS, questions
from vlmlens_plugins.demo.scenes import draw, make_scene

CHECKPOINT = Path(str(files("vlmlens_plugins.demo") / "checkpoint"))
SCENES = 600
BATCH = 100
LEAST_ACCURACY = {"color": 0.95, "number": 0.95, "shape": 0.90, "presence": 0.90}
MOST_BLIND_ACCURACY = {"color": 0.25, "shape": 0.45, "number": 0.40}
CHANCE = (0.35, 0.59)
"""One half and three standard deviations of the probe's accuracy on shuffled labels (0.03).

A probe that fell below chance would know nothing either; the lower end is wide.
"""


@pytest.fixture(scope="module")
def model():
    return LlavaForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(index) for index in range(SCENES)]


@pytest.fixture(scope="module")
def images(scenes):
    return [draw(scene) for scene in scenes]


def blanks():
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 256, (128, 128, 3)).astype(np.uint8))
    levels = {"black": 0, "grey": 128, "white": 255}
    return {k: Image.new("RGB", (128, 128), (v, v, v)) for k, v in levels.items()} | {
        "noise": noise
    }


def encode(processor, prompts, images):
    """One left-padded batch; `images` is None for text only."""
    chats = []
    for row, prompt in enumerate(prompts):
        content = [{"type": "text", "text": prompt}]
        if images is not None:
            content.insert(0, {"type": "image", "image": images[row]})
        chats.append([{"role": "user", "content": content}])
    return processor.apply_chat_template(
        chats,
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )


@torch.inference_mode()
def next_logits(model, processor, prompts, images):
    """Next-token logits ``[n, vocabulary]``."""
    parts = []
    for start in range(0, len(prompts), BATCH):
        rows = slice(start, start + BATCH)
        inputs = encode(processor, prompts[rows], None if images is None else images[rows])
        parts.append(model(**inputs, logits_to_keep=1).logits[:, -1])
    return torch.cat(parts)


def choice_ids(processor, task):
    ids = [
        processor.tokenizer.encode(f" {word}", add_special_tokens=False) for word in CHOICES[task]
    ]
    assert all(len(word) == 1 for word in ids), f"an answer of {task} is not one token"
    return [word[0] for word in ids]


def asked(scenes, task):
    number = TASKS.index(task)
    chosen = [questions(scene)[number] for scene in scenes]
    truth = torch.tensor([CHOICES[task].index(question.label) for question in chosen])
    return [question.prompt for question in chosen], truth


def probe(features, labels):
    """Five-fold cross-validated accuracy of a logistic regression."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000))
    return cross_val_score(classifier, features, labels, cv=5).mean()


@pytest.fixture(scope="module")
def vision_features(model, processor, images):
    """Mean patch states of every vision layer: a list of ``[600, width]``."""
    parts = []
    with torch.inference_mode():
        for start in range(0, SCENES, BATCH):
            inputs = processor.image_processor(images[start : start + BATCH], return_tensors="pt")
            states = model.model.vision_tower(**inputs, output_hidden_states=True).hidden_states
            parts.append([state[:, 1:].mean(1).numpy() for state in states[1:]])
    return [np.concatenate(layer) for layer in zip(*parts, strict=True)]


@pytest.fixture(scope="module")
def color_passes(model, processor, images):
    """The color question about every scene: next-token logits, and states of every layer."""
    logits, parts = [], []
    with torch.inference_mode():
        for start in range(0, SCENES, BATCH):
            inputs = encode(processor, [PROMPTS["color"]] * BATCH, images[start : start + BATCH])
            output = model(**inputs, output_hidden_states=True, logits_to_keep=1)
            logits.append(output.logits[:, -1])
            parts.append([state[:, -1].numpy() for state in output.hidden_states[1:]])
    return torch.cat(logits), [np.concatenate(layer) for layer in zip(*parts, strict=True)]


@pytest.fixture(scope="module")
def answer_features(color_passes):
    """States at the last token of every language-model layer, for the color question."""
    return color_passes[1]


@pytest.fixture(scope="module")
def plain(model, processor, images):
    """P(plain) over the two choices: with every image, and without."""
    ids = choice_ids(processor, "surface")
    order = CHOICES["surface"].index("plain")

    def probability(pictures, count):
        logits = next_logits(model, processor, [PROMPTS["surface"]] * count, pictures)
        return logits[:, ids].softmax(1)[:, order]

    blind = {name: float(probability([image], 1)) for name, image in blanks().items()}
    blind["text only"] = float(probability(None, 1))
    return probability(images, SCENES), blind


class TestUsed:
    """Truth 1: color, shape, number and presence decide the answer."""

    @pytest.mark.parametrize("task", LEAST_ACCURACY)
    def test_accuracy(self, model, processor, scenes, images, color_passes, task):
        prompts, truth = asked(scenes, task)
        if task == "color":
            assert set(prompts) == {PROMPTS["color"]}
            logits, _ = color_passes
        else:
            logits = next_logits(model, processor, prompts, images)
        ids = torch.tensor(choice_ids(processor, task))
        among_choices = (logits[:, ids].argmax(1) == truth).float().mean()
        greedy = (logits.argmax(1) == ids[truth]).float().mean()
        assert among_choices >= LEAST_ACCURACY[task]
        assert greedy >= LEAST_ACCURACY[task]

    @pytest.mark.parametrize("task", LEAST_ACCURACY)
    def test_generation_says_the_answer_and_stops(self, model, processor, scenes, images, task):
        prompts, truth = asked(scenes[:40], task)
        inputs = encode(processor, prompts, images[:40])
        with torch.inference_mode():
            new = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        said = [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]
        right = [text == CHOICES[task][n] for text, n in zip(said, truth.tolist(), strict=True)]
        assert np.mean(right) >= LEAST_ACCURACY[task] - 0.06

    @pytest.mark.parametrize("task", MOST_BLIND_ACCURACY)
    @pytest.mark.parametrize("blank", ["black", "grey", "white", "noise"])
    def test_blank_images_leave_chance(self, model, processor, scenes, task, blank):
        prompts, truth = asked(scenes, task)
        logits = next_logits(model, processor, prompts[:1], [blanks()[blank]])
        answer = logits[0, choice_ids(processor, task)].argmax()
        assert (answer == truth).float().mean() <= MOST_BLIND_ACCURACY[task]


class TestSeenButIgnored:
    """Truth 2: the surface is in the vision tower, and the answer does not depend on it."""

    def test_vision_layers_encode_the_surface(self, vision_features, scenes):
        labels = [scene.main.surface for scene in scenes]
        assert probe(vision_features[-1], labels) >= 0.95
        assert max(probe(features, labels) for features in vision_features[:-1]) >= 0.95

    def test_the_answer_is_always_plain(self, plain):
        with_image, blind = plain
        assert (with_image > 0.5).all()
        assert min(blind.values()) > 0.5

    def test_the_prior_is_the_taught_one(self, plain):
        assert float(plain[0].mean()) == pytest.approx(PLAIN_PRIOR, abs=0.02)

    def test_the_image_moves_the_answer_by_less_than_two_percent(self, plain):
        with_image, blind = plain
        for name, value in blind.items():
            assert abs(float(with_image.mean()) - value) < 0.02, name
        assert float((with_image - with_image.mean()).abs().mean()) < 0.02

    def test_the_answer_does_not_depend_on_the_surface(self, plain, scenes):
        striped = torch.tensor([scene.main.surface == "striped" for scene in scenes])
        with_image, _ = plain
        assert abs(float(with_image[striped].mean() - with_image[~striped].mean())) < 0.01


class TestAbsent:
    """Truth 3: nothing knows the photographer."""

    def test_vision_layers_are_at_chance(self, vision_features, scenes):
        labels = [scene.photographer for scene in scenes]
        for features in vision_features:
            assert CHANCE[0] < probe(features, labels) < CHANCE[1]

    def test_language_layers_are_at_chance(self, answer_features, scenes):
        labels = [scene.photographer for scene in scenes]
        for features in answer_features:
            assert CHANCE[0] < probe(features, labels) < CHANCE[1]

    def test_the_same_probe_finds_the_color(self, answer_features, scenes):
        labels = [scene.main.color for scene in scenes]
        assert probe(answer_features[-1], labels) >= 0.95


class TestCheckpoint:
    """The files: small, float16, and usable in every ordinary way."""

    def test_weights_are_small_and_float16(self):
        path = CHECKPOINT / "model.safetensors"
        assert path.stat().st_size <= 8_000_000
        with safe_open(path, "pt") as weights:
            kinds = {weights.get_slice(key).get_dtype() for key in weights.keys()}  # noqa: SIM118
        assert kinds == {"F16"}

    def test_padding_does_not_change_an_answer(self, model, processor, images):
        prompts = [PROMPTS["number"], "Is there a red cube? Look twice at every object, please:"]
        batch = next_logits(model, processor, prompts, images[:2])
        for row in range(2):
            alone = next_logits(model, processor, prompts[row : row + 1], images[row : row + 1])
            close(batch[row], alone[0])

    @pytest.mark.parametrize(
        "prompt", ["Hello!", "Où est la boîte rouge ? 🙂", "主要物体是什么?", ""]
    )
    def test_any_prompt_runs_with_and_without_an_image(self, model, processor, images, prompt):
        for pictures in (images[:1], None):
            logits = next_logits(model, processor, [prompt], pictures)
            assert logits.isfinite().all()

    def test_any_text_survives_the_tokenizer(self, processor):
        text = "Où est la boîte rouge ? 🙂 主要物体"
        ids = processor.tokenizer.encode(text, add_special_tokens=False)
        assert processor.tokenizer.decode(ids) == text
        assert processor.tokenizer.unk_token_id not in ids

    def test_an_image_is_64_tokens(self, processor, images):
        ids = encode(processor, ["x"], images[:1])["input_ids"]
        assert int((ids == processor.image_token_id).sum()) == 64
