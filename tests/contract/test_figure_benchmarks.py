"""The conformance kit over HallusionBench, MME, CDH-Bench, ChartQA and CLEVR."""

from __future__ import annotations

from vlmlens_plugins.benchmarks.cdh import checks as cdh
from vlmlens_plugins.benchmarks.chartqa import checks as chartqa
from vlmlens_plugins.benchmarks.clevr import checks as clevr
from vlmlens_plugins.benchmarks.hallusionbench import checks as hallusionbench
from vlmlens_plugins.benchmarks.mme import checks as mme


class TestHallusionBench(hallusionbench.HallusionChecks):
    pass


class TestMme(mme.MmeChecks):
    pass


class TestCdh(cdh.CdhChecks):
    pass


class TestChartQa(chartqa.ChartQaChecks):
    pass


class TestClevr(clevr.ClevrChecks):
    pass
