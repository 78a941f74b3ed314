"""Benchmark: the score of a question set by its own card, beside what guessing gains."""

from vlmlens_plugins.analysis.benchmark.analysis import BenchmarkScores

__all__ = ["BenchmarkScores"]
