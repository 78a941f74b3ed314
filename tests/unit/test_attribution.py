"""Attribution: estimates from gradients, held against what really happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from string import ascii_lowercase

import numpy as np
import pytest
import torch

import vlmlens.registry  # noqa: F401  edits as text need it
from vlmlens.abc import AnalysisContext, WorkUnit
from vlmlens.errors import MissingAnnotation, SelectorError
from vlmlens.passes.contributions import contributions
from vlmlens.samples import Sample
from vlmlens.testing.model import TinyLlava, request, tiny_model
from vlmlens.testing.tiny import picture
from vlmlens_plugins.analysis._attribution import Node, edge_scores, node_scores, nodes_of
from vlmlens_plugins.analysis._sweeps import Cell, Change, Item, SweepOptions, sweep
from vlmlens_plugins.analysis._sweeps.sweeping import answer_tokens
from vlmlens_plugins.analysis._sweeps.work import encoded
from vlmlens_plugins.analysis.attribution import Attribution
from vlmlens_plugins.analysis.attribution.options import AttributionOptions
from vlmlens_plugins.analysis.attribution.patches import (
    PatchOptions,
    PatchWork,
    SourceOptions,
    SourceWork,
)

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
ANSWERS = ("a", "e")
ROWS = ("image", "text", "special")


def items(count: int = 2) -> list[Item]:
    return [
        Item(
            Sample(f"s{i}", f"What is {'this ' * i}?", (picture(32, 32, seed=i),)),
            ANSWERS,
            donor=Sample(f"d{i}", f"What is {'this ' * i}?", (picture(32, 32, seed=i + 50),)),
            group=str(i),
            task="planted",
        )
        for i in range(count)
    ]


def context(vlm: TinyLlava) -> AnalysisContext:
    return AnalysisContext([], None, cache(lambda: vlm))  # type: ignore[arg-type]


def estimates(vlm: TinyLlava, own: Sequence[Item], nodes: Sequence[Node]) -> Floats:
    kept, prefixes, tokens, _ = answer_tokens(vlm, own)
    return node_scores(context(vlm), kept, (prefixes, tokens), nodes).values


def measured(vlm: TinyLlava, own: Sequence[Item], nodes: Sequence[Node]) -> Floats:
    cells = [Cell((Change(f"{node} = patch"),)) for node in nodes]
    swept = sweep(context(vlm), own, cells, SweepOptions())
    return swept.difference() - swept.difference("base")


class _Linear(torch.nn.Module):
    """In place of a norm or a MLP: a fixed scale."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scaled."""
        return self.scale * hidden


@contextmanager
def linear() -> Iterator[TinyLlava]:
    """A real Llama whose norms and MLPs are scalings, and whose heads all look everywhere alike."""
    vlm = TinyLlava.load(request())
    layers = vlm.module.model.language_model
    layers.norm = _Linear(0.1)
    for block in layers.layers:
        block.input_layernorm, block.post_attention_layernorm = _Linear(0.5), _Linear(0.5)
        block.mlp = _Linear(0.3)
        block.self_attn.q_proj.weight.data.zero_()
    yield vlm


def test_estimates_are_exact_where_the_model_is_linear() -> None:
    with linear() as vlm:
        nodes = [Node("llm.block.0.attn.heads[1]", "image"), Node("llm.block.0", "image")]
        nodes += [Node("llm.block.0.mlp", "image"), Node("llm.block.1.attn.heads[0]", "last")]
        found, real = estimates(vlm, items(), nodes), measured(vlm, items(), nodes)
    assert np.abs(real).max() > 1e-3
    np.testing.assert_allclose(found, real, rtol=1e-3, atol=1e-5)


def test_edges_are_exact_where_the_model_is_linear() -> None:
    with linear() as vlm:
        own, prefixes, tokens, _ = answer_tokens(vlm, items())
        scores = edge_scores(context(vlm), own, (prefixes, tokens), ROWS, steps=1)
        whole = scores.source - scores.run
    into = np.nansum(scores.values[:, scores.receivers.index("llm.norm")], axis=(0, 1))
    assert np.abs(whole).min() > 1e-3
    np.testing.assert_allclose(into, whole, rtol=1e-3)
    np.testing.assert_allclose(scores.left, 0, atol=1e-4)


