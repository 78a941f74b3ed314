"""Heads by role: on a model with a known circuit, and against transformers' own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc import AnalysisContext, ColumnStore, ModelAdapter, WorkUnit
from vlmlens.errors import CompositionError, DataError
from vlmlens.passes.contributions import contributions
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.testing._checks import CheckFailed
from vlmlens.testing.model import TinyLlava, tiny_model
from vlmlens.testing.tiny import picture
from vlmlens_adapter_blip2.checks import FlanT5Checks
from vlmlens_plugins.analysis._induction import induction_model
from vlmlens_plugins.analysis.heads import Heads, measured
from vlmlens_plugins.analysis.heads.checks import LENGTH, HeadsChecks, without_induction
from vlmlens_plugins.analysis.heads.measured import by_head, needed
from vlmlens_plugins.analysis.heads.options import HeadsOptions
from vlmlens_plugins.analysis.heads.patterns import patterns
from vlmlens_plugins.analysis.heads.sequences import drawn, length_for, ordinary_tokens
from vlmlens_plugins.analysis.heads.sinks import sinks_of
from vlmlens_plugins.analysis.heads.work import (
    ImageOptions,
    ImageShares,
    SequenceScores,
    attentions,
)
from vlmlens_plugins.demo.checks import DemoChecks
from vlmlens_plugins.hf.checks import Qwen35Checks

NEAR = 1e-5
PREVIOUS, INDUCTION = ("llm.block.0", 0), ("llm.block.1", 1)
QUESTIONS = [Sample("a", "w1 w2"), Sample("b", "w3")]
SEEN = [
    Sample("a", "What is this?", (picture(32, 32, seed=1),)),
    Sample("b", "Name the colour of it, please:", (picture(32, 32, seed=2),)),
]


def analysed(
    vlm: ModelAdapter, samples: Sequence[Sample], told: list[str] | None = None, **options: Any
) -> Result:
    store: ColumnStore = None  # type: ignore[assignment]  # heads reads no columns
    warn = (lambda message: None) if told is None else told.append
    analysis = Heads(HeadsOptions.model_validate({"draws": 200, **options}))
    analysis.check(samples, ())
    analysis.check_model(vlm, samples, ())
    return analysis.run(AnalysisContext(samples, store, cache(lambda: vlm), warn=warn))


def scores(result: Result, name: str) -> dict[tuple[str, int], Any]:
    columns = result.table("heads").columns
    keys = zip(columns["block"], columns["head"], strict=True)
    return dict(zip(keys, columns[name], strict=True))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def known() -> Result:
    return analysed(induction_model(), QUESTIONS)


# ---------------------------------------------------------------------- a known circuit


def test_exactly_the_planted_heads_have_roles(known: Result) -> None:
    roles = {head: role for head, role in scores(known, "roles").items() if role is not None}
    assert roles == {PREVIOUS: "previous-token", INDUCTION: "induction"}
    assert scores(known, "previous_token")[PREVIOUS] == pytest.approx(1, abs=NEAR)
    assert scores(known, "induction")[INDUCTION] == pytest.approx(1, abs=NEAR)
    assert scores(known, "copying")[INDUCTION] == pytest.approx(1, abs=NEAR)
    others = [value for head, value in scores(known, "induction").items() if head != INDUCTION]
    assert max(others) < NEAR
    assert known.table("heads-by-role").columns["site"] == [
        "llm.block.0.attn.heads[0]",
        "llm.block.1.attn.heads[1]",
    ]


def test_with_another_order_the_place_says_nothing_and_the_token_everything(known: Result) -> None:
    assert scores(known, "induction_control")[INDUCTION] < 0.2
    assert scores(known, "induction_reordered")[INDUCTION] == pytest.approx(1, abs=NEAR)


@pytest.mark.parametrize(
    ("pattern", "controls", "check"),
    [
        ("duplicate", None, "what_is_present_is_found"),
        ("induction", [("repeated", "before")], "what_is_confounded_is_not_claimed"),
    ],
    ids=["off-by-one", "without-its-control"],
)
def test_the_kit_catches_mistakes(
    pattern: str, controls: Any, check: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Kit(HeadsChecks):
        """A kit with a result of its own."""

    right = measured._PATTERNS["induction"]
    changed = {**measured._PATTERNS, "induction": (pattern, controls or right[1])}
    monkeypatch.setattr(measured, "_PATTERNS", changed)
    with pytest.raises(CheckFailed, match="signal"):
        getattr(Kit(), f"check_{check}")(tmp_path)


def test_a_less_sharp_circuit_has_lower_scores() -> None:
    weak = analysed(induction_model(sharpness=5.0), QUESTIONS, sequences=4)
    assert 0.5 < scores(weak, "induction")[INDUCTION] < 0.999
    assert 0.5 < scores(weak, "previous_token")[PREVIOUS] < 0.999


def test_a_head_that_always_reads_the_same_place_is_no_induction_head() -> None:
    result = analysed(without_induction(back=LENGTH - 1), QUESTIONS)
    assert scores(result, "induction")[INDUCTION] == pytest.approx(1, abs=NEAR)
    assert scores(result, "induction_control")[INDUCTION] == pytest.approx(1, abs=NEAR)
    assert scores(result, "roles")[INDUCTION] is None


def test_other_numbers_of_copies_and_heads() -> None:
    vlm = induction_model(heads=3, previous=(0, 2), induction=(2, 0), blocks=3)
    result = analysed(vlm, QUESTIONS, length=9, copies=3)
    roles = {head: role for head, role in scores(result, "roles").items() if role is not None}
    assert roles == {("llm.block.0", 2): "previous-token", ("llm.block.2", 0): "induction"}
    assert scores(result, "induction")["llm.block.2", 0] == pytest.approx(1, abs=NEAR)


def test_few_sequences_name_no_head_and_say_so() -> None:
    told: list[str] = []
    result = analysed(induction_model(), QUESTIONS, told, sequences=3)
    assert set(scores(result, "roles").values()) == {None}
    assert "3 sequences are too few for any of 8 heads" in "".join(told)
    found = {finding.values["role"]: finding.verdict for finding in result.findings}
    assert found["induction"] is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("heads", [8, 24, 1024])
def test_as_many_sequences_as_are_needed(heads: int) -> None:
    smallest = 2 / 2 ** needed(heads)
    assert heads * smallest <= 0.05 / 4


# ---------------------------------------------------------------------- against transformers


def own_attention(vlm: Any, sample: Sample, tokens: Sequence[int] | None) -> np.ndarray:
    """`[blocks, heads, rows, rows]` of one sample alone, as transformers gives it."""
    batch = vlm.encode([sample], answers=None if tokens is None else [list(tokens)])
    found = vlm.module(**batch.inputs, output_attentions=True).attentions
    return torch.stack([each[0] for each in found]).detach().double().numpy()


@pytest.mark.parametrize("images", [0, 1])
def test_scores_are_those_of_a_plain_loop_over_output_attentions(images: int) -> None:
    vlm, eager = tiny_model(), tiny_model("eager")
    tokens = [[80, 81, 82, 83, 81, 80, 83, 82, 83, 82, 81, 80], [90, 91, 92, 93] * 3]
    units = [
        WorkUnit(
            Sample("x", "Read:", SEEN[i].images[:images]),
            {"tokens": sequence, "length": 4, "copying": False},
        )
        for i, sequence in enumerate(tokens)
    ]
    found = SequenceScores().run(vlm, units)
    for unit, one, sequence in zip(units, found, tokens, strict=True):
        whole = own_attention(eager, unit.sample, sequence)
        start = whole.shape[-1] - len(sequence)
        own = whole[..., start:, start:]
        sums = {"previous": 0.0, "duplicate": 0.0, "induction": 0.0, "induction_place": 0.0}
        reads = 0
        for i in range(1, 12):
            sums["previous"] += own[:, :, i, i - 1] / 11
            if i < 4:
                continue
            reads += any(sequence[j] == sequence[i] for j in range(i - 1))
            for j in range(i):
                if sequence[j] == sequence[i]:
                    sums["duplicate"] += own[:, :, i, j] / 8
                    sums["induction"] += own[:, :, i, j + 1] if j + 1 < i else 0
            sums["induction_place"] += own[:, :, i, i - 3] / 8
            sums["induction_place"] += own[:, :, i, i - 7] / 8 if i >= 8 else 0
        sums["induction"] /= reads
        for name, expected in sums.items():
            np.testing.assert_allclose(one[name], expected, atol=NEAR, err_msg=name)
        assert np.abs(np.array(one["previous"]) - one["induction"]).max() > 1e-3


def test_copying_is_that_of_the_weights_with_a_frozen_norm() -> None:
    vlm = tiny_model()
    tokens = [80, 81, 82, 83, 80, 81, 82, 83]
    unit = WorkUnit(SEEN[0], {"tokens": tokens, "length": 4, "copying": True})
    (found,) = SequenceScores().run(vlm, [unit])
    batch = vlm.encode([SEEN[0]], answers=[tokens])
    trace = vlm.trace(batch, ["llm.block.*.attn.heads", "llm.block.1"])
    weights = dict(vlm.module.named_parameters())
    gamma = weights["model.language_model.norm.weight"]
    unembed = vlm.module.get_submodule("lm_head").get_parameter("weight")[tokens[:4]]
    rms = trace["llm.block.1"][0, -4:].square().mean(-1, keepdim=True).sqrt()
    for block in (0, 1):
        site = f"llm.block.{block}.attn"
        heads = vlm.sites.heads(vlm.sites.resolve(site)[0])
        assert heads is not None
        out = vlm.module.get_submodule(heads.projection).get_parameter("weight")
        whole = own_attention(tiny_model("eager"), SEEN[0], tokens)[block][:, -4:, -8:]
        for head in range(heads.count):
            columns = slice(*heads.columns(head))
            added = trace[f"{site}.heads"][0, -4:, columns] @ out[:, columns].T
            logits = ((added * gamma / rms) @ unembed.T).double()
            gain = (logits - logits.mean(-1, keepdim=True)).clamp(min=0).detach().numpy()
            paid = whole[head][:, :4] + whole[head][:, 4:]
            share = (paid * gain / gain.sum(-1, keepdims=True)).sum() / paid.sum()
            assert found["copying"][block][head] == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize("suite", [Qwen35Checks, DemoChecks])
def test_copying_agrees_with_direct_logit_attribution(suite: Any) -> None:
    """Gated heads (Qwen3.5), and the norms of the demo: what is asked in core is the same."""
    kit = suite()
    vlm = kit.load()
    sample = next(each for each in kit.samples if each.images)
    tokens = ordinary_tokens(vlm, sample, 0)[:4]
    batch = vlm.encode([sample], answers=[tokens * 2])
    known = contributions(vlm, batch, [tokens], row="answer[-1]")
    unit = WorkUnit(sample, {"tokens": tokens * 2, "length": 7, "copying": True})
    (found,) = SequenceScores().run(vlm, [unit])
    for site, scores in zip(attentions(vlm), found["copying"], strict=True):
        read = vlm.attention(batch, [site])[site.name].of(batch.layout(0)).weights[:, -1, -8:]
        for head, score in enumerate(scores):
            added = known.added[known.names.index(f"{site.name}.heads[{head}]"), 0]
            gain = (added - added.mean()).clamp(min=0)
            paid = read[head, :4] + read[head, 4:]
            assert score == pytest.approx(
                float((paid * gain).sum() / gain.sum() / paid.sum()), abs=NEAR
            )


def test_what_the_last_row_reads_of_the_image() -> None:
    found = ImageShares().run(tiny_model(), [WorkUnit(sample) for sample in SEEN])
    for sample, one in zip(SEEN, found, strict=True):
        eager = tiny_model("eager")
        layout = eager.encode([sample]).layout(0)
        image = own_attention(eager, sample, None)[:, :, -1][..., layout.kinds == 1].sum(-1)
        np.testing.assert_allclose(one["image"], image, atol=NEAR)
        np.testing.assert_allclose(one["rest"], image, atol=NEAR)
        assert (one["rows"], one["sink_rows"], one["dimensions"]) == (16, 0, [])


# ---------------------------------------------------------------------- sinks


def test_sinks_share_a_huge_dimension_with_the_first_row() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 1024))
    rows[[0, 2], 7] = [900, -400]
    rows[3, 9] = 900
    sinks, dimensions = sinks_of(torch.from_numpy(rows), 20)
    assert dimensions == [7]
    assert sinks.tolist() == [True, False, True, False, False]
    assert sinks_of(torch.zeros(3, 8), 2)[0].tolist() == [False] * 3


def test_image_rows_that_are_sinks_do_not_count() -> None:
    vlm = TinyLlava.load(tiny_model().request)
    weights = dict(vlm.module.named_parameters())
    (embedded,) = (own for name, own in weights.items() if "embed_tokens" in name)
    first = int(vlm.encode([SEEN[0]]).layout(0).token_ids[0])  # type: ignore[index]
    with torch.no_grad():
        embedded[first, 5] = 50
        weights["model.multi_modal_projector.linear_2.bias"][5] = -50
    options = ImageOptions(sink=5.0)
    (found,) = ImageShares(options).run(vlm, [WorkUnit(SEEN[0])])
    assert found["dimensions"] == [5]
    assert found["sink_rows"] == 16
    assert np.max(found["rest"][0]) == 0
    sums = np.array(found["image"][0]), np.array(found["sinks"][0])
    assert sums[0].max() > 0.1
    assert (sums[1] >= sums[0]).all()


# ---------------------------------------------------------------------- sequences


def test_orders_of_tokens() -> None:
    made = {
        order: drawn(3, order, range(100, 200), 9, 3, seed=0)  # type: ignore[arg-type]
        for order in ("repeated", "reordered", "fresh")
    }
    first = made["repeated"][:9]
    assert made["repeated"] == first * 3
    assert made["reordered"][:9] == made["fresh"][:9] == first
    for start in (9, 18):
        copy = made["reordered"][start : start + 9]
        assert copy != first
        assert sorted(copy) == sorted(first)
    assert len(set(made["fresh"])) == 27
    assert drawn(4, "repeated", range(100, 200), 9, 3, seed=0) != made["repeated"]
    assert drawn(3, "repeated", range(100, 200), 9, 3, seed=1) != made["repeated"]


def test_tokens_are_ordinary_ones() -> None:
    vlm = tiny_model()
    known = ordinary_tokens(vlm, SEEN[0], 0)
    assert sorted(known) == sorted(ordinary_tokens(vlm, SEEN[0], 1)) != known
    assert not vlm.special_ids & set(known)
    assert vlm.image_token_id not in known
    assert all(vlm.decode([token]).strip() for token in known)
    letters = {vlm.decode([token]).strip() for token in known}
    assert {"a", "Z", "7", "<"} <= letters


def test_lengths_fit_the_vocabulary() -> None:
    assert length_for(1000, 25, 2) == 25
    assert length_for(31, 25, 2) == 15
    with pytest.raises(CompositionError, match="7 ordinary tokens"):
        length_for(7, 25, 2)


def test_patterns_of_a_short_sequence() -> None:
    made = patterns([5, 6, 7, 6, 5, 7], 3)
    cells = {name: list(map(tuple, np.argwhere(own).tolist())) for name, own in made.items()}
    assert cells["duplicate"] == [(3, 1), (4, 0), (5, 2)]
    assert cells["induction"] == [(3, 2), (4, 1), (5, 3)]
    assert cells["induction_place"] == [(3, 1), (4, 2), (5, 3)]
    assert cells["before"] == [(2, 0), (3, 1), (4, 2), (5, 3)]


# ---------------------------------------------------------------------- conditions and refusals


class Seeing(TinyLlava):
    """The tiny model, which refuses samples without an image."""

    def encode(self, samples: Sequence[Sample], **more: Any) -> Any:
        """See `ModelAdapter.encode`."""
        if not all(sample.images for sample in samples):
            raise DataError("This model needs an image.", subject="x", hint="Give it one.")
        return super().encode(samples, **more)


def test_with_and_without_an_image() -> None:
    result = analysed(tiny_model(), SEEN, sequences=2, length=6)
    columns = result.table("heads").columns
    assert list(dict.fromkeys(columns["condition"])) == ["text", "image"]
    heads = len(result.table("heads-image"))
    assert len(result.table("heads")) == 2 * heads
    text, image = np.split(np.array(columns["previous_token"]), 2)
    assert np.abs(text - image).max() > 1e-3
    assert [figure.name for figure in result.figures][-1] == "heads-image"


def test_a_model_that_needs_an_image_is_shown_none_without() -> None:
    told: list[str] = []
    result = analysed(Seeing.load(tiny_model().request), SEEN, told, sequences=2, length=6)
    assert set(result.table("heads").columns["condition"]) == {"image"}
    assert any("without an image: This model needs an image." in message for message in told)
    with pytest.raises(DataError, match="needs an image"):
        analysed(Seeing.load(tiny_model().request), QUESTIONS)


def test_sequences_that_the_model_cannot_hold_are_refused_at_once() -> None:
    with pytest.raises(DataError, match="80 random tokens"):
        analysed(induction_model(), QUESTIONS, length=40)


def test_what_nothing_is_said_of_is_said() -> None:
    told: list[str] = []
    kit = Qwen35Checks()
    analysed(kit.load(), kit.samples, told, sequences=2, length=6)
    assert any("3 of 4 blocks (for example llm.block.0)" in message for message in told)
    told.clear()
    other = FlanT5Checks()
    result = analysed(other.load(), other.samples, told, sequences=2, length=6)
    assert any("rows are not among those" in message for message in told)
    assert "heads-image" not in [table.name for table in result.tables]


class Comparing(TinyLlava):
    """The tiny model as one that compares choices."""

    def choice_scores(self, samples: Sequence[Sample]) -> list[list[float]]:
        """See `ModelAdapter.choice_scores`."""
        return [[0.0] for _ in samples]


def test_a_model_that_compares_choices_is_refused() -> None:
    with pytest.raises(CompositionError, match="only compares"):
        analysed(Comparing.load(tiny_model().request), SEEN)


def test_scores_of_a_model_without_copying_are_left_empty() -> None:
    class Silent(TinyLlava):
        """Without a readout."""

        def readout(self) -> None:
            """See `ModelAdapter.readout`."""

    result = analysed(Silent.load(tiny_model().request), SEEN, sequences=2, length=6)
    assert set(result.table("heads").columns["copying"]) == {None}
    assert any("not known" in note for note in result.notes)


def test_numbers_by_head_of_blocks_that_differ() -> None:
    found = by_head([{"x": [[1.0, None], [3.0]]}, {"x": [[4.0, 5.0], [6.0]]}], "x")
    np.testing.assert_array_equal(found, [[1, 4], [np.nan, 5], [3, 6]])
