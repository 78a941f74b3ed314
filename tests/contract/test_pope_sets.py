"""The conformance kit over POPE, H-POPE, lmms-eval's logs and demo:pope."""

from __future__ import annotations

from vlmlens_plugins.benchmarks.hpope import checks as hpope
from vlmlens_plugins.benchmarks.lmms_eval import checks as lmms_eval
from vlmlens_plugins.benchmarks.pope import checks as pope
from vlmlens_plugins.demo.checks import PolledChecks


class TestOfficialFiles(pope.OfficialChecks):
    pass


class TestHubColumns(pope.HubChecks):
    pass


class TestVlmEvalKitsTable(pope.TableChecks):
    pass


class TestLlavasFile(pope.LlavaChecks):
    pass


class TestScenes(hpope.SceneChecks):
    pass


class TestTable(hpope.TableChecks):
    pass


class TestRows(hpope.RowChecks):
    pass


class TestLog(lmms_eval.JoinedChecks):
    pass


class TestDemo(PolledChecks):
    pass
