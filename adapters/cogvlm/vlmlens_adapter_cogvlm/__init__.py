"""CogVLM for vlmlens."""
