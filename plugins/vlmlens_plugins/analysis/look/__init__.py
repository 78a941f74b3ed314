"""Look: one picture, one question: the answer, where it forms, and what it rests on."""

from vlmlens_plugins.analysis.look.analysis import Look

__all__ = ["Look"]
