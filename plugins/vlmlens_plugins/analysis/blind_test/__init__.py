"""The blind test: does the model look at the image at all?"""

from vlmlens_plugins.analysis.blind_test.analysis import BlindTest
from vlmlens_plugins.analysis.blind_test.options import BlindOptions

__all__ = ["BlindOptions", "BlindTest"]
