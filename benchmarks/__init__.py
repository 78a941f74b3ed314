"""Benchmarks of vlmlens; see README.md beside this file."""
