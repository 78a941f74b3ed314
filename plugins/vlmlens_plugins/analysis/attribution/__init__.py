"""Attribution: what each component does to the answer, estimated from gradients and held to it."""

from vlmlens_plugins.analysis.attribution.analysis import Attribution

__all__ = ["Attribution"]
