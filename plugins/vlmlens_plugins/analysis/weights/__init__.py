"""From the weights alone: what each head reads, copies and passes on to later heads."""

from vlmlens_plugins.analysis.weights.analysis import Weights

__all__ = ["Weights"]
