"""The first generation of Molmo, without the code that its checkpoints bring along."""
