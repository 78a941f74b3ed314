"""The conformance kit over the built-in analyses, and over some with deliberate mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import Field

from vlmlens.abc import Analysis, AnalysisContext, Options
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.results import Figure, Finding, Result, Table, Verdict
from vlmlens.samples import Sample
from vlmlens.testing import AnalysisTests
from vlmlens_plugins.analysis import checks
from vlmlens_plugins.analysis.attention.checks import AttentionChecks, AttentionColumnsChecks
from vlmlens_plugins.analysis.benchmark.checks import BenchmarkChecks
from vlmlens_plugins.analysis.concepts.checks import ConceptsChecks


class TestConcepts(ConceptsChecks):
    """Concepts."""


class TestProbe(checks.ProbeChecks):
    pass


class TestBlindTest(checks.BlindTestChecks):
    pass


class TestLogitLens(checks.LogitLensChecks):
    pass


class TestAttention(AttentionChecks):
    pass


class TestBenchmark(BenchmarkChecks):
    pass


class TestAttentionColumns(AttentionColumnsChecks):
    pass


class Norms(Analysis):
    """A sound analysis: how long vectors are, and whether those of one label are longer."""

    class Options(Options):
        """One of each kind."""

        power: float = Field(2.0, description="Of the norm.")

    options: Any

    def run(self, context: AnalysisContext) -> Result:
        names = [info.name for info in context.columns() if not info.ragged]
        norms = [float(np.nan_to_num(context.store.read(n).numpy()).std(dtype="f8")) for n in names]
        context.progress(1, 1)
        return Result(
            analysis="norms",
            title="Norms",
            findings=[Finding(f"The mean norm is {np.mean(norms):.3g}.")],
            tables=[Table("norms", "Norms", {"column": names, "norm": norms})],
            options=self.options.model_dump(mode="json"),
            notes=["Nothing more."],
        )


MANIFEST = Manifest(PluginKind.ANALYSIS, "norms", f"{__name__}:Norms", "How long vectors are.")


class NormChecks(AnalysisTests):
    manifest = MANIFEST
    plugin = Norms  # type: ignore[assignment]


class TestNorms(NormChecks):
    pass


class Changed(Norms):
    """Norms with one mistake in the result."""

    change: ClassVar[dict[str, Any]] = {}

    def run(self, context: AnalysisContext) -> Result:
        return replace(super().run(context), **self.change)


def with_mistake(**change: Any) -> type[Norms]:
    return type("Changed", (Changed,), {"change": change})


class Random(Norms):
    def run(self, context: AnalysisContext) -> Result:
        text = f"The number is {np.random.default_rng().random()}."
        return replace(super().run(context), findings=[Finding(text)])


class AsksForTheModel(Norms):
    def run(self, context: AnalysisContext) -> Result:
        context.model()
        return super().run(context)


class GoesBack(Norms):
    def run(self, context: AnalysisContext) -> Result:
        context.progress(2, 4)
        return super().run(context)


class NeedsColumns(Norms):
    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        assert columns[0]


class NeedsLabels(Norms):
    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        _ = [sample.label.upper() for sample in samples]  # type: ignore[union-attr]


class NeedsMany(Norms):
    def run(self, context: AnalysisContext) -> Result:
        _ = context.samples[10]
        return super().run(context)


class FearsNaN(Norms):
    def run(self, context: AnalysisContext) -> Result:
        name = next(info.name for info in context.columns() if info.ragged)
        return replace(
            super().run(context), options={"x": int(context.store.read(name).array.sum())}
        )


class Guesses(Norms):
    """Says of every column that it tells the label, whatever is in it."""

    verdict: ClassVar[Verdict] = Verdict.ENCODED

    def run(self, context: AnalysisContext) -> Result:
        return replace(super().run(context), findings=[Finding("It is so.", self.verdict)])


class Denies(Guesses):
    verdict = Verdict.NOT_ENCODED


class Leaks(Guesses):
    """Tells the label of a sample by that of its nearest other sample, of whatever group."""

    def run(self, context: AnalysisContext) -> Result:
        x = context.store.read("llm.block.1/last").numpy().astype("f8")
        apart = ((x[:, None] - x[None]) ** 2).sum(-1)
        np.fill_diagonal(apart, np.inf)
        y = np.array([sample.label for sample in context.samples])
        found = (y[apart.argmin(1)] == y).mean() > 0.65
        verdict = Verdict.ENCODED if found else Verdict.NOT_ENCODED
        return replace(super().run(context), findings=[Finding("It is so.", verdict)])


UNDRAWABLE = Figure("f", "f", "heatmap", ["a"], y=["b"], cells=[["no number"]])  # type: ignore[list-item]

MISTAKES: list[tuple[type[Norms], str]] = [
    (with_mistake(analysis="norm"), "result_is_complete"),
    (with_mistake(title=" "), "result_is_complete"),
    (with_mistake(findings=[]), "result_is_complete"),
    (with_mistake(findings=[Finding("no sentence")]), "result_is_complete"),
    (with_mistake(findings=[Finding("It is so.", samples=("nobody",))]), "result_is_complete"),
    (with_mistake(notes=["two\nlines."]), "result_is_complete"),
    (with_mistake(options={}), "result_is_complete"),
    (with_mistake(tables=[Table("t", "t", {"x": []})]), "result_is_complete"),
    (with_mistake(tables=[Table("t", "t", {"sample": ["nobody"]})]), "result_is_complete"),
    (with_mistake(options={"power": object()}), "result_survives_json"),
    (with_mistake(tables=[Table("t", "t", {"x": [1]})] * 2), "result_is_complete"),
    (with_mistake(figures=[UNDRAWABLE]), "result_can_be_shown"),
    (Random, "equal_seeds_give_equal_results"),
    (GoesBack, "progress_and_warnings"),
    (NeedsColumns, "suitable_data_pass_the_check"),
    (NeedsLabels, "what_it_needs_is_missed"),
    (NeedsMany, "few_samples"),
    (FearsNaN, "values_that_are_not_finite"),
    (AsksForTheModel, "result_is_complete"),
    (Guesses, "what_is_absent_is_not_claimed"),
    (Guesses, "what_is_confounded_is_not_claimed"),
    (Denies, "what_is_present_is_found"),
    (Leaks, "what_is_confounded_is_not_claimed"),
]


@pytest.mark.parametrize(("mistake", "check"), MISTAKES)
def test_a_deliberate_mistake_is_caught(mistake: type[Norms], check: str) -> None:
    kit = type("Kit", (NormChecks,), {"plugin": mistake})
    result = kit().run_check(check)
    assert result.outcome == "failed", result


def test_a_leak_alone_is_what_the_confounder_catches() -> None:
    """Nearest neighbours find what is there, and claim nothing where nothing is."""
    kit = type("Kit", (NormChecks,), {"plugin": Leaks})
    assert kit().run_check("what_is_present_is_found").outcome == "passed"
    assert kit().run_check("what_is_absent_is_not_claimed").outcome == "passed"


def test_an_analysis_without_verdicts_claims_nothing() -> None:
    result = NormChecks().run_check("what_is_present_is_found")
    assert (result.outcome, result.detail) == ("skipped", "norms makes no claim in its verdicts")


def test_an_expected_failure_must_be_a_check() -> None:
    with pytest.raises(TypeError, match=r"no check\. Did you mean few_samples"):
        type("Kit", (NormChecks,), {"expected_failures": {"few_sample": "?"}})
