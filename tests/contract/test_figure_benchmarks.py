"""The conformance kit over HallusionBench, MME, CDH-Bench, ChartQA and CLEVR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import Card, Found, Prompt, Rule
from vlmlens_plugins.benchmarks.card import Floats
from vlmlens_plugins.benchmarks.cdh import checks as cdh
from vlmlens_plugins.benchmarks.chartqa import checks as chartqa
from vlmlens_plugins.benchmarks.clevr import checks as clevr
from vlmlens_plugins.benchmarks.counting import MeanCredit
from vlmlens_plugins.benchmarks.hallusionbench import checks as hallusionbench
from vlmlens_plugins.benchmarks.mme import Mme
from vlmlens_plugins.benchmarks.mme import checks as mme


class TestHallusionBench(hallusionbench.HallusionChecks):
    pass


class TestMme(mme.MmeChecks):
    pass


class TestCdh(cdh.CdhChecks):
    pass


class TestChartQa(chartqa.ChartQaChecks):
    pass


class TestClevr(clevr.ClevrChecks):
    pass


class Claiming(Mme):
    """Takes every path."""

    @classmethod
    def reads(cls, path: str) -> bool:
        del path
        return True


class Untitled(Mme):
    """Another set's card."""

    card: ClassVar[Card] = replace(Mme.card, name="pope")

    def samples(self, prompts: Sequence[str]) -> Sequence[Sample]:
        return [
            replace(sample, attributes={**sample.attributes, "benchmark": "mme"})
            for sample in super().samples(prompts)
        ]


class Halved(Mme):
    """Some samples have no task."""

    def found(self) -> Found:
        found = super().found()
        first, *rest = found.samples
        return replace(found, samples=[replace(first, task=None), *rest])


def _rules(rule: Rule) -> Card:
    return replace(Mme.card, rules={**Mme.card.rules, "strict": rule})


class Deaf(Mme):
    """Reads yes in everything."""

    card: ClassVar[Card] = _rules(Rule(lambda text, sample: "yes"))


class Fragile(Mme):
    """Fails on an empty text."""

    card: ClassVar[Card] = _rules(Rule(lambda text, sample: text[0].lower() + text[1:]))


class Parted(Mme):
    """The two questions of an image are in two groups."""

    def found(self) -> Found:
        found = super().found()
        return replace(found, samples=[replace(s, group=s.id) for s in found.samples])


class Wandering(MeanCredit):
    """Other names for other samples."""

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        return {f"accuracy of {sums['n']}": sums["credit"]}


class Nameless(Mme):
    """Metrics that change their names."""

    card: ClassVar[Card] = replace(Mme.card, metrics=Wandering(), headline="accuracy")


class Mute(Mme):
    """A style that asks nothing."""

    card: ClassVar[Card] = replace(
        Mme.card, prompts={**Mme.card.prompts, "mute": Prompt(write=lambda sample: " ")}
    )


@pytest.mark.parametrize(
    ("mistake", "check"),
    [
        (Claiming, "reads_what_it_can_read"),
        (Untitled, "samples_say_what_they_are"),
        (Halved, "samples_say_what_they_are"),
        (Deaf, "right_answers_are_right"),
        (Fragile, "rules_survive_odd_answers"),
        (Parted, "groups_hold_what_counts_together"),
        (Nameless, "metrics_are_sums"),
        (Mute, "prompt_styles"),
    ],
)
def test_the_kit_catches_mistakes(mistake: type[Mme], check: str) -> None:
    kit = type("Kit", (mme.MmeChecks,), {"plugin": mistake})
    result = kit().run_check(check)
    assert result.outcome == "failed", result
    assert type("Kit", (mme.MmeChecks,), {})().run_check(check).outcome == "passed"
