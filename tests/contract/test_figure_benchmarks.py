"""The conformance kit over HallusionBench, MME, CDH-Bench, ChartQA and CLEVR."""

from __future__ import annotations

from vlmlens_plugins.benchmarks.hallusionbench import checks as hallusionbench


class TestHallusionBench(hallusionbench.HallusionChecks):
    pass
