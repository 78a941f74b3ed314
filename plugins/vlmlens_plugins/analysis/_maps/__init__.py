"""Maps over images: one number per patch of each sample, how it moves the answer or is read for it.

`PatchMap` is such a map, `METHODS` has the functions that make one from a pass, by name. `curves`
compares maps of any origin by deleting and inserting the pixels that they rank highest.
"""

from vlmlens_plugins.analysis._maps.maps import PatchMap
from vlmlens_plugins.analysis._maps.methods import METHODS, MapMethod

__all__ = ["METHODS", "MapMethod", "PatchMap"]
