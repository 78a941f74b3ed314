"""The conformance kit for similarity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from vlmlens.abc import Values
from vlmlens.manifest import Manifest
from vlmlens.results import Result
from vlmlens.testing import AnalysisTests, Planted, Signal
from vlmlens.testing.planting import in_columns
from vlmlens_plugins.analysis.manifests import SIMILARITY

_SAMPLES, _OF_GROUP, _WIDTH = 120, 6, 16
_NAMES = ("vision.block.0/image.mean", "llm.block.0/last", "llm.block.1/last")


class SimilarityChecks(AnalysisTests):
    """Whether two columns of three hold the same.

    - present: the last column is a rotated copy of the one before, with noise.
    - absent: all are noise.
    - confounded: all are noise, and the samples of a group have the same rows. So what a column
      holds of two such samples is alike in all columns.
    """

    manifest: ClassVar[Manifest] = SIMILARITY
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"permutations": 99})

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        rng = np.random.default_rng(["present", "absent", "confounded"].index(signal))
        data = in_columns("confounded" if signal == "confounded" else "absent", samples=_SAMPLES)
        groups = np.repeat(np.arange(_SAMPLES // _OF_GROUP), _OF_GROUP)
        rows = [rng.normal(size=(_SAMPLES, _WIDTH)) for _ in _NAMES]
        if signal == "confounded":
            rows = [one[groups] for one in rows]
        if signal == "present":
            turn = np.linalg.qr(rng.normal(size=(_WIDTH, _WIDTH)))[0]
            rows[2] = rows[1] @ turn + 0.5 * rows[2]
        columns = {
            name: Values(np.ascontiguousarray(one, "<f4"), "float32")
            for name, one in zip(_NAMES, rows, strict=True)
        }
        return replace(data, columns=columns)

    def claims(self, result: Result) -> bool:
        """See `AnalysisTests.claims`."""
        return any(
            isinstance(p := finding.values.get("cka_p"), float) and p <= 0.05
            for finding in result.findings
        )


CHECKS = (SimilarityChecks,)
