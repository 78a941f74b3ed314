"""Janus for vlmlens."""
