"""BLIP-2 for vlmlens."""
