"""The conformance kit for attribution."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.results import Result, Verdict
from vlmlens_plugins.analysis.manifests import ATTRIBUTION
from vlmlens_plugins.analysis.patching.checks import PatchingChecks


class AttributionChecks(PatchingChecks):
    """Whether components at image rows move the answer, in the models of `PatchingChecks`."""

    manifest: ClassVar[Manifest] = ATTRIBUTION
    options: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "rows": ("image",),
            "kinds": ("block",),
            "draws": 200,
            "check": 1,
            "patches": 1,
            "steps": 4,
            "edge_steps": 2,
            "min_difference": 0,
            "only_right": False,
        }
    )

    def claims(self, result: Result) -> bool:
        """See `AnalysisTests.claims`: a node was really exchanged, and moved the answer."""
        return any(
            one.verdict is Verdict.DIFFERS and float(one.values["effect"] or 0) > 0
            for one in result.findings
            if one.values.get("rows") == "image" and "effect" in one.values
        )


ATTRIBUTION_CHECKS = (AttributionChecks,)
