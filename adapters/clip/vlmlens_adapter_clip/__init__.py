"""CLIP, SigLIP and SigLIP 2 for vlmlens."""
