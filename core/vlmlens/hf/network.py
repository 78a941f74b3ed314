"""Whether the Hugging Face hub can be reached, for adapters and readers of data."""

from __future__ import annotations

from vlmlens._hub import hub_or_cache, hub_trouble

__all__ = ["hub_or_cache", "hub_trouble"]
