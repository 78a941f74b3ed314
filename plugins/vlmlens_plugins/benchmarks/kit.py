"""BenchmarkChecks: the conformance kit of datasets, for those with a card."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vlmlens.errors import DataError, MissingDependency
from vlmlens.samples import Sample
from vlmlens.testing import DatasetTests
from vlmlens.testing._checks import expect, expect_error
from vlmlens_plugins.benchmarks.benchmark import EDITION, NAME, STYLE
from vlmlens_plugins.benchmarks.card import Card, Rule
from vlmlens_plugins.benchmarks.scoring import answered, intervals, scored, spanning

_ODD = (
    "",
    " ",
    "\n",
    "Yes",
    "no.",
    "(B)",
    "12 %",
    "\u00e9\u2603\U0001f600",
    "A" * 5_000,
    "9" * 5_000,
)
"""Answers that every rule must survive."""


class BenchmarkChecks(DatasetTests):
    """The kit of datasets, and what a card promises."""

    def check_reads_what_it_can_read(self, folder: Path) -> None:
        """A benchmark claims no path: its files are tables too, so it is asked for by name."""
        source = self._source(folder)
        expect(not self.plugin.reads(source), f"`reads` is True for {source!r}")

    def check_odd_names_are_refused(self, folder: Path) -> None:
        """A home that nobody has, a NUL and a file that is no table are errors with a hint."""
        (folder / "plain.bin").write_bytes(b"\xff\xfe\x00")
        for source in ("~nobody-has-this-name/x", "a\0b", str(folder / "plain.bin")):
            error = expect_error(DataError, partial(self.read, source, folder), f"{source!r}")
            expect(bool(getattr(error, "hint", "")), f"{source!r}: the error has no hint: {error}")

    def check_samples_say_what_they_are(self, folder: Path) -> None:
        """Each sample names its benchmark, edition and prompt; tasks are given to all or none."""
        samples = self._own(folder)
        for sample in samples:
            known = sample.attributes
            expect(known.get(NAME) == self._card.name, f"{sample.id}: another card is named")
            for name in (EDITION, STYLE):
                expect(bool(known.get(name)), f"{sample.id}: no {name}")
        tasks = {sample.task is None for sample in samples}
        expect(len(tasks) == 1, "some samples have a task, and some have none")

    def check_right_answers_are_right(self, folder: Path) -> None:
        """The label, given as an answer, is right by the rules strict and official."""
        samples = [sample for sample in self._own(folder) if sample.label is not None]
        texts = [self.answer(str(sample.label)) for sample in samples]
        for name in ("strict", "official"):
            answers = answered(texts, samples, self._card.rule(name))
            wrong = [
                sample.id
                for sample, answer in zip(samples, answers, strict=True)
                if answer.credit < 1
            ]
            expect(not wrong, f"by the rule {name!r}, the labels of {wrong[:3]} are wrong")

    def check_rules_survive_odd_answers(self, folder: Path) -> None:
        """No rule fails on any text; it says nothing or a text, and credit is from 0 to 1."""
        samples = self._own(folder)
        for name, rule in self._card.rules.items():
            if not _can_read(rule, samples):
                continue
            for text in _ODD:
                for answer in answered([text] * len(samples), samples, rule):
                    said = answer.said
                    expect(said is None or isinstance(said, str), f"{name}: {text!r} reads {said}")
                    expect(0 <= answer.credit <= 1, f"{name}: the credit is {answer.credit}")

    def check_metrics_are_sums(self, folder: Path) -> None:
        """Metrics have the same names on any samples, and intervals can be drawn for them."""
        samples = self._own(folder)
        rule = self._card.rule("strict")
        answers = answered(["yes"] * len(samples), samples, rule)
        chosen = [rule.metrics or self._card.metrics, self._card.task_metrics]
        for metrics in filter(None, chosen):
            whole = scored(metrics, samples, answers)
            part = scored(metrics, samples[:1], answers[:1])
            expect(list(whole) == list(part), f"the names differ: {list(whole)}, {list(part)}")
            rng = np.random.default_rng(0)
            drawn = intervals(metrics, samples, answers, draws=8, rng=rng)
            expect(list(drawn) == list(whole), f"the intervals are of {list(drawn)}")
        expect(
            self._card.headline in scored(self._card.metrics, samples, answers),
            f"the headline {self._card.headline!r} is no metric",
        )

    def check_groups_hold_what_counts_together(self, folder: Path) -> None:
        """Counts of each group alone add up to those of all: else groups cannot be resampled."""
        samples = self._own(folder)
        rule = self._card.rule("strict")
        answers = answered([self.answer(str(s.label)) for s in samples], samples, rule)
        groups: dict[str, list[int]] = {}
        for number, sample in enumerate(samples):
            groups.setdefault(sample.split_group, []).append(number)
        for metrics in filter(None, (rule.metrics or self._card.metrics, self._card.task_metrics)):
            whole = metrics.counts(samples, answers)
            parts = [
                metrics.counts([samples[i] for i in rows], [answers[i] for i in rows])
                for rows in groups.values()
            ]
            own = metrics.scores({name: np.asarray(each.sum()) for name, each in whole.items()})
            added = metrics.scores(
                {name: np.asarray(sum(part[name].sum() for part in parts)) for name in whole}
            )
            for name in own.keys() - spanning(metrics):
                same = np.isclose(own[name], added[name], equal_nan=True)
                expect(bool(same), f"{name}: {own[name]} of all samples, {added[name]} by group")

    def check_prompt_styles(self, folder: Path) -> None:
        """Every style of the card asks something; `none` and a suffix of one's own work, too."""
        source = self._source(folder)
        for style in (*self._card.prompts, "none", " Answer:"):
            options = self.chosen({**self.options_in(folder), "prompt": style})
            for sample in self.plugin(source, options).samples(()):
                expect(bool(sample.prompt.strip()), f"{style}: {sample.id} is asked nothing")
                told = sample.attributes.get(STYLE)
                expect(told == style, f"{sample.id}: asked in the style {style}, told {told}")

    def answer(self, label: str) -> str:
        """A label as a model would write it; override it if the rules want another spelling."""
        return label

    @property
    def _card(self) -> Card:
        card: Any = self.plugin.card
        expect(isinstance(card, Card), "the class has no `card`")
        found: Card = card
        return found

    def _own(self, folder: Path) -> Sequence[Sample]:
        """The samples with their own questions."""
        return self.read(self._source(folder), folder, ())


def _can_read(rule: Rule, samples: Sequence[Sample]) -> bool:
    """Whether what a rule needs is installed."""
    try:
        rule.check(samples)
    except MissingDependency:
        return False
    return True
