"""MiniCPM-V 4's linear attention works in chunks: where in its chunk a sample begins.

Chunks shifted by padding change only the rounding, by as much or as little as a processor's
kernels make of it. Here the linear attention is made to say where in its chunk each position
stands, so that a shift moves the numbers a thousand times as far on every processor.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers.models.qwen3_5 import modeling_qwen3_5

from vlmlens.hf.recurrent import chunk_size
from vlmlens.samples import Sample
from vlmlens.testing.adapter import distance
from vlmlens.testing.tiny import picture
from vlmlens.tokens import TokenKind
from vlmlens_adapter_minicpm.adapter import MiniCpmAdapter
from vlmlens_adapter_minicpm.checks import MiniCpm46Checks, MiniCpmFineChecks

ANSWERS = ("yes", "perhaps so", "n", "a quarter past", "no!")
BLOCKS = [f"llm.block.{i}" for i in range(4)]
ROUNDING = 1e-5
"""Of a block: each of the three layers of linear attention multiplies what other shapes of the same
matrices round differently, to 2e-6 behind the third."""
SHIFTED = 1e-2


class PaddedLeft(MiniCpmAdapter):
    """Fills rows up where most families do."""

    @property
    def padding_side(self) -> str:
        return "left"


def loaded(checks: Any, adapter: type[MiniCpmAdapter] = MiniCpmAdapter) -> Any:
    return type("Kit", (checks,), {"adapter": adapter})().load()


@pytest.fixture(scope="module", params=[MiniCpm46Checks, MiniCpmFineChecks])
def vlm(request: pytest.FixtureRequest) -> Any:
    return loaded(request.param)


@pytest.fixture(scope="module")
def left() -> Any:
    return loaded(MiniCpm46Checks, PaddedLeft)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """With images and without; of one chunk, of several, of a whole number of them."""
    return [
        Sample("a", "x" * 5, (picture(24, 32),)),
        Sample("b", "y" * 37, (picture(64, 48, seed=1),)),
        Sample("c", "z" * 101),
        Sample("d", "?"),
        Sample("e", "w" * 92),
    ]


@pytest.fixture
def places_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the linear attention add to each position where in its chunk it stands."""
    plain = modeling_qwen3_5.torch_chunk_gated_delta_rule
    chunk = inspect.signature(plain).parameters["chunk_size"].default

    @functools.wraps(plain)
    def shown(query: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        found, state = plain(query, *args, **kwargs)
        place = (torch.arange(query.shape[1]) % chunk) / chunk
        return found + place[:, None, None], state

    monkeypatch.setattr(modeling_qwen3_5, "torch_chunk_gated_delta_rule", shown)


def far_from_alone(vlm: Any, samples: Sequence[Sample]) -> float:
    together = vlm.trace(vlm.encode(samples), BLOCKS, logits="last")
    found = []
    for i, sample in enumerate(samples):
        alone = vlm.trace(vlm.encode([sample]), BLOCKS, logits="last")
        found.append(distance(alone.logits[0], together.logits[i]))
        for name in BLOCKS:
            own = together.select(f"{name}/all")[i]
            found.append(distance(alone.select(f"{name}/all")[0], own))
    return max(found)


def first_written(vlm: Any, samples: Sequence[Sample]) -> torch.Tensor:
    """Logits `[samples, tokens]` of the first token that is written."""
    found: list[torch.Tensor] = []
    handle = vlm.module.lm_head.register_forward_hook(lambda _, __, given: found.append(given))
    vlm.generate(vlm.encode(samples), max_new_tokens=2)
    handle.remove()
    return found[0][:, -1]


def written_from_alone(vlm: Any, samples: Sequence[Sample]) -> float:
    alone = torch.cat([first_written(vlm, [sample]) for sample in samples])
    return distance(alone, first_written(vlm, samples))


def answers_from_prompts(vlm: Any, samples: Sequence[Sample]) -> float:
    """How far what predicts an answer is from the end of the prompt without it."""
    plain = vlm.forward(vlm.encode(samples), logits="last").logits
    batch = vlm.encode(samples, answers=ANSWERS)
    logits = vlm.forward(batch, logits="all").logits.flatten(0, 1)
    layouts = [batch.layout(i) for i in range(len(samples))]
    before = [int(each.rows[each.positions(TokenKind.ANSWER)[0] - 1]) for each in layouts]
    return distance(plain, logits[before])


def test_the_chunk_is_that_of_transformers(vlm: Any) -> None:
    rule = inspect.signature(modeling_qwen3_5.torch_chunk_gated_delta_rule)
    assert chunk_size(vlm.module) == rule.parameters["chunk_size"].default


def test_lengths_differ_within_a_chunk(vlm: Any, samples: list[Sample]) -> None:
    batch = vlm.encode(samples)
    lengths = [len(batch.layout(i)) for i in range(len(samples))]
    chunk = chunk_size(vlm.module)
    assert len({length % chunk for length in lengths}) == len(samples)
    assert min(lengths) < chunk < max(lengths)


def test_a_batch_is_as_each_sample_alone(vlm: Any, samples: list[Sample]) -> None:
    """The first block, behind one layer of linear attention, to 1e-6."""
    assert far_from_alone(vlm, samples) < ROUNDING
    together = vlm.trace(vlm.encode(samples), BLOCKS[:1]).select(f"{BLOCKS[0]}/all")
    for own, sample in zip(together, samples, strict=True):
        alone = vlm.trace(vlm.encode([sample]), BLOCKS[:1]).select(f"{BLOCKS[0]}/all")
        assert distance(alone[0], own) < 1e-6


@pytest.mark.usefixtures("places_shown")
def test_samples_stand_in_their_chunk_as_alone(vlm: Any, samples: list[Sample]) -> None:
    assert far_from_alone(vlm, samples) < ROUNDING
    assert answers_from_prompts(vlm, samples) < ROUNDING
    assert written_from_alone(vlm, samples) < ROUNDING


@pytest.mark.usefixtures("places_shown")
def test_padding_before_the_samples_is_seen(left: Any, samples: list[Sample]) -> None:
    assert far_from_alone(left, samples) > SHIFTED
    assert answers_from_prompts(left, samples) > SHIFTED
    assert written_from_alone(left, samples) > SHIFTED


def test_no_row_of_padding_belongs_to_a_sample(vlm: Any, samples: list[Sample]) -> None:
    for answers in (None, ANSWERS):
        batch = vlm.encode(samples, answers=answers)
        mask = batch.inputs["attention_mask"].flatten().bool()
        rows = [row for i in range(len(samples)) for row in batch.layout(i).rows.tolist()]
        assert sorted(rows) == mask.nonzero()[:, 0].tolist()


def test_a_sample_alone_is_not_padded(vlm: Any, samples: list[Sample]) -> None:
    """So that what is read of it is, bit for bit, what transformers computes."""
    for sample in samples:
        assert vlm.encode([sample]).inputs["attention_mask"].all()
