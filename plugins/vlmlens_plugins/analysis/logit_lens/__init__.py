"""The logit lens: what every language block would answer."""

from vlmlens_plugins.analysis.logit_lens.analysis import LensOptions, LogitLens

__all__ = ["LensOptions", "LogitLens"]
