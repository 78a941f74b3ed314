"""The kit of analyses, on sparse autoencoders."""

from __future__ import annotations

from vlmlens_plugins.analysis.sae.checks import SaeChecks


class TestSae(SaeChecks):
    """SAEs."""
