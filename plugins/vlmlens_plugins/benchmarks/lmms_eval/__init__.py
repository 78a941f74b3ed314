"""Answers that lmms-eval logged, as samples: to look inside answers that were scored elsewhere.

`log` reads the files of its versions, `tasks` knows which benchmark a task is, `joining` finds the
question of each answer in the benchmark's own data, `dataset` puts them together.
"""

from vlmlens_plugins.benchmarks.lmms_eval.dataset import LmmsEval, LmmsEvalOptions

__all__ = ["LmmsEval", "LmmsEvalOptions"]
