"""LLaVA for vlmlens."""
