"""PaliGemma for vlmlens."""
