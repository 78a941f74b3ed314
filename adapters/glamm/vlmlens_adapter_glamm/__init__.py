"""GLaMM for vlmlens."""
