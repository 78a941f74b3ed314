"""Trains the embedded demo model; run it with ``python -m scripts.train_demo``."""
