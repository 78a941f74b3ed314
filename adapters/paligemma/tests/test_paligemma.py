"""PaliGemma: the conformance kit, its prefix, its caps, and the paths that its users know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from vlmlens.abc import Batch, ModelAdapter
from vlmlens.errors import DataError
from vlmlens.hf import TransformersAdapter
from vlmlens.samples import Sample
from vlmlens.testing.adapter import distance, replaced
from vlmlens.testing.tiny import picture
from vlmlens.tokens import TokenKind
from vlmlens_adapter_paligemma.adapter import PaliGemmaAdapter
from vlmlens_adapter_paligemma.checks import PaliGemma2Checks, PaliGemmaChecks

BOTH = pytest.mark.parametrize("kit", [PaliGemmaChecks, PaliGemma2Checks])


class TestPaliGemma(PaliGemmaChecks):
    pass


class TestPaliGemma2(PaliGemma2Checks):
    pass


def last_logits(vlm: ModelAdapter, batch: Batch) -> torch.Tensor:
    logits = vlm.forward(batch, logits="last").logits
    assert logits is not None
    return logits


class AnswersInThePrefix(PaliGemmaAdapter):
    """Forgets that an answer is suffix: the prompt sees it."""

    with_answers = TransformersAdapter.with_answers


class WithoutCap(PaliGemmaAdapter):
    """Forgets Gemma 2's soft cap."""

    scale_logits = TransformersAdapter.scale_logits


class DropsTheTypes(PaliGemmaAdapter):
    """Drops `token_type_ids`, which transformers takes without a word."""

    def process(self, prompts: Sequence[str], images: Sequence[Sequence[Any]]) -> dict[str, Any]:
        inputs = super().process(prompts, images)
        del inputs["token_type_ids"]
        return inputs

    with_answers = TransformersAdapter.with_answers


@pytest.mark.parametrize(
    ("kit", "mistake", "check"),
    [
        (PaliGemmaChecks, AnswersInThePrefix, "answers"),
        (PaliGemma2Checks, AnswersInThePrefix, "answers"),
        (PaliGemma2Checks, WithoutCap, "lens_identity"),
    ],
)
def test_a_deliberate_mistake_is_caught(
    kit: type[PaliGemmaChecks], mistake: type[ModelAdapter], check: str
) -> None:
    wrong = type(f"Kit{mistake.__name__}", (kit,), {"adapter": mistake})
    result = wrong().run_check(check)
    assert result.outcome == "failed", result


@pytest.mark.parametrize(
    ("kit", "attention"),
    [(PaliGemmaChecks, "eager"), (PaliGemma2Checks, None), (PaliGemma2Checks, "eager")],
)
def test_dropping_the_types_moves_the_numbers(
    kit: type[PaliGemmaChecks], attention: str | None
) -> None:
    tests = kit()
    right = tests.load(attention=attention)
    batch = right.encode(tests.samples)
    assert "token_type_ids" in batch.inputs
    wrong = type("Dropping", (kit,), {"adapter": DropsTheTypes})().load(attention=attention)
    expected = last_logits(right, batch)
    assert distance(expected, last_logits(wrong, wrong.encode(tests.samples))) > 1e-2
    assert distance(expected, last_logits(right, right.encode(tests.samples))) == 0


@BOTH
def test_the_prefix_sees_itself_and_not_the_answer(kit: type[PaliGemmaChecks]) -> None:
    tests = kit()
    sample = tests.samples[0]
    one, other = (tests.vlm.encode([sample], answers=[a]) for a in ("abc", "abz"))
    kinds = one.layout(0).kinds
    expected = (kinds == TokenKind.ANSWER).astype(int).tolist()
    assert one.inputs["token_type_ids"][0].tolist() == expected
    first, second = (tests.vlm.forward(b, logits="all").logits for b in (one, other))
    assert first is not None
    assert second is not None
    assert distance(first[:, :-1], second[:, :-1]) == 0
    assert distance(first[:, -1], second[:, -1]) > 1e-3
    reworded = tests.vlm.encode([Sample("w", sample.prompt[:-1] + "!", sample.images)])
    plain = tests.vlm.encode([sample])
    block = "llm.block.0"
    begin, changed = (tests.vlm.trace(b, [block])[block][:, 0] for b in (plain, reworded))
    assert distance(begin, changed) > 1e-4


@BOTH
def test_scoring_an_answer_agrees_with_writing_it(kit: type[PaliGemmaChecks]) -> None:
    class Given(PaliGemmaAdapter):
        def answer_ids(self, answer: str) -> list[int]:
            return [int(number) for number in answer.split()]

    tests = type("Given", (kit,), {"adapter": Given})()
    vlm: Any = tests.vlm
    plain = vlm.encode(tests.samples)
    with torch.inference_mode():
        ids = vlm.module.generate(
            **plain.inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0
        )
    written = ids[:, plain.inputs["input_ids"].shape[1] :].tolist()
    batch = vlm.encode(tests.samples, answers=[" ".join(map(str, row)) for row in written])
    logits = vlm.forward(batch, logits="all").logits
    logits = logits.clone()
    logits[..., vlm.tokenizer.eos_token_id] = -torch.inf
    assert logits[:, -4:-1].argmax(-1).tolist() == written


@BOTH
def test_labels_are_dropped(kit: type[PaliGemmaChecks]) -> None:
    vlm: Any = kit().vlm
    image = picture(64, 48)
    made = vlm.processor(text="<image>x", images=image)
    assert "labels" in made, "the processor makes none any more: `process` need not drop them"
    assert "labels" not in vlm.encode([Sample("a", "x", (image,))]).inputs


@BOTH
def test_an_image_is_needed(kit: type[PaliGemmaChecks]) -> None:
    tests = kit()
    none = Sample("none", "Hello?")
    for samples in ([none], [tests.samples[0], none]):
        with pytest.raises(DataError, match="needs an image"):
            tests.vlm.encode(samples)


def test_gemma_2_is_told_to_be_eager() -> None:
    assert PaliGemmaChecks().vlm.describe()["attention"] == "sdpa"
    assert PaliGemma2Checks().vlm.describe()["attention"] == "eager"


@BOTH
def test_padding_has_no_type_of_its_own(kit: type[PaliGemmaChecks]) -> None:
    tests = kit()
    batch = tests.vlm.encode(tests.samples)
    padding = batch.inputs["attention_mask"] == 0
    assert bool(padding.any())
    types = batch.inputs["token_type_ids"].masked_fill(padding, 1)
    other = last_logits(tests.vlm, replaced(batch, token_type_ids=types))
    assert distance(last_logits(tests.vlm, batch), other) <= tests.tolerance


@pytest.mark.parametrize(
    ("legacy", "now"),
    [
        ("language_model.lm_head", "lm_head"),
        ("multi_modal_projector", "model.multi_modal_projector"),
        ("multi_modal_projector.linear", "model.multi_modal_projector.linear"),
        ("language_model.model.layers.1.mlp.act_fn", "model.language_model.layers.1.mlp.act_fn"),
        ("vision_tower.vision_model.post_layernorm", "model.vision_tower.post_layernorm"),
        ("model.vision_tower.vision_model.encoder.layers.2.mlp.fc1",
         "model.vision_tower.encoder.layers.2.mlp.fc1"),
    ],
)  # fmt: skip
@BOTH
def test_legacy_paths(kit: type[PaliGemmaChecks], legacy: str, now: str) -> None:
    assert [site.path for site in kit().vlm.sites.resolve(legacy)] == [now]
