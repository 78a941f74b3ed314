"""The conformance kit for `concepts`: signals planted in columns."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AnalysisTests
from vlmlens_plugins.analysis.manifests import CONCEPTS


class ConceptsChecks(AnalysisTests):
    """Whether samples of a concept lie together: in one column, in none, or by group only."""

    manifest: ClassVar[Manifest] = CONCEPTS
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"permutations": 99, "resamples": 200})


CHECKS = (ConceptsChecks,)
