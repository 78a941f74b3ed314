"""The hand-built induction model does what it says, measured with transformers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._induction import Induction, induction_model, write_induction_model

LENGTH = 20
FORMS: list[dict[str, Any]] = [
    {},
    {"heads": 3, "blocks": 3, "previous": (0, 2), "induction": (2, 0), "vocabulary": 50},
]


def repeated(plan: Induction, *, bos: bool = True) -> torch.Tensor:
    """Random tokens, each sequence twice in a row, int64 `[sequences, positions]`."""
    generator = torch.Generator().manual_seed(3)
    draws = [torch.randperm(plan.vocabulary - 1, generator=generator) + 1 for _ in range(6)]
    once = torch.stack([draw[:LENGTH] for draw in draws])
    front = torch.zeros(len(once), int(bos), dtype=torch.long)
    return torch.cat([front, once, once], 1)


def run(folder: Path, ids: torch.Tensor) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    with torch.inference_mode():
        return model(
            ids, attention_mask=torch.ones_like(ids), output_attentions=True,
            output_hidden_states=True,
        )  # fmt: skip


def scores(attentions: Any, back: int, first: int) -> torch.Tensor:
    """Mean attention to the place so many before, from `first` on: `[blocks, heads]`."""
    means = [each.diagonal(-back, 2, 3)[..., first - back :].mean((0, 2)) for each in attentions]
    return torch.stack(means)


@pytest.mark.parametrize("form", FORMS)
def test_only_the_planted_heads_score(tmp_path: Path, form: dict[str, Any]) -> None:
    plan = Induction(**form)
    output = run(write_induction_model(tmp_path, **form), repeated(plan))
    for back, first, planted in (
        (1, 1, plan.previous),
        (LENGTH - 1, LENGTH + 1, plan.induction),
    ):
        found = scores(output.attentions, back, first)
        assert found.shape == (plan.blocks, plan.heads)
        assert found[planted] >= 0.999
        found[planted] = 0
        assert found.max() < 0.05


@pytest.mark.parametrize("form", FORMS)
def test_the_second_half_is_predicted(tmp_path: Path, form: dict[str, Any]) -> None:
    plan = Induction(**form)
    ids = repeated(plan)
    logits = run(write_induction_model(tmp_path, **form), ids).logits
    said = logits.softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    assert said[:, LENGTH + 1 :].min() >= 0.999
    assert said[:, : LENGTH + 1].max() < 0.001  # nothing to copy yet


def test_rows_are_ones_and_zeros(tmp_path: Path) -> None:
    plan = Induction()
    ids = repeated(plan)
    *states, _ = run(write_induction_model(tmp_path), ids).hidden_states
    shifted = torch.cat([ids[:, :1], ids[:, :-1]], 1)
    for number, state in enumerate(states):
        assert torch.equal(
            state.sum(-1).round(decimals=4), torch.full_like(state[..., 0], 2.0 + number)
        )
        assert torch.equal(state[..., plan.token].argmax(-1), ids)
    assert torch.equal(states[1][..., plan.before].argmax(-1), shifted)


def test_soft_attention_scores_less(tmp_path: Path) -> None:
    plan = Induction(sharpness=5)
    output = run(write_induction_model(tmp_path, sharpness=5.0), repeated(plan))
    found = scores(output.attentions, LENGTH - 1, LENGTH + 1)[plan.induction]
    assert 0.3 < found < 0.95


def test_without_a_first_token_the_first_word_has_two_places(tmp_path: Path) -> None:
    plan = Induction()
    output = run(write_induction_model(tmp_path), repeated(plan, bos=False))
    weights = output.attentions[1][:, 1, LENGTH]
    assert torch.allclose(weights[:, :2], torch.tensor(0.5), atol=1e-3)


def test_heads_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="expected two in this order"):
        Induction(previous=(1, 0), induction=(0, 1))
    with pytest.raises(ValueError, match="each block has 4"):
        Induction(previous=(0, 4))


def test_the_adapter_loads_it_once_and_it_continues_what_it_read() -> None:
    model = induction_model()
    assert induction_model() is model
    batch = model.encode([Sample("a", "w3 w7 w1 w9 w3 w7"), Sample("b", "w5 w2 w5")])
    assert [one.text for one in model.generate(batch, max_new_tokens=2)] == ["w1 w9", "w2 w5"]
    assert model.answer_ids("w9") == [9]
    heads = model.trace(batch, ["llm.block.1.attn.heads[1]"])
    (rows, _) = heads.select("llm.block.1.attn.heads[1]/last")
    assert rows[: Induction().vocabulary].argmax() == 1
