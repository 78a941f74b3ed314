"""The kit of analyses, on the causal ones."""

from __future__ import annotations

from vlmlens_plugins.analysis.patching.checks import PatchingChecks
from vlmlens_plugins.analysis.steering.checks import SteeringChecks


class TestPatching(PatchingChecks):
    """Patching."""


class TestSteering(SteeringChecks):
    """Steering."""
