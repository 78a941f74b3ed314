"""The conformance kit for circuits."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.results import Result
from vlmlens_plugins.analysis.manifests import CIRCUIT
from vlmlens_plugins.analysis.patching.checks import PatchingChecks

_LITTLE = 0.05


class CircuitChecks(PatchingChecks):
    """Whether what a circuit keeps comes in through the image; data as of `PatchingChecks`."""

    manifest: ClassVar[Manifest] = CIRCUIT
    options: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"samples": 6, "draws": 100, "controls": 3, "edges": 2, "min_difference": 0}
    )

    def claims(self, result: Result) -> bool:
        """See `AnalysisTests.claims`."""
        said = [one.values for one in result.findings if "inputs_image" in one.values]
        return any(abs(float(values["inputs_image"] or 0)) > _LITTLE for values in said)


CIRCUIT_CHECKS = (CircuitChecks,)
