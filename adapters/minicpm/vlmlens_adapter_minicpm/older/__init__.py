"""MiniCPM-V 2, MiniCPM-V 2.6 and the image and text parts of MiniCPM-o 2.6, without remote code."""
