"""The conformance kit over the engines that ship with vlmlens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from vlmlens.testing import EngineTests
from vlmlens_plugins.engines.manifests import ENVIRONMENT, PROCESSES, RAY


class ProcessesChecks(EngineTests):
    """Two processes."""

    manifest = PROCESSES
    options: ClassVar[Mapping[str, Any]] = {"workers": 2}


class EnvironmentChecks(EngineTests):
    """This process as the only part."""

    manifest = ENVIRONMENT
    options: ClassVar[Mapping[str, Any]] = {"shard": "0/1"}


class RayChecks(EngineTests):
    """Two actors of a Ray started here."""

    manifest = RAY
    options: ClassVar[Mapping[str, Any]] = {"workers": 2}


PROCESSES_CHECKS = (ProcessesChecks,)
ENVIRONMENT_CHECKS = (EnvironmentChecks,)
RAY_CHECKS = (RayChecks,)
