"""Qwen-VL: the conformance kit on four architectures."""

from __future__ import annotations

from vlmlens_adapter_qwen2vl.checks import (
    Qwen2VLChecks,
    Qwen3VLChecks,
    Qwen3VLMoeChecks,
    Qwen25VLChecks,
)


class TestQwen2VL(Qwen2VLChecks):
    pass


class TestQwen25VL(Qwen25VLChecks):
    pass


class TestQwen3VL(Qwen3VLChecks):
    pass


class TestQwen3VLMoe(Qwen3VLMoeChecks):
    pass
