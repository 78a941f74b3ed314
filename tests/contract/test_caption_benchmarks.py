"""The conformance kit over CHAIR and AMBER."""

from __future__ import annotations

from vlmlens_plugins.benchmarks.amber import checks as amber
from vlmlens_plugins.benchmarks.chair import checks as chair


class TestChair(chair.ChairChecks):
    pass


class TestChairRows(chair.ChairRowsChecks):
    pass


class TestAmber(amber.AmberChecks):
    pass


class TestAmberTable(amber.AmberTableChecks):
    pass
