"""Probes of columns that do not fit in memory: they are read in blocks, a few times each."""
