"""MiniCPM-V 2, V 2.6 and o 2.6: the conformance kit."""

from __future__ import annotations

from vlmlens_adapter_minicpm.older.checks import (
    MiniCpm2Checks,
    MiniCpm2EagerChecks,
    MiniCpm26Checks,
    MiniCpmO26Checks,
)


class TestMiniCpm2(MiniCpm2Checks):
    pass


class TestMiniCpm2Eager(MiniCpm2EagerChecks):
    pass


class TestMiniCpm26(MiniCpm26Checks):
    pass


class TestMiniCpmO26(MiniCpmO26Checks):
    pass
