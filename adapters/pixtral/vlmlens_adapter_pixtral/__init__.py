"""Pixtral for vlmlens."""
