"""Every installed benchmark is scored by the analysis `benchmark`: right answers, and odd ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests._answered import row, score

from vlmlens.manifest import Manifest, PluginKind
from vlmlens.registry import Registry
from vlmlens.report.files import to_json, write_result
from vlmlens.samples import Sample
from vlmlens.testing import DatasetTests
from vlmlens_plugins.benchmarks.own_answers import ANSWER


def installed() -> list[Manifest]:
    found = [entry.manifest for entry in Registry.default().entries(PluginKind.DATASET)]
    return [one for one in found if one and ".benchmarks." in one.target and _is_there(one)]


def _is_there(manifest: Manifest) -> bool:
    assert manifest.checks is not None
    package = manifest.target.partition(":")[0]
    return find_spec(package) is not None and find_spec(_module(manifest)) is not None


def _module(manifest: Manifest) -> str:
    return str(manifest.checks).partition(":")[0]


def checks_of(manifest: Manifest) -> DatasetTests:
    made: DatasetTests = import_module(_module(manifest)).CHECKS[0]()
    return made


def read(manifest: Manifest, folder: Path) -> tuple[DatasetTests, Sequence[Sample]]:
    checks = checks_of(manifest)
    options = checks.chosen(checks.options_in(folder))
    dataset: Any = Registry.default().load(manifest)(checks.source(folder), options)
    return checks, dataset.samples(())


def with_answers(samples: Sequence[Sample], texts: Sequence[str]) -> list[Sample]:
    return [
        replace(sample, attributes={**sample.attributes, ANSWER: text})
        for sample, text in zip(samples, texts, strict=True)
    ]


@pytest.mark.parametrize("manifest", installed(), ids=lambda one: one.name)
def test_each_card_scores_right_and_odd_answers(manifest: Manifest, tmp_path: Path) -> None:
    checks, samples = read(manifest, tmp_path)
    as_answer = getattr(checks, "answer", str)
    right = [as_answer(str(sample.label or "A dog.")) for sample in samples]
    odd = ["", "\x1b[31m<b>", "A" * 2_000, "99 %", "Not sure.\n"]
    mixed = [odd[i % len(odd)] for i in range(len(samples))]
    for texts in (right, mixed):
        result = score(with_answers(samples, texts), tmp_path / "results", draws=100)
        json.loads(to_json(result), parse_constant=pytest.fail)
        assert write_result(result, tmp_path / "results")
        scores = result.table("benchmark-scores")
        headline = result.findings[0].text.partition(": ")[2].partition(" ")[0]
        one = row(scores, task="all samples", metric=headline)
        assert one["questions"] == len(samples)
        for table in result.tables:
            assert set(table.about) <= set(table.columns)
        for finding in result.findings:
            assert finding.text.endswith((".", "!", "?"))
        for text in (*result.notes, *(finding.text for finding in result.findings)):
            assert "\n" not in text
