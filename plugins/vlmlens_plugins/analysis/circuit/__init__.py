"""Circuits: which components, at which rows, suffice for a behaviour."""

from vlmlens_plugins.analysis.circuit.analysis import Circuit

__all__ = ["Circuit"]
