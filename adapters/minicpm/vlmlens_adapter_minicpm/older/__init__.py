"""MiniCPM-V 2, MiniCPM-V 2.6, and what sees and reads of MiniCPM-o 2.6, without remote code."""
