"""The kit of analyses, on those that change the model or differentiate it."""

from __future__ import annotations

import pytest

from vlmlens_plugins.analysis.activating.checks import ActivatingChecks
from vlmlens_plugins.analysis.attribution.checks import AttributionChecks
from vlmlens_plugins.analysis.bottleneck.checks import BottleneckChecks
from vlmlens_plugins.analysis.captions.checks import CaptionsChecks
from vlmlens_plugins.analysis.checks import AblationChecks, KnockoutChecks
from vlmlens_plugins.analysis.circuit.checks import CircuitChecks
from vlmlens_plugins.analysis.evidence.checks import EvidenceChecks
from vlmlens_plugins.analysis.hallucination.checks import HallucinationChecks
from vlmlens_plugins.analysis.heads.checks import HeadsChecks
from vlmlens_plugins.analysis.look.checks import LookChecks
from vlmlens_plugins.analysis.occlusion.checks import OcclusionChecks
from vlmlens_plugins.analysis.patching.checks import PatchingChecks
from vlmlens_plugins.analysis.removal.checks import RemovalChecks
from vlmlens_plugins.analysis.steering.checks import SteeringChecks
from vlmlens_plugins.analysis.weights.checks import WeightsChecks

pytestmark = pytest.mark.no_cover  # each analysis's own tests have the lines; tracing costs a third


class TestPatching(PatchingChecks):
    """Patching."""


class TestKnockout(KnockoutChecks):
    """Knockout."""


class TestAblation(AblationChecks):
    """Ablation."""


class TestCircuit(CircuitChecks):
    """Circuit."""


class TestSteering(SteeringChecks):
    """Steering."""


class TestWeights(WeightsChecks):
    """Weights."""


class TestHeads(HeadsChecks):
    """Heads."""


class TestAttribution(AttributionChecks):
    """Attribution."""


class TestActivating(ActivatingChecks):
    """Activating."""


class TestHallucination(HallucinationChecks):
    """Hallucination."""


class TestBottleneck(BottleneckChecks):
    """Bottlenecks."""


class TestCaptions(CaptionsChecks):
    """Captions."""


class TestRemoval(RemovalChecks):
    """Removal."""


class TestEvidence(EvidenceChecks):
    """Evidence."""


class TestOcclusion(OcclusionChecks):
    """Occlusion."""


class TestLook(LookChecks):
    """Look."""
