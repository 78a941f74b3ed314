"""PerceptionLM for vlmlens."""