def test_estimates_equal_the_gradient_computed_by_hand() -> None:
    vlm = tiny_model()
    own = items(1)
    (found,) = estimates(vlm, own, [Node("llm.block.0.attn.heads[1]", "image")])[0]
    _, (prefix,), ((right, wrong),), _ = answer_tokens(vlm, own)
    both = [one for one in (own[0].target, own[0].donor) if one is not None]
    batches = [vlm.encode([one], answers=[prefix]) for one in both]
    projection = vlm.module.model.language_model.layers[0].self_attn.o_proj
    kept: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        del module
        kept.append(args[0].detach().clone().requires_grad_())
        return (kept[-1],)

    handle = projection.register_forward_pre_hook(keep)
    with torch.enable_grad():
        logits = [vlm.module(**batch.inputs).logits[0, -1] for batch in batches]
        (logits[0][right] - logits[0][wrong]).backward()
    handle.remove()
    target, donor = kept
    assert target.grad is not None
    heads = vlm.sites.heads(vlm.sites.resolve("llm.block.0.attn")[0])
    assert heads is not None
    low, high = heads.columns(1)
    product = ((donor - target).detach() * target.grad)[0, image_rows(vlm, own[0].target)]
    assert found == pytest.approx(float(product[:, low:high].sum()), abs=1e-5)
    assert abs(found - float(product[:, :low].sum())) > 1e-5


def image_rows(vlm: TinyLlava, sample: Sample) -> list[int]:
    ids = vlm.encode([sample]).inputs["input_ids"][0]
    return torch.nonzero(ids == vlm.config.image_token_id).flatten().tolist()


def test_a_batch_gives_what_single_samples_give() -> None:
    vlm = tiny_model()
    nodes = nodes_of(vlm, ["image", "last"])
    together = estimates(vlm, items(), nodes)
    alone = np.concatenate([estimates(vlm, [one], nodes) for one in items()], axis=1)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_with_each_block_stopped_estimates_of_the_last_block_are_as_before() -> None:
    vlm = tiny_model()
    own, prefixes, tokens, _ = answer_tokens(vlm, items())
    nodes = [Node("llm.block.0.mlp_out", "last"), Node("llm.block.1.mlp_out", "last")]
    scores = node_scores(context(vlm), own, (prefixes, tokens), nodes, grad_drop=True)
    assert scores.dropped is not None
    np.testing.assert_allclose(scores.dropped[1], np.abs(scores.values[1]), rtol=1e-4)
    assert not np.allclose(scores.dropped[0], np.abs(scores.values[0]), rtol=1e-3)


def test_where_heads_look_is_all_of_it_where_their_values_stay() -> None:
    vlm = TinyLlava.load(request())
    attention = vlm.module.model.language_model.layers[1].self_attn
    attention.v_proj.weight.data.zero_()
    attention.v_proj.bias = torch.nn.Parameter(torch.ones(attention.v_proj.out_features))
    own, prefixes, tokens, _ = answer_tokens(vlm, items())
    nodes = [Node("llm.block.1.attn.heads[0]", "last"), Node("llm.block.0.attn.heads[0]", "last")]
    scores = node_scores(context(vlm), own, (prefixes, tokens), nodes, patterns=True)
    assert scores.looks is not None
    np.testing.assert_allclose(scores.looks[0], 0, atol=1e-6)  # equal values: nothing is moved
    assert np.abs(scores.looks[1]).min() > 1e-7
    assert not np.allclose(scores.looks[1], scores.values[1], rtol=1e-2)


def test_patches_sum_to_what_the_image_does() -> None:
    vlm = tiny_model()
    unit = unit_of_patches(vlm)
    (found,) = PatchWork(PatchOptions(steps=20)).run(vlm, [unit])
    whole = found["image"] - found["mean"]
    assert abs(whole) > 1e-4
    assert sum(found["patches"]) == pytest.approx(whole, rel=1e-3)
    (rough,) = PatchWork(PatchOptions(steps=1)).run(vlm, [unit])
    assert abs(sum(rough["patches"]) - whole) > abs(sum(found["patches"]) - whole)


