"""The analysis of weights: numbers beside dense matrices, and the hand-built induction model."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc import AnalysisContext
from vlmlens.errors import SiteNotFound, SiteSilent, SpecError
from vlmlens.results import Result, Table, Verdict
from vlmlens.samples import Sample
from vlmlens.testing.model import tiny_model
from vlmlens.testing.tiny import picture
from vlmlens_plugins.analysis._induction import induction_model
from vlmlens_plugins.analysis.weights import Weights
from vlmlens_plugins.analysis.weights.calling import Call, Unreadable, calls
from vlmlens_plugins.analysis.weights.factors import Factors, chance, compose, eigenvalue_score
from vlmlens_plugins.analysis.weights.matrices import HeadMatrices, read_matrices
from vlmlens_plugins.analysis.weights.projector import last_linear, read_directions
from vlmlens_plugins.analysis.weights.vocabulary import Words
from vlmlens_plugins.analysis.weights.work import HeadOptions, HeadWork

Floats = Any
WIDTH, HEADS, SIZE = 24, 3, 4


def analysed(vlm: Any, samples: Sequence[Sample], **options: Any) -> tuple[Result, list[str]]:
    heard: list[str] = []
    analysis = Weights(Weights.Options(**options))
    analysis.check_model(vlm, samples, [])
    context = AnalysisContext(samples, None, lambda: vlm, warn=heard.append)  # type: ignore[arg-type]
    return analysis.run(context), heard


def rows(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows()]


def matrices(seed: int, shared: int = 1, heads: int = HEADS) -> HeadMatrices:
    random = torch.Generator().manual_seed(seed)
    query, key, value, output = torch.randn(4, heads, SIZE, WIDTH, generator=random)
    if shared > 1:
        key, value = (each[:1].repeat(heads, 1, 1) for each in (key, value))
    return HeadMatrices(query, key, value, output, heads // shared)


def dense(left: torch.Tensor, right: torch.Tensor) -> Floats:
    """`[heads, width, width]`: whole matrices."""
    return torch.einsum("hsv,hsw->hvw", left, right).double().numpy()


def ratio(a: Floats, b: Floats) -> float:
    return float(np.linalg.norm(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)))


# ---------------------------------------------------------------- beside dense matrices


@pytest.mark.parametrize("shared", [1, HEADS])
def test_composition_is_that_of_whole_matrices(shared: int) -> None:
    reader, writer = matrices(1, shared), matrices(2)
    found = compose(Factors(reader), Factors(writer).writer())
    assert reader.query is not None
    assert reader.key is not None
    wrote = dense(writer.output, writer.value)
    scored = dense(reader.query, reader.key)
    reads = {"K": scored, "Q": scored.transpose(0, 2, 1), "V": dense(reader.output, reader.value)}
    for kind, whole in reads.items():
        expected = [[ratio(whole[h], wrote[g]) for g in range(HEADS)] for h in range(HEADS)]
        np.testing.assert_allclose(found[kind].score, expected, rtol=1e-5)
    assert not np.allclose(found["K"].score, found["Q"].score, rtol=1e-2)
    assert not np.allclose(found["K"].score, found["K"].score.flip(0), rtol=1e-2) or shared > 1


@pytest.mark.parametrize("decay", [1.0, 0.4])
def test_p_is_the_share_of_random_rotations_that_reach_a_score(decay: float) -> None:
    """Rotations of whole matrices, with even and with uneven spectra."""
    spectrum = torch.tensor([decay**k for k in range(SIZE)], dtype=torch.float64)
    random = np.random.default_rng(0)
    turns = np.linalg.qr(random.normal(size=(20_000, WIDTH, SIZE)))[0][:, :SIZE]
    shares = (spectrum.square() / spectrum.square().sum()).numpy()
    drawn = np.sqrt(np.einsum("nij,i,j->n", turns**2, shares, shares))
    for level in (0.5, 0.1, 0.01, 0.001):
        score = torch.tensor([[np.quantile(drawn, 1 - level)]])
        p = float(chance(score, spectrum[None], spectrum[None], WIDTH))
        assert level / 1.5 < p < 3 * level


def test_seldom_is_any_pair_of_random_heads_significant() -> None:
    """60 heads each: 10,800 pairs, whose smallest p is corrected for all of them."""
    smallest = []
    for seed in range(20):
        found = compose(
            Factors(matrices(100 + seed, heads=60)), Factors(matrices(seed, heads=60)).writer()
        )
        p = torch.stack([one.p for one in found.values()])
        smallest.append(float(p.min()) * p.numel())
        assert 0.45 < float(p.mean()) < 0.55
    assert sum(each <= 0.05 for each in smallest) <= 3
    assert np.median(smallest) < 10


def test_spectra_are_those_of_whole_matrices() -> None:
    own = matrices(3)
    factors = Factors(own)
    assert own.query is not None
    assert own.key is not None
    assert factors.qk is not None
    for values, whole in (
        (factors.ov, dense(own.output, own.value)), (factors.qk, dense(own.query, own.key)),
    ):  # fmt: skip
        expected = np.linalg.svd(whole)[1][:, :SIZE]
        np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_eigenvalue_scores_of_degenerate_matrices() -> None:
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0]
    shift = torch.eye(6).roll(1, 0)
    shift[0] = 0
    assert eigenvalue_score(torch.eye(6), 1.0) == pytest.approx(1)
    assert eigenvalue_score(-torch.eye(6), 1.0) == pytest.approx(-1)
    assert eigenvalue_score(turn @ shift @ turn.T, 1.0) == pytest.approx(0, abs=0.5)
    assert eigenvalue_score(torch.zeros(6, 6), 1.0) is None
    assert eigenvalue_score(1e-9 * torch.eye(6), 1.0) is None


def test_copying_scores_are_those_of_the_matrix_over_the_vocabulary() -> None:
    vlm = tiny_model()
    words = Words.of(vlm, fold=True)
    assert words is not None
    (site,) = vlm.sites.resolve("llm.block.0.attn")
    given = calls(vlm, vlm.encode([Sample("a", "x")]), [site])[site.name]
    own = read_matrices(vlm, site, given)
    tokens = list(range(words.size))
    found = words.copying(own.value, own.output, tokens, 0)
    model = vlm.module.model.language_model
    unembedding = (vlm.module.lm_head.weight * model.norm.weight).detach().double()
    unembedding = unembedding - unembedding.mean(0)
    embedding = model.embed_tokens.weight.detach().double()
    for head, whole in enumerate(torch.einsum("hsv,hsw->hvw", own.output, own.value).double()):
        values = np.linalg.eigvals((unembedding @ whole @ embedding.T).numpy())
        expected = values.sum().real / np.abs(values).sum()
        assert found[head]["copying"] == pytest.approx(expected, abs=1e-4)


def test_written_words_are_those_of_the_whole_product() -> None:
    vlm = tiny_model()
    sample = Sample("a", "x", (picture(32, 32, seed=1),))
    result, _ = analysed(vlm, [sample], words=["a"], sites="llm.block.1.attn")
    model = vlm.module.model.language_model
    own = model.layers[1].self_attn
    token = vlm.answer_ids("a")[0]
    read = model.embed_tokens.weight[token] * model.layers[1].input_layernorm.weight
    for row in rows(result.table("weights-words")):
        group = row["head"] // 2
        value = own.v_proj.weight[group * 8 : group * 8 + 8] @ read
        written = own.o_proj.weight[:, row["head"] * 8 : row["head"] * 8 + 8] @ value
        logits = vlm.module.lm_head(written * model.norm.weight)
        assert row["rank"] == 1 + int((logits > logits[token]).sum())
        expected = (logits[token] - logits.mean()) / logits.std()
        assert row["own"] == pytest.approx(float(expected), abs=1e-3)


def test_directions_of_the_projector_are_those_of_its_last_layer() -> None:
    vlm = tiny_model()
    words = Words.of(vlm, fold=True)
    assert words is not None
    path = last_linear(vlm, vlm.sites.canonical["projector"].path, 32)
    assert path.endswith("linear_2")
    found = read_directions(vlm, path, 32, words)
    weight = vlm.module.get_submodule(path).weight.detach()
    left, values, _ = torch.linalg.svd(weight)
    assert [one["value"] for one in found] == pytest.approx(values[:8].tolist(), rel=1e-4)
    logits = vlm.module.lm_head(left[:, 0] * vlm.module.model.language_model.norm.weight)
    ends = {int(logits.argmax()), int(logits.argmin())}
    assert ends == {found[0]["raises"][0], found[0]["lowers"][0]}


# ---------------------------------------------------------------- the planted truth


@pytest.mark.parametrize(
    "form",
    [{}, {"heads": 3, "blocks": 3, "previous": (0, 2), "induction": (2, 0), "vocabulary": 50}],
)
def test_the_induction_circuit_is_found(form: dict[str, Any]) -> None:
    vlm = induction_model(**form)
    previous, induction = form.get("previous", (0, 0)), form.get("induction", (1, 1))
    result, heard = analysed(vlm, [Sample("a", "w1 w2 w3 w1", label="w2")])
    assert not heard
    best = max(rows(result.table("weights-compositions")), key=lambda row: row["score"])
    assert (best["site"], best["head"]) == (f"llm.block.{induction[0]}", induction[1])
    assert (best["from"], best["from_head"]) == (f"llm.block.{previous[0]}", previous[1])
    assert best["kind"] == "K"
    assert best["score"] > 2 * best["random"]
    assert best["p_all"] < 1e-6
    for row in rows(result.table("weights-heads")):
        inducing = (row["site"], row["head"]) == (best["site"], best["head"])
        if inducing:
            assert row["copying"] == pytest.approx(1, abs=1e-6)
            assert abs(row["copying_shuffled"]) < 0.2
        else:
            assert row["copying"] is None
    first = result.findings[0]
    assert first.notable
    assert (
        f"{best['site']} head {best['head']} copies the tokens that it reads (1.00)" in first.text
    )
    sure = [one for one in result.findings if one.verdict is Verdict.DIFFERS]
    assert [one.values["kind"] for one in sure] == ["K"]
    words = [row for row in rows(result.table("weights-words")) if row["rank"] == 1]
    assert [(row["site"], row["head"]) for row in words] == [(best["site"], best["head"])]


# ---------------------------------------------------------------- manners


def test_vision_and_language_are_read_with_a_picture() -> None:
    sample = Sample("a", "Which one?", (picture(32, 32, seed=1),), choices=("u", "v"))
    result, heard = analysed(tiny_model(), [sample])
    assert not heard
    sites = {row["site"] for row in rows(result.table("weights-heads"))}
    assert sites == {f"vision.block.{i}" for i in range(3)} | {f"llm.block.{i}" for i in range(2)}
    of_vision = [r for r in rows(result.table("weights-heads")) if r["site"].startswith("vision")]
    assert all(row["copying"] is None and row["qk_1"] > 0 for row in of_vision)
    pairs = rows(result.table("weights-compositions"))
    assert {row["site"].split(".")[0] == row["from"].split(".")[0] for row in pairs} == {True}
    assert len(result.table("weights-projector")) == 8


def test_without_a_picture_the_vision_tower_is_left_out_and_said() -> None:
    result, heard = analysed(tiny_model(), [Sample("a", "Which one?")])
    assert [text for text in heard if "vision.block.0.attn" in text and "does not run" in text]
    assert {r["site"].split(".")[0] for r in rows(result.table("weights-heads"))} == {"llm"}


def test_refused_modules_are_said_and_the_rest_goes_on() -> None:
    vlm = deepcopy(tiny_model())
    projection = vlm.module.model.language_model.layers[0].self_attn.v_proj
    plain = projection.forward
    projection.forward = lambda given: plain(given).tanh()
    result, heard = analysed(vlm, [Sample("a", "x", (picture(32, 32, seed=1),))])
    assert [text for text in heard if text.startswith("llm.block.0.attn is left out: what its")]
    assert "llm.block.0" not in {row["site"] for row in rows(result.table("weights-heads"))}
    with pytest.raises(SiteSilent, match=r"no attention module can be read; llm\.block\.0\.attn"):
        analysed(vlm, [Sample("a", "x")], sites="llm.block.0.attn")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sites": "llm.block.0.mlp"}, SpecError, "heads of 'llm.block.0.mlp'"),
        ({"sites": "llm.block.9.attn"}, SiteNotFound, "No site"),
        ({"words": [""]}, SpecError, "no token for the word"),
    ],
)
def test_wrong_options_are_refused(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        analysed(tiny_model(), [Sample("a", "x")], **options)


def test_without_an_unembedding_there_are_spectra_and_composition_only() -> None:
    vlm = deepcopy(tiny_model())
    vlm.readout = lambda: None  # type: ignore[method-assign,assignment]
    sample = Sample("a", "x", (picture(32, 32, seed=1),), choices=("u", "v"))
    result, _ = analysed(vlm, [sample])
    assert [t.name for t in result.tables] == ["weights-heads", "weights-compositions"]
    assert set(result.table("weights-heads").columns["copying"]) == {None}
    with pytest.raises(SpecError, match="no words can be followed"):
        analysed(vlm, [sample], words="red")


def test_edits_change_activations_and_not_what_is_read() -> None:
    sample = Sample("a", "x", (picture(32, 32, seed=1),))
    plain, _ = analysed(tiny_model(), [sample])
    with tiny_model().edited("llm.block.0/all = zero"):
        edited, heard = analysed(tiny_model(), [sample])
    assert heard == edited.warnings
    assert [text for text in heard if text.startswith("Edits change activations, not weights")]
    assert plain.tables == edited.tables


def test_weights_that_are_offloaded_are_refused() -> None:
    vlm = deepcopy(tiny_model())
    vlm.module.to("meta")
    (site,) = vlm.sites.resolve("llm.block.0.attn")
    assert Words.of(vlm, fold=True) is None
    Weights(Weights.Options(words="red")).check_model(vlm, [], [])  # as of a skeleton
    call = Call(((torch.zeros(1, 3, 32),), {}), None)
    with pytest.raises(Unreadable, match="not in memory"):
        read_matrices(vlm, site, call)


def test_blocks_read_alone_give_what_they_give_together() -> None:
    """As in a run that is resumed, or on an engine, where earlier blocks are read again."""
    from vlmlens.abc import WorkUnit

    vlm = tiny_model()
    sample = Sample("a", "x", (picture(32, 32, seed=1),))
    units = [
        WorkUnit(sample, {
            "site": f"vision.block.{i}.attn", "language": False,
            "earlier": [f"vision.block.{k}.attn" for k in range(i)],
        })
        for i in range(3)
    ]  # fmt: skip
    options = HeadOptions()
    together = HeadWork(options).run(vlm, units)
    alone = [HeadWork(options).run(vlm, [unit])[0] for unit in reversed(units)]
    assert together == alone[::-1]
