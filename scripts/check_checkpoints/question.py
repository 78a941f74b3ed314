"""A known question: what colour a red square has, and whether the answer is decoded greedily."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from scripts.check_checkpoints.records import FAILED, NOT_OFFERED, PASSED
from scripts.check_checkpoints.small_runs import Told, Tried

if TYPE_CHECKING:
    from PIL import Image

    from vlmlens.abc import ModelAdapter
    from vlmlens.samples import Sample

QUESTION, EXPECTED = "What color is the square?", "red"
COLORS = (EXPECTED, "blue", "green", "yellow", "black")
TOKENS = 12
_SIDE = 224
_NEAR = {"float32": 1e-3}
_COARSE = 0.3


def ask(tried: Tried) -> Told:
    """Ask about the red square.

    What is checked is that an answer is written, that it is that of transformers' own `generate`,
    and that each of its tokens is the most probable one in a whole pass. Whether the answer has
    the expected word is recorded; it is not part of the outcome.
    """
    from vlmlens.manifest import PluginKind

    offers = tried.registry.find(PluginKind.ADAPTER, tried.adapter).offers
    if "generate" in offers:
        return _written(tried.vlm(lambda: _load(tried)))
    if "choice-scores" in offers:
        return _chosen(tried.vlm(lambda: _load(tried)))
    return Told(NOT_OFFERED, "the adapter neither writes text nor compares choices")


@cache
def picture() -> Image.Image:
    """A red square on white, RGB, 224 x 224 pixels."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (_SIDE, _SIDE), "white")
    edge = _SIDE // 4
    ImageDraw.Draw(canvas).rectangle((edge, edge, _SIDE - edge, _SIDE - edge), fill=(220, 20, 20))
    return canvas


def _load(tried: Tried) -> ModelAdapter:
    import vlmlens

    return vlmlens.load(
        tried.adapter, tried.model, device=tried.device,
        dtype=tried.dtype,  # type: ignore[arg-type]
    )  # fmt: skip


def _written(vlm: ModelAdapter) -> Told:
    from vlmlens.samples import Sample

    sample = Sample("square", QUESTION, (picture(),))
    batch = vlm.encode([sample])
    (made,) = vlm.generate(batch, max_new_tokens=TOKENS)
    if not made.token_ids:
        return Told(FAILED, "it wrote no token")
    ids = list(made.token_ids)
    faults = [*_by_transformers(vlm, batch, ids), *_by_whole_passes(vlm, sample, ids)]
    right = EXPECTED in made.text.lower()
    text = f"{made.text!r} {'has' if right else 'has not'} {EXPECTED!r}"
    data = {"answer": made.text, "expected": EXPECTED, "right": right, "tokens": ids}
    return Told(FAILED if faults else PASSED, "; ".join([text, *faults]), data)


def _by_transformers(vlm: ModelAdapter, batch: Any, ids: list[int]) -> list[str]:
    """What differs from the model's own `generate`; empty if nothing, or it has none."""
    import torch

    generate = getattr(vlm.module, "generate", None)
    written = batch.inputs.get("decoder_input_ids", batch.inputs["input_ids"])
    if generate is None:
        return []
    given = {name: value for name, value in batch.inputs.items() if value is not None}
    with torch.inference_mode():
        found = generate(**given, max_new_tokens=TOKENS, do_sample=False, num_beams=1)
    theirs = found[0, written.shape[1] :].tolist()[: len(ids)]
    return [] if theirs == ids else [f"transformers' generate gives {theirs}, not {ids}"]


def _by_whole_passes(vlm: ModelAdapter, sample: Sample, ids: list[int]) -> list[str]:
    """Which token is not the most probable one after those before; ties by rounding are let be.

    After a special token nothing is compared: one that stands for an image cannot be in an answer.
    """
    if _changes_logits(vlm):
        return []
    special = set(getattr(getattr(vlm, "tokenizer", None), "added_tokens_decoder", ()))
    near = _NEAR.get(vlm.dtype, _COARSE)
    for step, token in enumerate(ids):
        if step and ids[step - 1] in special:
            break
        logits = vlm.forward(vlm.encode([sample], answers=[ids[:step]]), logits="last").logits
        assert logits is not None
        row = logits[0].float()
        if float(row.max() - row[token]) > near:
            best = int(row.argmax())
            return [f"token {step} is {token}, and {best} is the most probable one"]
    return []


def _changes_logits(vlm: ModelAdapter) -> bool:
    """Whether the checkpoint's settings of generation change logits, so that argmax differs."""
    config = getattr(vlm.module, "generation_config", None)
    neutral: dict[str, Any] = {
        "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0,
        "min_new_tokens": None, "bad_words_ids": None, "suppress_tokens": None,
        "begin_suppress_tokens": None, "forced_eos_token_id": None,
    }  # fmt: skip
    return any(getattr(config, name, None) not in (None, value) for name, value in neutral.items())


def _chosen(vlm: ModelAdapter) -> Told:
    import numpy as np

    from vlmlens.samples import Sample

    choices = tuple(f"a {color} square" for color in COLORS)
    scores = vlm.choice_scores([Sample("square", "a photo", (picture(),), choices=choices)])
    if scores is None or not np.isfinite(scores[0]).all():
        return Told(FAILED, f"the scores of the choices are {scores}")
    if abs(float(np.exp(scores[0]).sum()) - 1) > 1e-3:
        return Told(FAILED, f"the probabilities of the choices do not sum to 1: {scores[0]}")
    best = choices[int(np.argmax(scores[0]))]
    right = EXPECTED in best
    data = {"answer": best, "expected": EXPECTED, "right": right, "scores": list(scores[0])}
    return Told(PASSED, f"it chooses {best!r} of {len(choices)}", data)
