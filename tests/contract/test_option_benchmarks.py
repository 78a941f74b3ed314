"""The conformance kit over MMMU, BLINK, VQAv2 and Video-MME."""

from __future__ import annotations

from vlmlens_plugins.benchmarks.blink import checks as blink
from vlmlens_plugins.benchmarks.mmmu import checks as mmmu
from vlmlens_plugins.benchmarks.videomme import checks as videomme
from vlmlens_plugins.benchmarks.vqav2 import checks as vqav2


class TestMmmu(mmmu.MmmuChecks):
    pass


class TestMmmuTable(mmmu.MmmuTableChecks):
    pass


class TestBlink(blink.BlinkChecks):
    pass


class TestBlinkTable(blink.BlinkTableChecks):
    pass


class TestVqaV2(vqav2.VqaV2Checks):
    pass


class TestVideoMme(videomme.VideoMmeChecks):
    pass


class TestVideoMmeWithoutVideos(videomme.AskedWithoutVideosChecks):
    pass
