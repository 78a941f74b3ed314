"""Attribution: estimates from gradients, held against what really happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from string import ascii_lowercase
from typing import Any

import numpy as np
import pytest
import torch

import vlmlens.registry  # noqa: F401  edits as text need it
from vlmlens.abc import AnalysisContext, WorkUnit
from vlmlens.errors import MissingAnnotation, SelectorError, SpecError
from vlmlens.passes.contributions import contributions
from vlmlens.samples import Sample
from vlmlens.testing.model import TinyLlava, request, tiny_model
from vlmlens.testing.tiny import picture
from vlmlens_adapter_blip2.checks import FlanT5Checks
from vlmlens_adapter_cogvlm.checks import CogVLMChecks
from vlmlens_adapter_qwen2vl.checks import Qwen3VLChecks
from vlmlens_plugins.analysis._attribution import Node, edge_scores, node_scores, nodes_of
from vlmlens_plugins.analysis._sweeps import Cell, Change, Item, SweepOptions, sweep
from vlmlens_plugins.analysis._sweeps.sweeping import answer_tokens
from vlmlens_plugins.analysis._sweeps.work import encoded
from vlmlens_plugins.analysis.attribution import Attribution, edge_report
from vlmlens_plugins.analysis.attribution.options import AttributionOptions
from vlmlens_plugins.analysis.attribution.patches import (
    PatchOptions,
    PatchWork,
    SourceOptions,
    SourceWork,
)
from vlmlens_plugins.hf.checks import Qwen35Checks

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


def unseen(item: Item) -> Item:
    """Texts that differ in a word, in place of pictures."""
    one, other = (Sample(f"{end}{item.group}", f"{item.target.prompt} {end}") for end in "xy")
    return replace(item, target=one, donor=other)


def pairs(vlm: TinyLlava, count: int = 6, *, images: bool = True) -> list[Sample]:
    """Pairs, each with two letters of which the model prefers one in the one sample only."""
    found = []
    several = [replace(item, answers=tuple(ascii_lowercase)) for item in items(1)]
    _, (prefix,), (letters,), _ = answer_tokens(vlm, several)
    tried = items(3 * count) if images else [unseen(item) for item in items(9 * count)]
    for i, item in enumerate(tried):
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
    assert "too few, or too much alike, for a rank correlation" in result.findings[1].text
    assert "ranking" not in result.findings[1].text
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
    assert not any("image" in text for text in said)
    assert "nodes and edges, which need pairs; patches: there is no image" in result.notes[0]
    total = sum(result.tables[0].columns["added"])  # type: ignore[arg-type]
    assert total == pytest.approx(float(result.findings[0].values["logits"]), abs=1e-4)  # type: ignore[arg-type]
    with pytest.raises(MissingAnnotation, match="no sample has an image"):
        Attribution(AttributionOptions(methods=["direct", "patches"])).check(asked, ())


def test_rows_of_images_are_no_default_of_text_pairs() -> None:
    vlm = tiny_model()
    said: list[str] = []
    told = replace(context(vlm), samples=pairs(vlm, images=False, count=1), warn=said.append)
    options = AttributionOptions(methods="nodes", check=1, min_difference=0, kinds="mlp")
    nodes = Attribution(options).run(told).table("nodes").columns
    assert list(dict.fromkeys(nodes["rows"])) == ["question", "last"]
    assert not any("image" in text for text in said)


def test_without_another_answer_it_is_the_logit_and_no_difference() -> None:
    vlm = tiny_model()
    said: list[str] = []
    alone = [Sample("s0", "What?", (picture(32, 32),), label="a", task="alone")]
    choosing = replace(alone[0], id="s1", choices=("a", "e"), task="mixed")
    asked = [*alone, choosing, replace(alone[0], id="s2", task="mixed")]
    asked.append(replace(alone[0], id="s3", label=None))
    told = AnalysisContext(asked, None, cache(lambda: vlm), warn=said.append)  # type: ignore[arg-type]
    result = Attribution(AttributionOptions(only_right=False, steps=1)).run(told)
    of_alone = [one.text for one in result.findings if one.text.startswith("alone:")]
    of_mixed = [one.text for one in result.findings if one.text.startswith("mixed:")]
    assert len(of_alone) == len(of_mixed) == 2
    assert all("logit of the right answer" in text for text in of_alone)
    assert not any("difference" in text for text in of_alone)
    assert all("logit difference" in text for text in of_mixed)
    assert any("1 of 3 samples are left out of direct contributions" in text for text in said)
    assert "1 of 4 samples are left out: without a label." in said


def test_nothing_is_asked_or_named_twice() -> None:
    vlm = tiny_model()
    twice = nodes_of(vlm, ["image", "last", "image"], ["heads", "heads"])
    assert twice == nodes_of(vlm, ["image", "last"], ["heads"])
    with pytest.raises(SpecError, match="asks for nothing"):
        Attribution(AttributionOptions(methods="patches", patches=0)).check(
            [items(1)[0].target], ()
        )


@pytest.mark.parametrize(
    ("suite", "why"),
    [
        (CogVLMChecks, "it is not known, or not the sum"),
        (FlanT5Checks, "not among those that the language model's self-attention reads"),
    ],
)
def test_what_heads_take_from_patches_is_left_out_where_it_is_not_known(
    suite: Any, why: str
) -> None:
    vlm = suite().load()
    said: list[str] = []
    asked = [Sample("s0", "What?", (picture(32, 32),), label="a", choices=("a", "e"))]
    told = AnalysisContext(asked, None, cache(lambda: vlm), warn=said.append)  # type: ignore[arg-type]
    result = Attribution(AttributionOptions(only_right=False, steps=1, draws=100)).run(told)
    assert [figure.name for figure in result.figures][1:] == ["patch-gradients"]
    assert any(why in text for text in said)


def test_what_one_pair_does_not_have_adds_nothing_in_it() -> None:
    """Image features enter later blocks of Qwen3-VL, and there are none without an image."""
    vlm = Qwen3VLChecks().load()
    words = {text: replace(items(1)[0], group=text) for text in ("picture", "text")}
    words["text"] = replace(
        words["text"], target=Sample("t", "What is this?"), donor=Sample("d", "What is that?")
    )
    told = replace(context(vlm), batch_size=1)
    own, prefixes, tokens, _ = answer_tokens(vlm, list(words.values()))
    scores = edge_scores(told, own, (prefixes, tokens), ("text", "special"), steps=1)
    later = next(name for name in scores.senders if name.endswith("(added before it)"))
    found = scores.values[scores.senders.index(later)]
    assert np.isnan(found).any()
    np.testing.assert_array_equal(np.isnan(found[..., 0]), np.isnan(found[..., 1]))
    assert np.nanmax(np.abs(found[..., 1])) == 0
    finding = edge_report.section(scores, own, AttributionOptions()).findings[0]
    assert ("do not believe them" in finding.text) is (float(finding.values["left"] or 0) > 0.1)
    assert (later in finding.text.rpartition("not on the way")[2]) is finding.notable


def test_pairs_that_do_not_fit_the_model_leave_nodes_and_edges_out() -> None:
    vlm = tiny_model()
    said: list[str] = []
    both = [replace(s, prompt=s.prompt + " again" * i) for i, s in enumerate(pairs(vlm, 1))]
    told = replace(context(vlm), samples=both, warn=said.append)
    found = Attribution(AttributionOptions(only_right=False, steps=1)).run(told)
    assert [table.name for table in found.tables] == ["direct", "patches"]
    assert any(text.startswith("Nodes and edges are left out. No pair is left") for text in said)
    with pytest.raises(MissingAnnotation, match="No pair is left"):
        Attribution(AttributionOptions(methods=["nodes", "direct"])).run(told)


def test_where_gated_heads_look_is_not_told() -> None:
    """Qwen3.5 multiplies what heads give; Llama in bfloat16 only rounds it."""
    gated = Qwen35Checks().load()
    own, prefixes, tokens, _ = answer_tokens(gated, items(1))
    nodes = [Node("llm.block.3.attn.heads[1]", "last")]
    scores = node_scores(context(gated), own, (prefixes, tokens), nodes, patterns=True)
    assert scores.looks is not None
    assert np.isnan(scores.looks).all()
    coarse = TinyLlava.load(replace(request(), dtype="bfloat16"))
    own, prefixes, tokens, _ = answer_tokens(coarse, items(1))
    nodes = nodes_of(coarse, ["last"], ["heads"])
    scores = node_scores(context(coarse), own, (prefixes, tokens), nodes, patterns=True)
    assert scores.looks is not None
    assert not np.isnan(scores.looks).any()
    work = SourceWork(SourceOptions(heads=[node.site for node in nodes]))
    (told,) = work.run(coarse, [unit_of_patches(coarse)])
    assert None not in told["heads"]
    names = contributions(coarse, coarse.encode([own[0].target]), [[1]]).names
    assert any(name.endswith(", rounding)") for name in names)
    assert not any(name.endswith(("(bias)", "(the rest)")) for name in names)


def test_edges_of_cross_attention() -> None:
    """They do not begin at the inputs; and answers that begin alike stand behind the first row."""
    vlm = FlanT5Checks().load()
    alike = replace(items(1)[0], answers=("a a", "a e"))
    own, prefixes, tokens, _ = answer_tokens(vlm, [alike, items(2)[1]])
    assert [bool(prefix) for prefix in prefixes] == [True, False]
    rows = ("image", "text", "special", "answer")
    scores = edge_scores(context(vlm), own, (prefixes, tokens), rows, steps=1)
    into = np.nansum(scores.values[:, scores.receivers.index("llm.norm")], axis=0)
    assert [np.flatnonzero(each).tolist() for each in into.T] == [[1], [2]]
    finding = edge_report.section(scores, own, AttributionOptions()).findings[0]
    assert finding.values["left"] == pytest.approx(1, abs=1e-3)
    assert "do not believe them" in finding.text
    assert "not on the way (as llm.block.0 (the rest)" in finding.text


def test_a_batch_in_which_only_some_answers_begin_alike() -> None:
    """The other samples have the rows that they have alone."""
    vlm = tiny_model()
    samples = [item.target for item in items(2)]
    mixed = encoded(vlm, samples, [[5, 6], []])
    alone = [encoded(vlm, samples[:1], [[5, 6]]), encoded(vlm, samples[1:], [[]])]
    for i, batch in enumerate(alone):
        assert mixed.layout(i).kinds.tolist() == batch.layout(0).kinds.tolist()
    found = vlm.forward(mixed, logits="last").logits
    assert found is not None
    for i, batch in enumerate(alone):
        single = vlm.forward(batch, logits="last").logits
        assert single is not None
        torch.testing.assert_close(found[i], single[0], atol=1e-4, rtol=1e-4)
