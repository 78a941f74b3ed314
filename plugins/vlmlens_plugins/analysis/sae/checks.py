"""The conformance kit for the analysis `sae`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from vlmlens.abc import Values
from vlmlens.manifest import Manifest
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.testing import AnalysisTests, Planted, Signal
from vlmlens_plugins.analysis.manifests import SAE

_COLUMN = "llm.block.1/text"
_SAMPLES, _ROWS, _WIDTH, _FEATURES, _GROUPS = 160, 8, 16, 24, 8
Floats = npt.NDArray[np.float64]


class SaeChecks(AnalysisTests):
    """Whether a feature of superposed rows stands for a label.

    Rows are sums of 2 of 24 directions in 16 dimensions, 8 rows per sample.

    - present: a sample's label says whether one of the directions is in its rows.
    - absent: labels are random.
    - confounded: eight texts, each twenty times, and a label for each text. Sample by sample some
      feature separates the labels; with texts as groups, too few are left to say so.
    """

    manifest: ClassVar[Manifest] = SAE
    options: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "column": (_COLUMN,), "model": "off", "width": ("48",), "k": (2.0,), "rows": 25_600,
            "batch": 64, "lr": 1e-2, "pages": 2, "effects": 0, "held_out": 0.5, "draws": 100,
        }
    )  # fmt: skip

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        rng = np.random.default_rng(["present", "absent", "confounded"].index(signal))
        distinct = _GROUPS if signal == "confounded" else _SAMPLES
        rows, first = _superposed(rng, distinct)
        group = np.arange(_SAMPLES) % distinct
        told = first if signal == "present" else rng.random(distinct) < 0.5
        if signal == "confounded":
            told = np.arange(distinct) % 2 == 0
        samples = [
            Sample(
                f"s{i}", f"Text {group[i]}?", label="with" if told[group[i]] else "without",
                choices=("with", "without"), group=f"g{group[i]}", task="planted",
            )
            for i in range(_SAMPLES)
        ]  # fmt: skip
        stored = np.ascontiguousarray(rows[group].reshape(-1, _WIDTH), "<f4")
        return Planted(samples, {_COLUMN: Values(stored, "float32", (_ROWS,) * _SAMPLES)})

    def claims(self, result: Result) -> bool | None:
        """Whether a feature is said to stand for the label."""
        return any(
            finding.verdict is Verdict.DIFFERS and "feature" in finding.values
            for finding in result.findings
        )


def _superposed(rng: np.random.Generator, samples: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """float64 `[samples, rows, width]`, and in which samples the first direction is."""
    directions = rng.normal(size=(_FEATURES, _WIDTH))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    first = np.arange(samples) % 2 == 0
    rows = np.zeros((samples, _ROWS, _WIDTH))
    for i in range(samples):
        for j in range(_ROWS):
            chosen = rng.choice(np.arange(1, _FEATURES), 2, replace=False)
            if first[i] and j < 2:
                chosen[0] = 0
            rows[i, j] = rng.uniform(0.5, 1.5, 2) @ directions[chosen]
    return rows, first


SAE_CHECKS = (SaeChecks,)
