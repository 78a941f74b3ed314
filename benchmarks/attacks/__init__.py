"""Attacks on vlmlens: bounded, seeded, each exits 0 when nothing broke."""
