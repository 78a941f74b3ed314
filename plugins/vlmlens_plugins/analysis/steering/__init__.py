"""Steering: a direction is learnt, added to activations, and what that does is measured."""

from vlmlens_plugins.analysis.steering.analysis import Steering

__all__ = ["Steering"]
