"""LLaVA-NeXT for vlmlens."""
