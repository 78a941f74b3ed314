"""MiniCPM-V for vlmlens."""
