"""Aya Vision for vlmlens."""
