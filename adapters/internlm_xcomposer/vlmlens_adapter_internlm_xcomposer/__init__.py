"""InternLM-XComposer 2.5 for vlmlens."""
