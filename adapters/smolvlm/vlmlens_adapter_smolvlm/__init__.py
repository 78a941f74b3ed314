"""SmolVLM, SmolVLM2 and Idefics3 for vlmlens."""
