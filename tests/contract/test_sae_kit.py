"""The kit of analyses, on sparse autoencoders."""

from __future__ import annotations

import pytest

from vlmlens_plugins.analysis.sae.checks import SaeChecks

pytestmark = pytest.mark.no_cover  # each analysis's own tests have the lines; tracing costs a third


class TestSae(SaeChecks):
    """SAEs."""