def test_what_heads_take_from_rows_sums_to_what_they_add() -> None:
    vlm = tiny_model()
    unit = unit_of_patches(vlm)
    head = "llm.block.1.attn.heads[1]"
    (found,) = SourceWork(SourceOptions(heads=[head])).run(vlm, [unit])
    batch = encoded(vlm, [unit.sample], [unit.arguments["prefix"]])
    parts = contributions(vlm, batch, [unit.arguments["tokens"]])
    added = parts.added[list(parts.names).index(head), 0]
    assert sum(found["heads"][0]) == pytest.approx(float(added[0] - added[1]), abs=1e-5)
    assert abs(float(added[0] - added[1])) > 1e-4
    assert len(found["image"]) == len(image_rows(vlm, unit.sample))


def unit_of_patches(vlm: TinyLlava):  # type: ignore[no-untyped-def]

    _, (prefix,), (tokens,), _ = answer_tokens(vlm, items(1))
    return WorkUnit(items(1)[0].target, {"prefix": prefix, "tokens": tokens})


def pairs(vlm: TinyLlava, count: int = 6) -> list[Sample]:
    """Pairs, each with two letters of which the model prefers one in the one sample only."""
    found = []
    several = [replace(item, answers=tuple(ascii_lowercase)) for item in items(1)]
    _, (prefix,), (letters,), _ = answer_tokens(vlm, several)
    for i, item in enumerate(items(3 * count)):
        assert item.donor is not None
        batch = vlm.encode([item.donor, item.target], answers=[prefix, prefix])
        logits = vlm.forward(batch, logits="last").logits
        assert logits is not None
        of_letter = logits[:, letters]
        moved = of_letter[0] - of_letter[1]
        answers = ascii_lowercase[int(moved.argmax())], ascii_lowercase[int(moved.argmin())]
        places = [ascii_lowercase.index(letter) for letter in answers]
        clean, corrupted = (of_letter[:, places[0]] - of_letter[:, places[1]]).tolist()
        if not clean > 0 > corrupted:
            continue
        for sample, role, label in zip(
            (item.donor, item.target), ("clean", "corrupted"), answers, strict=True
        ):
            about = {"pair": f"p{i}", "role": role}
            found.append(replace(sample, label=label, attributes=about, group=f"p{i}"))
    assert len(found) >= 2 * count
    return found[: 2 * count]


class _Saturated(torch.nn.Module):
    """In place of the final norm: almost a step."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """-1 or 1."""
        return torch.tanh(1000 * hidden)


@pytest.mark.parametrize("saturated", [True, False])
def test_estimates_of_a_saturated_model_are_said_not_to_be_believed(*, saturated: bool) -> None:
    with linear() as vlm:
        if saturated:
            vlm.module.model.language_model.norm = _Saturated()
        said: list[str] = []
        told = replace(context(vlm), samples=pairs(vlm), warn=said.append)
        options = AttributionOptions(
            methods=["nodes"], kinds="block", rows="image", check=1, min_difference=0
        )
        result = Attribution(options).run(told)
    believed = "not believe" not in result.findings[1].text
    assert believed is not saturated, result.findings[1].text


def test_what_is_missing_is_said_before_the_model_is_loaded() -> None:
    analysis = Attribution(AttributionOptions())
    with pytest.raises(MissingAnnotation, match="no sample has a label"):
        analysis.check([Sample("a", "What?")], ())
    asked = Attribution(AttributionOptions(methods="nodes"))
    with pytest.raises(MissingAnnotation, match="No sample belongs to a pair"):
        asked.check([Sample("a", "What?", label="b")], ())
    with pytest.raises(SelectorError):
        Attribution(AttributionOptions(rows="imge")).check([Sample("a", "What?", label="b")], ())


def test_text_only_samples_have_no_patches() -> None:
    vlm = tiny_model()
    said: list[str] = []
    asked = [Sample(f"t{i}", f"Which {i}?", label="a", choices=("a", "e")) for i in range(2)]
    told = AnalysisContext(asked, None, cache(lambda: vlm), warn=said.append)  # type: ignore[arg-type]
    result = Attribution(AttributionOptions(only_right=False)).run(told)
    assert [table.name for table in result.tables] == ["direct"]
    assert any("no sample that is followed has an image" in text for text in said)
    total = sum(result.tables[0].columns["added"])  # type: ignore[arg-type]
    assert total == pytest.approx(float(result.findings[0].values["logits"]), abs=1e-4)  # type: ignore[arg-type]
