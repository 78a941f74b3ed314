"""Molmo for vlmlens."""
