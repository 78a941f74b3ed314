"""InternVL for vlmlens."""
