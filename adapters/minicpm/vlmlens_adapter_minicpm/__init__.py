"""MiniCPM-V and MiniCPM-o for vlmlens."""
