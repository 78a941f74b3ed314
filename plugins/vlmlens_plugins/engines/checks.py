"""The conformance kit over the engines that ship with vlmlens."""

from __future__ import annotations

from vlmlens.testing import EngineTests
from vlmlens_plugins.engines.manifests import ENVIRONMENT, PROCESSES, RAY


class ProcessesChecks(EngineTests):
    """Two processes."""

    manifest = PROCESSES
    options = {"workers": 2}  # noqa: RUF012


class EnvironmentChecks(EngineTests):
    """This process as the only part."""

    manifest = ENVIRONMENT
    options = {"shard": "0/1"}  # noqa: RUF012


class RayChecks(EngineTests):
    """Two actors of a Ray started here."""

    manifest = RAY
    options = {"workers": 2}  # noqa: RUF012


PROCESSES_CHECKS = (ProcessesChecks,)
ENVIRONMENT_CHECKS = (EnvironmentChecks,)
RAY_CHECKS = (RayChecks,)
