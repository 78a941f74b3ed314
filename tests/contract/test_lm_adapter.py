"""The adapter of text-only models: the kit on four families."""

from __future__ import annotations

from vlmlens_plugins.hf import lm_checks


class TestGPT2(lm_checks.GPT2Checks):
    pass


class TestGPTNeoX(lm_checks.GPTNeoXChecks):
    pass


class TestLlama(lm_checks.LlamaChecks):
    pass


class TestQwen2(lm_checks.Qwen2Checks):
    pass
