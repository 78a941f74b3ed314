"""The logit lens: what every language block would answer."""

from vlmlens_plugins.analysis.logit_lens.analysis import LogitLens
from vlmlens_plugins.analysis.logit_lens.options import LensOptions

__all__ = ["LensOptions", "LogitLens"]
