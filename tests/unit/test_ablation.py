"""Ablation on the demo model, against passes with plain hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc import AnalysisContext, ColumnStore, ModelAdapter
from vlmlens.errors import (
    CompositionError,
    MissingAnnotation,
    SelectorError,
    SiteNotFound,
    SpecError,
)
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import Selector
from vlmlens_adapter_clip.checks import ClipChecks
from vlmlens_plugins.analysis._sweeps import Item
from vlmlens_plugins.analysis.ablation import Ablation, AblationOptions
from vlmlens_plugins.analysis.ablation.components import components
from vlmlens_plugins.analysis.ablation.donors import with_donors
from vlmlens_plugins.demo.dataset import DemoDataset

HEAD = "llm.block.3.attn.heads[2]"
KINDS = ("special", "image", "text[:-1]", "last")


@pytest.fixture(scope="module")
def samples() -> Sequence[Sample]:
    options = DemoDataset.Options.model_validate({"pairs": 6})
    return DemoDataset("pairs", options).samples([])


@pytest.fixture(scope="module")
def run(vlm: ModelAdapter, samples: Sequence[Sample]) -> Callable[..., Result]:
    def analyse(given: Any = samples, told: list[str] | None = None, **options: Any) -> Result:
        small = {"draws": 200, "controls": 1, **options}
        analysis = Ablation(AblationOptions.model_validate(small))
        analysis.check(given, ())
        analysis.check_model(vlm, given, ())
        warn = (lambda message: None) if told is None else told.append
        store: ColumnStore = None  # type: ignore[assignment]  # ablation reads no columns
        return analysis.run(AnalysisContext(given, store, cache(lambda: vlm), warn=warn))

    return analyse


class Plain:
    """The clean samples, their logit differences, and a plain hook on an output projection."""

    def __init__(self, vlm: ModelAdapter, samples: Sequence[Sample]) -> None:
        clean = [each for each in samples if each.attributes["role"] == "clean"]
        other = [each for each in samples if each.attributes["role"] == "corrupted"]
        self.vlm, self.batch = vlm, vlm.encode(clean)
        labels = [[str(each.label) for each in role] for role in (clean, other)]
        self.tokens = [[vlm.answer_ids(label)[0] for label in role] for role in labels]
        (site,) = vlm.sites.resolve(HEAD)
        assert site.columns is not None
        self.columns = slice(*site.columns)
        self.projection: Any = vlm.module.get_submodule(site.path)
        self.layouts = self.batch.layouts[Axis.LLM].samples

    def difference(self) -> Any:
        logits: Any = self.vlm.forward(self.batch, logits="last").logits
        rows = range(len(self.batch))
        return (logits[rows, self.tokens[0]] - logits[rows, self.tokens[1]]).double().numpy()

    def changed(self, hook: Callable[..., Any], *, before: bool) -> float:
        base = self.difference()
        register = "register_forward_pre_hook" if before else "register_forward_hook"
        handle = getattr(self.projection, register)(hook)
        try:
            return float((self.difference() - base).mean())
        finally:
            handle.remove()

    def rows(self, name: str) -> list[Any]:
        return [Selector.parse(name).rows(layout) for layout in self.layouts]


@pytest.fixture(scope="module")
def plain(vlm: ModelAdapter, samples: Sequence[Sample]) -> Plain:
    return Plain(vlm, samples)


@contextmanager
def without(weight: torch.Tensor, *where: Any) -> Iterator[None]:
    """Zeros in a weight for a while."""
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[where] = 0
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def effect(result: Result, name: str = HEAD) -> float:
    columns = result.table("ablation").columns
    return float(columns["logit_difference"][columns["component"].index(name)] or 0)


def test_a_head_of_zeros_is_that_of_a_plain_hook_on_the_projections_input(
    run: Callable[..., Result], plain: Plain
) -> None:
    def zeroed(module: Any, args: Any, output: Any = None) -> Any:
        changed = (args[0] if output is None else output).clone()
        changed[..., plain.columns] = 0
        return (changed,) if output is None else changed

    found = effect(run(sites=HEAD, by="zero"))
    assert found == pytest.approx(plain.changed(zeroed, before=True), abs=1e-4)
    wrong = plain.changed(zeroed, before=False)
    assert abs(found - wrong) > 0.01  # a slice of the output is no head


def test_the_mean_is_that_of_rows_of_the_same_kind(
    run: Callable[..., Result], plain: Plain
) -> None:
    seen: list[Any] = []

    def meant(module: Any, args: Any) -> Any:
        rows = args[0].reshape(-1, args[0].shape[-1]).clone()
        seen.append(len(rows))
        for kind in KINDS:
            index = np.concatenate(plain.rows(kind))
            rows[index, plain.columns] = rows[index, plain.columns].double().mean(0).float()
        return (rows.reshape(args[0].shape),)

    found = effect(run(sites=HEAD))
    assert found == pytest.approx(plain.changed(meant, before=True), abs=1e-4)
    assert seen == [plain.batch.layouts[Axis.LLM].total]
    assert abs(found - effect(run(sites=HEAD, by="zero"))) > 0.01


def test_a_head_whose_projection_is_zero_changes_nothing_and_is_reported(
    run: Callable[..., Result], plain: Plain
) -> None:
    with without(plain.projection.weight, slice(None), plain.columns):
        result = run(sites=["llm.block.3.attn.heads[1-2]"])
    columns = result.table("ablation").columns
    assert columns["component"] == ["llm.block.3.attn.heads[1]", HEAD]
    assert columns["changed_nothing"] == [False, True]
    assert effect(result) == columns["divergence"][1] == 0
    (said,) = (each.text for each in result.findings if "changed no value" in each.text)
    assert said == (
        f"color: ablating {HEAD} changed no value of the logits in any sample (1 of 2 components)."
    )


def test_what_is_the_same_in_all_samples_is_its_own_mean(
    run: Callable[..., Result], samples: Sequence[Sample]
) -> None:
    one = [replace(samples[0], attributes={})]
    columns = run(one, parts=["mlp", "block"], rows="last").table("ablation").columns
    assert all(columns["changed_nothing"])
    assert set(columns["part"]) == {"mlp", "block"}


def test_a_block_is_what_attention_and_mlp_add(run: Callable[..., Result], plain: Plain) -> None:
    found = effect(run(parts="block", by="zero"), "llm.block.3")
    base = plain.difference()
    edits = [f"llm.block.3.{name}/all = zero" for name in ("attn_out", "mlp_out")]
    with plain.vlm.edited(edits):
        edited = plain.difference()
    assert found == pytest.approx(float((edited - base).mean()), abs=1e-4)


def test_greedy_sets_are_measured_again_with_what_was_removed(
    run: Callable[..., Result], plain: Plain
) -> None:
    result = run(sites=["llm.block.2-3.attn.heads[*]"], by="zero", greedy=2)
    first, second = result.table("ablation-greedy").columns["component"]
    columns = result.table("ablation").columns
    alone = dict(zip(columns["component"], columns["logit_difference"], strict=True))
    assert first == min(alone, key=lambda name: float(alone[name] or 0))
    base = plain.difference()
    together = {}
    for name in set(alone) - {first}:
        with plain.vlm.edited([f"{each}/all = zero" for each in (first, name)]):
            together[name] = float((plain.difference() - base).mean())
    assert second == min(together, key=lambda name: together[name])
    sizes = result.table("ablation-greedy").columns["logit_difference"]
    assert sizes[1] == pytest.approx(together[str(second)], abs=1e-4)
    assert all(value is not None for value in result.table("ablation-greedy").columns["control"])
    assert any("removed one after the other" in each.text for each in result.findings)


def test_resampled_rows_are_those_of_another_sample(
    run: Callable[..., Result], samples: Sequence[Sample]
) -> None:
    whole = run(sites="projector", by="resample")
    assert whole.table("ablation").columns["flipped"][0] > 0  # of another colour
    told: list[str] = []
    longer = replace(samples[0], prompt="Color of the main object, please:", attributes={})
    given = [*samples[1:6], longer]
    run([replace(each, attributes={}) for each in given], told, sites="projector", by="resample")
    assert told[0] == (
        "1 of 6 samples are left out: no other one has as many rows of each kind, from which rows "
        "could be taken."
    )
    with pytest.raises(MissingAnnotation, match="by=resample"):
        run([longer], sites=HEAD, by="resample")


def test_no_sample_is_its_own_donor(samples: Sequence[Sample]) -> None:
    items = [Item(sample, ("red",)) for sample in [*samples, replace(samples[0], id="again")]]
    kept, made = with_donors(items, ["a"] * len(items), seed=0)
    assert kept == list(range(len(items)))
    assert all(each.donor is not None for each in made)
    assert all(each.donor.images != each.target.images for each in made if each.donor)
    assert with_donors(items, ["a"] * len(items), seed=0) == (kept, made)
    assert with_donors(items, [str(i) for i in range(len(items))], seed=0) == ([], [])


def test_figures_show_layers_and_heads(run: Callable[..., Result]) -> None:
    result = run()
    heads, parts = result.figures
    assert list(heads.y) == [f"head {i}" for i in range(4)]
    assert list(heads.x) == list(parts.x) == [f"llm.block.{i}" for i in range(6)]
    assert list(parts.y) == ["mlp"]
    assert len(result.table("ablation")) == 6 * 5
    assert len(result.table("ablation-samples")) == 6 * 5
    (glance,) = result.overview
    assert len(glance.curve) == 6


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sites": "llm.block.99"}, SiteNotFound, "No site"),
        ({"sites": "llm.block.0.attn.heads[7]"}, SiteNotFound, "no head 7"),
        ({"rows": "image.mean"}, SpecError, "pools rows"),
        ({"rows": "answer"}, SelectorError, "keeps no token"),
        ({"max_passes": 29}, SpecError, "30 cells"),
        ({"max_passes": 100, "greedy": 10}, SpecError, "max_passes is 100"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_model_runs(
    vlm: ModelAdapter, samples: Sequence[Sample], options: Any, error: Any, message: str
) -> None:
    analysis = Ablation(AblationOptions.model_validate(options))
    with pytest.raises(error, match=message):
        analysis.check_model(vlm, samples, ())


def test_a_model_that_compares_choices_is_refused() -> None:
    clip: Any = ClipChecks().vlm
    with pytest.raises(CompositionError, match="only compares choices"):
        components(clip, AblationOptions())
