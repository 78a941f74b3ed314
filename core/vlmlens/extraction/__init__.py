"""Extraction: runs batches through the model, and stores their rows.

May use compose, runs, passes and what is below. `extraction` is the main loop. `batching` divides
samples into batches, `pipeline` overlaps preparing, computing and storing, `write_buffer` collects
rows before a write, `eta` estimates the remaining time, `dry_pass` finds modules without rows.
"""
